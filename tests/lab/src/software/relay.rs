//! DHCPv6 relays.

use std::net::Ipv6Addr;

use anyhow::Result;

use super::until_it_serves;
use crate::machine::{Machine, Process};
use crate::site::{DOWN, UP};

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
}

impl Relay {
    /// ISC's, as most people run it.
    pub const ISC: Self = Self::Dhcrelay {
        interface_id: false,
    };

    /// Starts it on a machine: from its downlink, where it has the address `link`, to
    /// `server` behind its uplink.
    ///
    /// # Errors
    ///
    /// With its log, where it does not come up.
    pub fn start(self, machine: &Machine, link: Ipv6Addr, server: Ipv6Addr) -> Result<Process> {
        let mut process = match self {
            Self::Dhcrelay { interface_id } => {
                let upper = format!("{server}%{UP}");
                let mut arguments = vec!["-6", "-d", "--no-pid", "-l", DOWN, "-u", &upper];
                if interface_id {
                    arguments.push("-I");
                }
                machine.start("dhcrelay", arguments)
            }
            Self::Dnsmasq => machine.start(
                "dnsmasq",
                [
                    "--keep-in-foreground",
                    "--conf-file=/dev/null",
                    "--port=0",
                    "--log-dhcp",
                    "--log-facility=-",
                    "--user=root",
                    "--pid-file",
                    &format!("--dhcp-relay={link},{server}"),
                ],
            ),
        }?;
        until_it_serves(&mut process, machine)?;
        Ok(process)
    }
}
