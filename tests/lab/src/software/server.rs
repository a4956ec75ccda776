//! DHCPv6 servers.

use std::time::Duration;

use anyhow::Result;

use super::kea::Kea;
use super::until_it_serves;
use crate::machine::{Machine, Process};

/// How long what a server grants is good.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// When the client renews.
    pub renew: Duration,
    /// When it asks any server to.
    pub rebind: Duration,
    /// When it may no longer open connections.
    pub preferred: Duration,
    /// When it has to give up the address.
    pub valid: Duration,
}

impl Lifetimes {
    /// Longer than any scenario.
    pub const LONG: Self = Self {
        renew: Duration::from_secs(1800),
        rebind: Duration::from_secs(2880),
        preferred: Duration::from_secs(3600),
        valid: Duration::from_secs(7200),
    };
}

/// A server program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// kea-dhcp6-server.
    Kea,
}

impl Server {
    /// Starts it on a machine that has the address [`SERVER`](crate::site::SERVER) on `eth0`: it grants addresses of the
    /// relays' link.
    ///
    /// # Errors
    ///
    /// With its log, where it does not come up.
    pub fn start(self, machine: &Machine, lifetimes: Lifetimes) -> Result<Process> {
        let mut process = match self {
            Self::Kea => Kea::new(lifetimes).start(machine),
        }?;
        until_it_serves(&mut process, machine)?;
        Ok(process)
    }
}
