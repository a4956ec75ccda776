//! DHCPv6 servers.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::{PATIENCE, until_it_serves};
use crate::machine::{Machine, Process};
use crate::site::{ETH0, SERVER};

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
    /// Starts it on a machine that has the address [`SERVER`] on `eth0`: it grants addresses of the
    /// relays' link.
    ///
    /// # Errors
    ///
    /// With its log, where it does not come up.
    pub fn start(self, machine: &Machine, lifetimes: Lifetimes) -> Result<Process> {
        let mut process = match self {
            Self::Kea => kea(machine, lifetimes),
        }?;
        until_it_serves(&mut process, machine)?;
        Ok(process)
    }
}

fn kea(machine: &Machine, lifetimes: Lifetimes) -> Result<Process> {
    let configuration = json!({ "Dhcp6": {
        "data-directory": "/var/lib/kea",
        "interfaces-config": { "interfaces": [ ETH0, format!("{ETH0}/{SERVER}") ] },
        "lease-database": { "type": "memfile", "persist": false },
        "server-id": { "type": "LL", "persist": false, "identifier": "0200000000b7" },
        "renew-timer": lifetimes.renew.as_secs(),
        "rebind-timer": lifetimes.rebind.as_secs(),
        "preferred-lifetime": lifetimes.preferred.as_secs(),
        "valid-lifetime": lifetimes.valid.as_secs(),
        "option-data": [
            { "name": "dns-servers", "data": "2001:db8:b::53" },
            { "name": "bootfile-url", "data": "http://[2001:db8:b::1]/snponly.efi" },
        ],
        "subnet6": [ {
            "id": 1,
            "subnet": "2001:db8:1::/64",
            "rapid-commit": true,
            "pools": [ { "pool": "2001:db8:1:0:1::/80" } ],
        } ],
        "loggers": [ {
            "name": "kea-dhcp6",
            "severity": "INFO",
            "output_options": [ { "output": "stdout", "flush": true } ],
        } ],
    } });
    machine.write("/etc/kea/kea-dhcp6.conf", configuration.to_string())?;
    machine.write("/var/lib/kea/.keep", "")?;
    let mut kea =
        machine.start_with("kea-dhcp6", ["-c", "/etc/kea/kea-dhcp6.conf"], |command| {
            command
                .env("KEA_PIDFILE_DIR", "/var/lib/kea")
                .env("KEA_LOCKFILE_DIR", "none");
        })?;
    kea.until_it_says("DHCP6_STARTED", PATIENCE)?;
    Ok(kea)
}
