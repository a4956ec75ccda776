//! systemd-networkd.

use anyhow::Result;

use crate::machine::{Machine, Process};

/// It asks without waiting for a router.
const CONFIGURATION: &str = "\
[Match]
Name=eth0
[Network]
IPv6AcceptRA=no
DHCP=ipv6
[DHCPv6]
WithoutRA=solicit
DUIDType=link-layer
";

pub fn start(machine: &Machine) -> Result<Process> {
    machine.write("/run/systemd/network/eth0.network", CONFIGURATION)?;
    // It drops privileges before it writes there.
    let state = ["links", "leases", "lldp"].map(|name| format!("/run/systemd/netif/{name}"));
    machine.run("mkdir", [&["-p".to_owned()], &state[..]].concat())?;
    machine.run("chown", ["-R", "systemd-network", "/run/systemd/netif"])?;
    machine.start_with("systemd-networkd", [""; 0], |command| {
        command.env("SYSTEMD_LOG_LEVEL", "debug");
    })
}
