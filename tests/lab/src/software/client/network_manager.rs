//! NetworkManager.

use anyhow::Result;

use crate::machine::{Machine, Process};
use crate::software::bus;

const CONFIGURATION: &str = "\
[main]
plugins=keyfile
dhcp=internal
no-auto-default=*
dns=none
auth-polkit=false
[logging]
level=DEBUG
domains=DHCP6,DEVICE,CORE
";

/// It asks without waiting for a router.
const CONNECTION: &str = "\
[connection]
id=eth0
type=ethernet
interface-name=eth0
[ipv4]
method=disabled
[ipv6]
method=dhcp
";

pub fn start(machine: &Machine) -> Result<Process> {
    bus::start(machine)?;
    machine.write("/etc/NetworkManager/NetworkManager.conf", CONFIGURATION)?;
    let connection = "/etc/NetworkManager/system-connections/eth0.nmconnection";
    machine.write(connection, CONNECTION)?;
    // It takes no secrets from files that others can read.
    machine.run("chmod", ["600", connection])?;
    machine.start("NetworkManager", ["--no-daemon"])
}
