//! radvd: a router that tells hosts to use DHCPv6.

use anyhow::Result;

use super::PATIENCE;
use crate::machine::{Machine, Process};

/// M and O flags, and a prefix that nobody makes an address of by itself.
const CONFIGURATION: &str = "\
interface downlink {
  AdvSendAdvert on;
  AdvManagedFlag on;
  AdvOtherConfigFlag on;
  MinRtrAdvInterval 3;
  MaxRtrAdvInterval 4;
  prefix 2001:db8:1::/64 {
    AdvAutonomous off;
  };
};
";

/// Starts it on a relay's downlink.
///
/// # Errors
///
/// With its log, where it does not come up.
pub fn start(machine: &Machine) -> Result<Process> {
    machine
        .namespace
        .sysctl("net/ipv6/conf/all/forwarding", "1")?;
    machine.write("/etc/radvd.conf", CONFIGURATION)?;
    let arguments = ["-n", "-m", "stderr", "-u", "root", "-p", "/run/radvd.pid"];
    let mut process = machine.start("radvd", arguments)?;
    process.until_it_says("started", PATIENCE)?;
    Ok(process)
}
