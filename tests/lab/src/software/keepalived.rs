//! keepalived: VRRP.

use std::net::Ipv6Addr;

use anyhow::Result;

use super::PATIENCE;
use crate::machine::{Machine, Process};
use crate::site::ETH0;

/// What keepalived says when it has become master.
const MASTER: &str = "Entering MASTER STATE";

/// Starts it: of all that share `address` on the segment of `eth0`, it has the address that is up
/// and has the highest priority. It takes the address away if it finds it there.
///
/// # Errors
///
/// With its log, where it does not come up.
pub fn start(machine: &Machine, address: Ipv6Addr, priority: u8) -> Result<Process> {
    let configuration = format!(
        "vrrp_instance dhcpv6 {{
            interface {ETH0}
            virtual_router_id 51
            priority {priority}
            advert_int 0.3
            virtual_ipaddress {{
                {address}/64
            }}
        }}\n"
    );
    machine.write("/etc/keepalived/keepalived.conf", configuration)?;
    let mut process = machine.start(
        "keepalived",
        ["--dont-fork", "--log-console", "--log-detail", "--vrrp"],
    )?;
    process.until_it_says("Entering BACKUP STATE (init)", PATIENCE)?;
    Ok(process)
}

/// Waits until it is master, its machine takes packets for the address, and the neighbours know.
///
/// # Errors
///
/// With its log, where it does not become master.
pub fn until_master(process: &mut Process, machine: &Machine, address: Ipv6Addr) -> Result<()> {
    process.until_it_says("Sending unsolicited Neighbour Advert", PATIENCE)?;
    // The kernel makes the route somewhat later than it lets keepalived have the address.
    process.until("route to itself", PATIENCE, |_| {
        let route = machine.namespace.ip(&format!("route get {address}"));
        route.is_ok_and(|route| route.starts_with("local"))
    })
}

/// How often it has become master.
pub fn times_master(process: &Process) -> usize {
    process.log().matches(MASTER).count()
}
