//! DHCPv6 servers.

use std::net::Ipv6Addr;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use testbed::veth::Mac;

use super::kea::Kea;
use super::{PATIENCE, dnsmasq, until_it_serves};
use crate::dhcp::MessageType;
use crate::machine::{Machine, Process};
use crate::site::{CLIENT_MAC, ETH0, SERVER};

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

/// A server program. All of these serve relayed clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// kea-dhcp6-server.
    Kea,
    /// dnsmasq-base: it grants nothing for under two minutes.
    Dnsmasq,
    /// isc-dhcp-server.
    Dhcpd,
    /// coredhcp-server: it knows the site's client by its MAC address, and grants everything for an
    /// hour.
    Coredhcp,
    /// dibbler-server.
    Dibbler,
    /// wide-dhcpv6-server: it answers relays from whatever port the kernel gave it.
    Wide,
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
            Self::Dnsmasq => dnsmasq::dhcpv6_server(machine, FIRST, LAST, lifetimes),
            Self::Dhcpd => dhcpd(machine, lifetimes),
            Self::Coredhcp => coredhcp(machine),
            Self::Dibbler => dibbler(machine, lifetimes),
            Self::Wide => wide(machine, lifetimes),
        }?;
        until_it_serves(&mut process, machine)?;
        Ok(process)
    }

    /// When a client of it renews, if these lifetimes are asked for.
    pub fn renewal(self, lifetimes: Lifetimes) -> Duration {
        const TWO_MINUTES: Duration = Duration::from_secs(120);
        const HOUR: Duration = Duration::from_secs(3600);
        match self {
            Self::Kea | Self::Dhcpd | Self::Dibbler | Self::Wide => lifetimes.renew,
            // At the latest: chance takes up to an eighth off.
            Self::Dnsmasq => lifetimes.valid.max(TWO_MINUTES) / 2,
            Self::Coredhcp => HOUR / 2,
        }
    }

    /// Whether it leaves the second copy of a message of this type without an answer.
    pub fn ignores_second(self, kind: MessageType) -> bool {
        // After the first one it no longer knows the client.
        self == Self::Dibbler && kind == MessageType::Release
    }
}

/// The addresses that are granted.
const FIRST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 1, 0, 0, 1);
const LAST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 1, 0, 0, 0xffff);

/// The server that clients are told to ask for names.
pub(super) const NAMES: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0x53);

fn dhcpd(machine: &Machine, lifetimes: Lifetimes) -> Result<Process> {
    const CONFIGURATION: &str = "/etc/dhcp/dhcpd6.conf";
    const LEASES: &str = "/var/lib/dhcp/dhcpd6.leases";
    let configuration = format!(
        "option dhcp-renewal-time {renew};
option dhcp-rebinding-time {rebind};
preferred-lifetime {preferred};
default-lease-time {valid};
option dhcp6.name-servers {NAMES};
# dhcpd wants to know the link that it is on.
subnet6 2001:db8:b::/64 {{ }}
subnet6 2001:db8:1::/64 {{ range6 {FIRST} {LAST}; }}
",
        renew = lifetimes.renew.as_secs(),
        rebind = lifetimes.rebind.as_secs(),
        preferred = lifetimes.preferred.as_secs(),
        valid = lifetimes.valid.as_secs(),
    );
    machine.write(CONFIGURATION, configuration)?;
    machine.write(LEASES, "")?;
    let mut dhcpd = machine.start(
        "dhcpd",
        [
            "-6",
            "-d",
            "--no-pid",
            "-cf",
            CONFIGURATION,
            "-lf",
            LEASES,
            ETH0,
        ],
    )?;
    dhcpd.until_it_says("Server starting service", PATIENCE)?;
    Ok(dhcpd)
}

fn coredhcp(machine: &Machine) -> Result<Process> {
    const CONFIGURATION: &str = "/etc/coredhcp/lab.yml";
    const TABLE: &str = "/etc/coredhcp/lab.leases";
    let configuration = json!({ "server6": {
        "listen": [ format!("[{SERVER}]:547") ],
        "plugins": [
            { "server_id": "LL 02:00:00:00:00:b7" },
            { "file": TABLE },
            { "dns": NAMES },
        ],
    } });
    // YAML is a superset of JSON.
    machine.write(CONFIGURATION, configuration.to_string())?;
    machine.write(TABLE, format!("{} {FIRST}\n", Mac(CLIENT_MAC)))?;
    machine.start("coredhcp", ["--conf", CONFIGURATION])
}

fn dibbler(machine: &Machine, lifetimes: Lifetimes) -> Result<Process> {
    // With `unicast` in the relays' part it would tell clients to write to it directly.
    let configuration = format!(
        "log-level 8
log-mode short
iface {ETH0} {{
    unicast {SERVER}
    class {{
        pool 2001:db8:b:0:1::/80
    }}
}}
iface relays {{
    relay {ETH0}
    subnet 2001:db8:1::/64
    T1 {renew}
    T2 {rebind}
    prefered-lifetime {preferred}
    valid-lifetime {valid}
    class {{
        pool {FIRST}-{LAST}
    }}
    option dns-server {NAMES}
}}
",
        renew = lifetimes.renew.as_secs(),
        rebind = lifetimes.rebind.as_secs(),
        preferred = lifetimes.preferred.as_secs(),
        valid = lifetimes.valid.as_secs(),
    );
    machine.write("/etc/dibbler/server.conf", configuration)?;
    let mut dibbler = machine.start("dibbler-server", ["run"])?;
    dibbler.until_it_says("Accepting connections", PATIENCE)?;
    Ok(dibbler)
}

fn wide(machine: &Machine, lifetimes: Lifetimes) -> Result<Process> {
    const CONFIGURATION: &str = "/etc/wide-dhcpv6/lab.conf";
    let configuration = format!(
        "option domain-name-servers {NAMES};
interface {ETH0} {{
    address-pool lab {preferred} {valid};
}};
pool lab {{
    range {FIRST} to {LAST};
}};
",
        // Clients are to renew at half of it.
        preferred = lifetimes.renew.as_secs() * 2,
        valid = lifetimes.valid.as_secs(),
    );
    machine.write(CONFIGURATION, configuration)?;
    let pid_file = "/run/dhcp6s.pid";
    machine.start(
        "dhcp6s",
        ["-f", "-D", "-c", CONFIGURATION, "-P", pid_file, ETH0],
    )
}
