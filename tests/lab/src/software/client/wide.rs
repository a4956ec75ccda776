//! dhcp6c of wide-dhcpv6-client.

use anyhow::Result;

use crate::machine::{Machine, Process};
use crate::site::ETH0;

const CONFIGURATION: &str = "\
interface eth0 {
  send ia-na 1;
  request domain-name-servers;
};
id-assoc na 1 { };
";

pub fn start(machine: &Machine) -> Result<Process> {
    machine.write("/etc/lab/dhcp6c.conf", CONFIGURATION)?;
    // Its DUID goes there.
    machine.run("mkdir", ["-p", "/var/lib/dhcpv6"])?;
    let pid_file = "/run/dhcp6c.pid";
    machine.start(
        "dhcp6c",
        [
            "-f",
            "-D",
            "-c",
            "/etc/lab/dhcp6c.conf",
            "-p",
            pid_file,
            ETH0,
        ],
    )
}
