//! DHCPv6 relays.

use std::net::Ipv6Addr;

use anyhow::Result;

use super::{PATIENCE, dnsmasq, until_it_serves};
use crate::machine::{Machine, Process};
use crate::site::{DOWN, Site, UP};

/// Where clients send to.
const ALL_RELAYS_AND_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// A relay program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relay {
    /// isc-dhcp-relay.
    Dhcrelay {
        /// Whether it adds an Interface-Id.
        interface_id: bool,
    },
    /// dnsmasq as a relay: it looks up the client's MAC address first, and adds it as option 79.
    Dnsmasq,
    /// wide-dhcpv6-relay: it adds an Interface-Id behind the message, and sends from port 546.
    Wide,
    /// dibbler-relay: it adds an Interface-Id, here in front of the message.
    Dibbler,
}

impl Relay {
    /// ISC's, as most people run it.
    pub const ISC: Self = Self::Dhcrelay {
        interface_id: false,
    };

    /// Starts it on both relays of a site.
    ///
    /// # Errors
    ///
    /// With its log, where it does not come up.
    pub fn start_pair(self, site: &Site) -> Result<[Process; 2]> {
        let [a, b] = &site.relays;
        Ok([
            self.start(&a.machine, a.link, a.next)?,
            self.start(&b.machine, b.link, b.next)?,
        ])
    }

    /// Starts it on a machine: from its downlink, where it has the address `link`, to
    /// `server` behind its uplink.
    ///
    /// # Errors
    ///
    /// With its log, where it does not come up.
    pub fn start(self, machine: &Machine, link: Ipv6Addr, server: Ipv6Addr) -> Result<Process> {
        let mut process = match self {
            Self::Dhcrelay { interface_id } => dhcrelay(machine, interface_id, &[server]),
            Self::Dnsmasq => dnsmasq::relay(machine, link, server),
            Self::Wide => wide(machine, server),
            Self::Dibbler => dibbler(machine, server),
        }?;
        until_it_relays(&mut process, machine)?;
        Ok(process)
    }

    /// Whether it adds an Interface-Id.
    pub fn adds_interface_id(self) -> bool {
        match self {
            Self::Dhcrelay { interface_id } => interface_id,
            Self::Dnsmasq => false,
            Self::Wide | Self::Dibbler => true,
        }
    }
}

fn wide(machine: &Machine, server: Ipv6Addr) -> Result<Process> {
    let server = server.to_string();
    let pid_file = "/run/dhcp6relay.pid";
    let mut relay = machine.start(
        "dhcp6relay",
        ["-f", "-D", "-r", UP, "-s", &server, "-p", pid_file, DOWN],
    )?;
    relay.until_it_says("dhcp6relay started", PATIENCE)?;
    Ok(relay)
}

fn dibbler(machine: &Machine, server: Ipv6Addr) -> Result<Process> {
    let configuration = format!(
        "log-level 8
log-mode short
interface-id-order before
iface {DOWN} {{
    client multicast yes
    interface-id 5020
}}
iface {UP} {{
    server unicast {server}
    interface-id 5021
}}
"
    );
    machine.write("/etc/dibbler/relay.conf", configuration)?;
    let mut relay = machine.start("dibbler-relay", ["run"])?;
    relay.until_it_says("Accepting messages", PATIENCE)?;
    Ok(relay)
}

/// Waits until it hears clients: sockets are bound before they join the group.
fn until_it_relays(process: &mut Process, machine: &Machine) -> Result<()> {
    until_it_serves(process, machine)?;
    process.until("relay on ff02::1:2", PATIENCE, |_| {
        machine.has_joined(DOWN, ALL_RELAYS_AND_SERVERS)
    })
}

/// Starts ISC's, which sends each message to all of these servers.
///
/// # Errors
///
/// With its log, where it does not come up.
pub fn start_with_servers(machine: &Machine, servers: &[Ipv6Addr]) -> Result<Process> {
    let mut process = dhcrelay(machine, false, servers)?;
    until_it_relays(&mut process, machine)?;
    Ok(process)
}

fn dhcrelay(machine: &Machine, interface_id: bool, servers: &[Ipv6Addr]) -> Result<Process> {
    let mut arguments: Vec<String> = ["-6", "-d", "--no-pid", "-l", DOWN]
        .map(str::to_owned)
        .to_vec();
    for server in servers {
        arguments.extend(["-u".to_owned(), format!("{server}%{UP}")]);
    }
    if interface_id {
        arguments.push("-I".to_owned());
    }
    machine.start("dhcrelay", arguments)
}
