//! radvd: router advertisements.

use std::net::Ipv6Addr;

use anyhow::Result;

use super::PATIENCE;
use crate::machine::{Machine, Process};
use crate::site::{DOWN, ETH0};

/// Starts it on `eth0`: it advertises itself as a router, and the prefix of `link`, several times a
/// second.
///
/// # Errors
///
/// With its log, where it does not come up.
pub fn start(machine: &Machine, link: Ipv6Addr) -> Result<Process> {
    // Mobile IPv6 lets a router do so more often than every three seconds.
    let advertised = format!(
        "AdvIntervalOpt on;
         MinRtrAdvInterval 0.03;
         MaxRtrAdvInterval 0.07;
         AdvDefaultLifetime 600;
         prefix {link}/64 {{}};"
    );
    advertise(machine, ETH0, &advertised)
}

/// Starts it on a relay's downlink: it tells hosts to use DHCPv6, and to make no address themselves.
///
/// # Errors
///
/// With its log, where it does not come up.
pub fn tell_to_use_dhcp(machine: &Machine) -> Result<Process> {
    const ADVERTISED: &str = "AdvManagedFlag on;
         AdvOtherConfigFlag on;
         MinRtrAdvInterval 3;
         MaxRtrAdvInterval 4;
         prefix 2001:db8:1::/64 { AdvAutonomous off; };";
    advertise(machine, DOWN, ADVERTISED)
}

fn advertise(machine: &Machine, interface: &str, advertised: &str) -> Result<Process> {
    machine
        .namespace
        .sysctl("net/ipv6/conf/all/forwarding", "1")?;
    let configuration = format!("interface {interface} {{ AdvSendAdvert on; {advertised} }};\n");
    machine.write("/etc/radvd.conf", configuration)?;
    let mut process = machine.start(
        "radvd",
        ["--nodaemon", "--logmethod", "stderr", "--username", "root"],
    )?;
    process.until_it_says("started", PATIENCE)?;
    Ok(process)
}
