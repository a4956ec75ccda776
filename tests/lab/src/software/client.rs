//! DHCPv6 clients.

mod dhcpcd;

use anyhow::Result;

use crate::machine::{Machine, Process};
use crate::site::ETH0;

/// What dhclient calls to apply a lease: the address, and nothing else.
const DHCLIENT_SCRIPT: &str = r#"#!/bin/sh
case "$reason" in
BOUND6 | RENEW6 | REBIND6)
    [ -z "$new_ip6_address" ] || ip -6 addr replace "$new_ip6_address/128" dev "$interface" nodad ;;
EXPIRE6 | RELEASE6 | STOP6)
    [ -z "$old_ip6_address" ] || ip -6 addr del "$old_ip6_address/128" dev "$interface" ;;
esac
exit 0
"#;

/// A client program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// isc-dhcp-client.
    Dhclient,
    /// dhcpcd.
    Dhcpcd,
}

impl Client {
    /// Starts it: it asks for an address on `eth0`, and keeps it by renewing.
    ///
    /// # Errors
    ///
    /// Where it cannot be started.
    pub fn start(self, machine: &Machine) -> Result<Process> {
        match self {
            Self::Dhclient => {
                machine.write("/etc/lab/dhclient-script", DHCLIENT_SCRIPT)?;
                machine.run("chmod", ["755", "/etc/lab/dhclient-script"])?;
                machine.write("/var/lib/dhcp/lab.leases", "")?;
                machine.write(
                    "/etc/lab/dhclient.conf",
                    "request dhcp6.name-servers, dhcp6.bootfile-url;\n",
                )?;
                machine.start("dhclient", [&["-v"], DHCLIENT].concat())
            }
            Self::Dhcpcd => dhcpcd::start(machine),
        }
    }

    /// Makes it give its address back, and end.
    ///
    /// # Errors
    ///
    /// Where it cannot be told to.
    pub fn release(self, machine: &Machine, _process: Process) -> Result<()> {
        match self {
            Self::Dhclient => machine
                .run("dhclient", [&["-r"], DHCLIENT].concat())
                .map(drop),
            Self::Dhcpcd => dhcpcd::release(machine),
        }
    }
}

const DHCLIENT: &[&str] = &[
    "-6",
    "-d",
    "-sf",
    "/etc/lab/dhclient-script",
    "-cf",
    "/etc/lab/dhclient.conf",
    "-lf",
    "/var/lib/dhcp/lab.leases",
    "-pf",
    "/run/dhclient.pid",
    ETH0,
];
