//! The site that the fault was reported from: a client on an access segment, two relays on it, and
//! a DHCPv6 server behind them.
//!
//! ```text
//! client ---- access ---- relay-a ---- core ---- server
//!                 \------ relay-b ------/
//! ```

use std::net::{Ipv6Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::machine::Machine;
use crate::network::{Cable, Switch};
use crate::play::Play;

/// The server's address.
pub const SERVER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0xb007);
/// The relays' addresses on the client's link.
pub const RELAYS: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xfffe),
    Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xffff),
];
/// The relays' addresses towards the server.
pub const UPLINKS: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0xa),
    Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0xb),
];
/// The segment of clients and relays.
pub const ACCESS: &str = "access";
/// The segment of relays and servers.
pub const CORE: &str = "core";
/// The client's interface, and the server's.
pub const ETH0: &str = "eth0";
/// A relay's interface towards clients.
pub const DOWN: &str = "downlink";
/// A relay's interface towards the server.
pub const UP: &str = "uplink";

/// Length of every prefix here.
const PREFIX: u8 = 64;

/// Most time that a neighbour may take to be found.
const PATIENCE: Duration = Duration::from_secs(5);

/// The site: machines and cables; the programs on them are started by the scenario.
#[derive(Debug)]
pub struct Site {
    /// Joins everything.
    pub switch: Switch,
    /// The client.
    pub client: Machine,
    /// Its cable to the access segment.
    pub client_cable: Cable,
    /// Relay A and relay B.
    pub relays: [RelayMachine; 2],
    /// The server.
    pub server: Machine,
    /// Its cable to the core segment.
    pub server_cable: Cable,
}

/// A machine that is to relay.
#[derive(Clone, Debug)]
pub struct RelayMachine {
    /// The machine.
    pub machine: Machine,
    /// Its cable to the access segment.
    pub down: Cable,
    /// Its cable to the core segment.
    pub up: Cable,
}

impl Site {
    /// Builds it. Relays and server know one another's MAC addresses, so that the first message is
    /// like the later ones.
    ///
    /// # Errors
    ///
    /// Without root.
    pub fn new(play: &Play<'_>) -> Result<Self> {
        let switch = Switch::new()?;
        switch.segment(ACCESS)?;
        switch.segment(CORE)?;

        let client = play.machine("client")?;
        // The MAC of the machine that was reported.
        let mac = [0x02, 0x25, 0x90, 0xfc, 0xd3, 0x8c];
        let client_cable = switch.plug(ACCESS, "client", &client, ETH0, mac)?;

        let server = play.machine("server")?;
        let server_cable = switch.plug(CORE, "server", &server, ETH0, [2, 0, 0, 0, 0, 0xb7])?;
        server_cable.machine.address(SERVER, PREFIX)?;

        let relays = [
            RelayMachine::new(play, &switch, Which::A)?,
            RelayMachine::new(play, &switch, Which::B)?,
        ];
        // Some relays send from their address on the client's link.
        let [a, b] = UPLINKS;
        server
            .namespace
            .ip(&format!("route add 2001:db8:1::/64 via {a}"))?;
        server
            .namespace
            .ip(&format!("route add {}/128 via {b}", RELAYS[1]))?;
        for (relay, uplink) in relays.iter().zip(UPLINKS) {
            acquaint(&relay.machine, SERVER)?;
            acquaint(&server, uplink)?;
        }
        Ok(Self {
            switch,
            client,
            client_cable,
            relays,
            server,
            server_cable,
        })
    }
}

/// One of the two relays.
#[derive(Clone, Copy, Debug)]
enum Which {
    A,
    B,
}

impl RelayMachine {
    fn new(play: &Play<'_>, switch: &Switch, which: Which) -> Result<Self> {
        let (name, down, up, number) = match which {
            Which::A => ("relay-a", "relay-a-down", "relay-a-up", 0),
            Which::B => ("relay-b", "relay-b-down", "relay-b-up", 1),
        };
        let machine = play.machine(name)?;
        let mac = |side| [2, 0, 0, 0, 0xa + number, side];
        let down = switch.plug(ACCESS, down, &machine, DOWN, mac(1))?;
        let up = switch.plug(CORE, up, &machine, UP, mac(2))?;
        let number = usize::from(number);
        down.machine.address(RELAYS[number], PREFIX)?;
        up.machine.address(UPLINKS[number], PREFIX)?;
        Ok(Self { machine, down, up })
    }
}

/// Makes `machine` find out the MAC address of a neighbour, as any first packet would.
///
/// # Errors
///
/// Where the neighbour does not answer in five seconds.
pub fn acquaint(machine: &Machine, neighbour: Ipv6Addr) -> Result<()> {
    const DISCARD: u16 = 9;
    let start = Instant::now();
    loop {
        machine
            .namespace
            .inside(|| UdpSocket::bind("[::]:0")?.send_to(&[0], (neighbour, DISCARD)))?
            .with_context(|| format!("{} cannot send to {neighbour}", machine.name))?;
        let shown = machine.namespace.ip(&format!("neigh show {neighbour}"))?;
        if shown.contains("lladdr") {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!("{} finds no neighbour {neighbour}", machine.name);
        }
        thread::sleep(Duration::from_millis(2));
    }
}
