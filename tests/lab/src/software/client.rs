//! DHCPv6 clients: the programs of Debian's packages that ask for an address.

mod connman;
mod dhclient;
mod dhcpcd;
mod dibbler;
mod network_manager;
mod networkd;
mod wide;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::machine::{Machine, Process};

/// A client program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// ConnMan's own client.
    Connman,
    /// isc-dhcp-client.
    Dhclient,
    /// dhcpcd.
    Dhcpcd,
    /// dibbler-client.
    Dibbler,
    /// NetworkManager's own client, which is a copy of systemd's.
    NetworkManager,
    /// systemd-networkd.
    Networkd,
    /// dhcp6c of wide-dhcpv6-client.
    Wide,
}

impl Client {
    /// Starts it: it asks for an address on `eth0`, and keeps it by renewing.
    ///
    /// # Errors
    ///
    /// Where it cannot be started.
    pub fn start(self, machine: &Machine) -> Result<Process> {
        match self {
            Self::Connman => connman::start(machine),
            Self::Dhclient => dhclient::start(machine),
            Self::Dhcpcd => dhcpcd::start(machine),
            Self::Dibbler => dibbler::start(machine),
            Self::NetworkManager => network_manager::start(machine),
            Self::Networkd => networkd::start(machine),
            Self::Wide => wide::start(machine),
        }
    }

    /// Makes it give its address back, as far as it does: see [`releases`](Self::releases).
    ///
    /// # Errors
    ///
    /// Where it cannot be told to.
    pub fn release(self, machine: &Machine, process: &mut Process) -> Result<()> {
        match self {
            Self::Connman => connman::release(machine),
            Self::Dhclient => dhclient::release(machine),
            Self::Dhcpcd => dhcpcd::release(process),
            Self::Dibbler | Self::NetworkManager | Self::Networkd | Self::Wide => {
                process.signal(Signal::SIGTERM)
            }
        }
    }

    /// Whether it sends a Release. systemd 252 and NetworkManager 1.42 do not: they take the address
    /// off the interface, and the server waits until the lease is over.
    pub fn releases(self) -> bool {
        !matches!(self, Self::Networkd | Self::NetworkManager)
    }

    /// Whether it asks for nothing until a router has told it to use DHCPv6.
    pub fn waits_for_router(self) -> bool {
        self == Self::Connman
    }
}
