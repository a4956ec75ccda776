//! Kea's DHCPv6 server.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::PATIENCE;
use super::server::Lifetimes;
use crate::machine::{Machine, Process};
use crate::site::{ETH0, SERVER};

const CONFIGURATION: &str = "/etc/kea/kea-dhcp6.conf";

/// Where it takes commands.
const SOCKET: &str = "/run/kea.sock";

/// What of it differs between scenarios.
#[derive(Clone, Copy, Debug)]
pub struct Kea {
    /// How long what it grants is good.
    pub lifetimes: Lifetimes,
    /// What it tells clients to boot.
    pub boot_file: &'static str,
    /// Whether it logs each lease.
    pub logs_leases: bool,
}

impl Kea {
    /// As people run it.
    pub const fn new(lifetimes: Lifetimes) -> Self {
        Self {
            lifetimes,
            boot_file: "http://[2001:db8:b::1]/snponly.efi",
            logs_leases: true,
        }
    }

    /// Starts it on a machine that has the address [`SERVER`] on `eth0`.
    ///
    /// # Errors
    ///
    /// With its log, where it does not come up.
    pub fn start(self, machine: &Machine) -> Result<Process> {
        machine.write(CONFIGURATION, self.configuration().to_string())?;
        machine.write("/var/lib/kea/.keep", "")?;
        let mut kea = machine.start_with("kea-dhcp6", ["-c", CONFIGURATION], |command| {
            command
                .env("KEA_PIDFILE_DIR", "/var/lib/kea")
                .env("KEA_LOCKFILE_DIR", "none");
        })?;
        kea.until_it_says("DHCP6_STARTED", PATIENCE)?;
        Ok(kea)
    }

    fn configuration(self) -> Value {
        let lifetimes = self.lifetimes;
        let leases = if self.logs_leases { "INFO" } else { "WARN" };
        let log = json!([ { "output": "stdout", "flush": true } ]);
        json!({ "Dhcp6": {
            "data-directory": "/var/lib/kea",
            "interfaces-config": { "interfaces": [ "*", format!("{ETH0}/{SERVER}") ] },
            "control-socket": { "socket-type": "unix", "socket-name": SOCKET },
            "lease-database": { "type": "memfile", "persist": false },
            "server-id": { "type": "LL", "persist": false, "identifier": "0200000000b7" },
            "renew-timer": lifetimes.renew.as_secs(),
            "rebind-timer": lifetimes.rebind.as_secs(),
            "preferred-lifetime": lifetimes.preferred.as_secs(),
            "valid-lifetime": lifetimes.valid.as_secs(),
            "option-data": [
                { "name": "dns-servers", "data": "2001:db8:b::53" },
                { "name": "bootfile-url", "data": self.boot_file },
            ],
            "subnet6": [ {
                "id": 1,
                "subnet": "2001:db8:1::/64",
                "rapid-commit": true,
                "pools": [ { "pool": "2001:db8:1:0:1::/80" } ],
            } ],
            "loggers": [
                { "name": "kea-dhcp6", "severity": "INFO", "output_options": log },
                { "name": "kea-dhcp6.leases", "severity": leases, "output_options": log },
            ],
        } })
    }

    /// Asks the one that runs on the machine for a statistic, such as `pkt6-received`.
    ///
    /// # Errors
    ///
    /// Where it does not answer, or has none of this name.
    pub fn statistic(machine: &Machine, name: &str) -> Result<u64> {
        let question = json!({ "command": "statistic-get", "arguments": { "name": name } });
        let ask = || -> Result<Value> {
            let mut socket = UnixStream::connect(machine.path(SOCKET))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.write_all(question.to_string().as_bytes())?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer)?;
            Ok(serde_json::from_str(&answer)?)
        };
        let answer = ask().with_context(|| format!("cannot ask Kea for {name}"))?;
        answer["arguments"][name][0][0]
            .as_u64()
            .with_context(|| format!("Kea does not tell {name}, but: {answer}"))
    }
}
