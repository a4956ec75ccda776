//! isc-dhcp-client.

use anyhow::Result;

use crate::machine::{Machine, Process};
use crate::site::ETH0;

/// What dhclient calls to apply a lease: the address, and nothing else.
const SCRIPT: &str = r#"#!/bin/sh
case "$reason" in
BOUND6 | RENEW6 | REBIND6)
    [ -z "$new_ip6_address" ] || ip -6 addr replace "$new_ip6_address/128" dev "$interface" nodad ;;
EXPIRE6 | RELEASE6 | STOP6)
    [ -z "$old_ip6_address" ] || ip -6 addr del "$old_ip6_address/128" dev "$interface" ;;
esac
exit 0
"#;

const ARGUMENTS: &[&str] = &[
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

pub fn start(machine: &Machine) -> Result<Process> {
    machine.write("/etc/lab/dhclient-script", SCRIPT)?;
    machine.run("chmod", ["755", "/etc/lab/dhclient-script"])?;
    machine.write("/var/lib/dhcp/lab.leases", "")?;
    machine.write(
        "/etc/lab/dhclient.conf",
        "request dhcp6.name-servers, dhcp6.bootfile-url;\n",
    )?;
    machine.start("dhclient", [&["-v"], ARGUMENTS].concat())
}

pub fn release(machine: &Machine) -> Result<()> {
    machine
        .run("dhclient", [&["-r"], ARGUMENTS].concat())
        .map(drop)
}
