//! ConnMan.

use anyhow::Result;

use crate::machine::{Machine, Process};
use crate::site::ETH0;
use crate::software::bus;

const CONFIGURATION: &str = "\
[General]
AllowHostnameUpdates=false
EnableOnlineCheck=false
";

pub fn start(machine: &Machine) -> Result<Process> {
    bus::start(machine)?;
    machine.write("/etc/connman/main.conf", CONFIGURATION)?;
    // It finds no place for its DUID, and so asks for nothing, where it does not know the service
    // from an earlier run.
    let service = service(machine);
    let settings = format!(
        "[{service}]\n\
         Name=Wired\n\
         Favorite=true\n\
         AutoConnect=true\n\
         IPv4.method=off\n\
         IPv6.method=auto\n"
    );
    machine.write(&format!("/var/lib/connman/{service}/settings"), settings)?;
    machine.start("connmand", ["-n", "-d", "-r", "--nobacktrace", "-i", ETH0])
}

pub fn release(machine: &Machine) -> Result<()> {
    machine
        .run("connmanctl", ["disconnect", &service(machine)])
        .map(drop)
}

/// What it calls the connection by `eth0`.
fn service(machine: &Machine) -> String {
    let mac = machine.read(&format!("/sys/class/net/{ETH0}/address"));
    format!("ethernet_{}_cable", mac.trim().replace(':', ""))
}
