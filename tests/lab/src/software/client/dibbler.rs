//! dibbler-client.

use anyhow::Result;

use crate::machine::{Machine, Process};

const CONFIGURATION: &str = "\
log-level 7
log-mode short
duid-type duid-ll
iface eth0 {
  ia { }
  option dns-server
}
";

pub fn start(machine: &Machine) -> Result<Process> {
    machine.write("/etc/dibbler/client.conf", CONFIGURATION)?;
    machine.run("mkdir", ["-p", "/var/lib/dibbler", "/var/log/dibbler"])?;
    machine.start("dibbler-client", ["run"])
}
