//! dhcpcd.

use anyhow::Result;

use crate::machine::{Machine, Process};
use crate::site::ETH0;

/// It asks without waiting for a router.
const CONFIGURATION: &str = "\
duid ll
ipv6only
noipv6rs
interface eth0
ia_na 1
";

/// It finds the one that runs by its arguments.
const ARGUMENTS: &[&str] = &["-f", "/etc/lab/dhcpcd.conf", "-c", "/bin/true", ETH0];

pub fn start(machine: &Machine) -> Result<Process> {
    machine.write("/etc/lab/dhcpcd.conf", CONFIGURATION)?;
    // It drops privileges before it writes there.
    let folders = ["/run/dhcpcd", "/var/lib/dhcpcd"];
    machine.run("mkdir", [&["-p"], &folders[..]].concat())?;
    machine.run("chown", [&["dhcpcd"], &folders[..]].concat())?;
    machine.start("dhcpcd", [&["-B", "-d"], ARGUMENTS].concat())
}

pub fn release(machine: &Machine) -> Result<()> {
    machine
        .run("dhcpcd", [&["-k"], ARGUMENTS].concat())
        .map(drop)
}
