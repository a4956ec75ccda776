//! The programs of the lab, as Debian's packages have them: how each is configured and started, and
//! how it says that it is ready.

pub mod bus;
pub mod client;
pub mod dnsmasq;
pub mod guest;
pub mod kea;
pub mod keepalived;
pub mod perfdhcp;
pub mod radvd;
pub mod relay;
pub mod server;
pub mod strict_client;
pub mod tcpdump;
pub mod uefi;
pub mod xdp_tools;

use std::time::Duration;

use anyhow::Result;

use crate::machine::Machine;
use crate::process::Process;

/// The packages that the lab's machines are made of, besides what these depend on.
pub const PACKAGES: &[&str] = &[
    // A shell and its tools, for what the packages' programs call.
    "bash",
    "coreutils",
    "dash",
    "grep",
    "iproute2",
    "procps",
    "sed",
    // Servers.
    "coredhcp-server",
    "dibbler-server",
    "dnsmasq-base",
    "isc-dhcp-server",
    "kea-dhcp6-server",
    "wide-dhcpv6-server",
    // Relays; dnsmasq is one too.
    "dibbler-relay",
    "isc-dhcp-relay",
    "wide-dhcpv6-relay",
    // Clients; perfdhcp is in kea-admin, networkd in systemd.
    "dhcpcd-base",
    "dibbler-client",
    "isc-dhcp-client",
    "kea-admin",
    "systemd",
    "wide-dhcpv6-client",
    // What installs a package on a machine that systemd boots.
    "diffutils",
    "dpkg",
    "init-system-helpers",
    "libc-bin",
    "mount",
    "perl-base",
    "util-linux",
    // What else the scenarios want.
    "keepalived",
    "nftables",
    "radvd",
    "tcpdump",
    "xdp-tools",
];

/// Most time that a program may take to come up, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Port of DHCPv6 servers and relays.
const SERVER_PORT: u16 = 547;

/// Waits until something listens on port 547 of the machine.
fn until_it_serves(process: &mut Process, machine: &Machine) -> Result<()> {
    process.until("socket on port 547", PATIENCE, |_| {
        machine.listens(SERVER_PORT)
    })
}
