//! dnsmasq, which is a name server, a DHCPv6 server, a DHCPv6 relay and a TFTP server.

use std::net::Ipv6Addr;

use anyhow::Result;

use super::server::{Lifetimes, NAMES};
use super::{PATIENCE, until_it_serves};
use crate::machine::{Machine, Process};

/// The domain that the name server knows: every name in it has the address [`ANSWER`].
pub const DOMAIN: &str = "example";
/// What the name server answers.
pub const ANSWER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xa);

/// Starts it as a name server.
///
/// # Errors
///
/// With its log, where it does not come up.
pub fn name_server(machine: &Machine) -> Result<Process> {
    const PORT: u16 = 53;
    let mut process = start(
        machine,
        &["--no-resolv", &format!("--address=/{DOMAIN}/{ANSWER}")],
    )?;
    process.until("socket on port 53", PATIENCE, |_| machine.listens(PORT))?;
    Ok(process)
}

/// Starts it as a DHCPv6 server that grants the addresses from `first` to `last`, and names a name
/// server.
///
/// # Errors
///
/// With its log, where it does not come up.
pub fn dhcpv6_server(
    machine: &Machine,
    first: Ipv6Addr,
    last: Ipv6Addr,
    lifetimes: Lifetimes,
) -> Result<Process> {
    let valid = lifetimes.valid.as_secs();
    let mut process = start(
        machine,
        &[
            "--port=0",
            "--log-dhcp",
            "--dhcp-leasefile=/var/lib/misc/lab.leases",
            &format!("--dhcp-range={first},{last},64,{valid}"),
            &format!("--dhcp-option=option6:dns-server,[{NAMES}]"),
        ],
    )?;
    until_it_serves(&mut process, machine)?;
    Ok(process)
}

/// Starts it as a relay from the link where it has the address `link` to a server.
///
/// # Errors
///
/// Where it cannot be started.
pub fn relay(machine: &Machine, link: Ipv6Addr, server: Ipv6Addr) -> Result<Process> {
    let relay = format!("--dhcp-relay={link},{server}");
    start(machine, &["--port=0", "--log-dhcp", &relay])
}

/// Starts it as a TFTP server of what lies in a folder of the machine.
///
/// # Errors
///
/// With its log, where it does not come up.
pub fn tftp_server(machine: &Machine, folder: &str) -> Result<Process> {
    let root = format!("--tftp-root={folder}");
    let mut process = start(machine, &["--port=0", "--enable-tftp", &root])?;
    process.until_it_says("TFTP root is", PATIENCE)?;
    Ok(process)
}

fn start(machine: &Machine, arguments: &[&str]) -> Result<Process> {
    const ALWAYS: &[&str] = &[
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--log-facility=-",
        "--user=root",
        "--pid-file",
    ];
    machine.start("dnsmasq", [ALWAYS, arguments].concat())
}
