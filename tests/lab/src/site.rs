//! The site that the fault was reported from: a client on an access segment, two relays on it, and
//! a DHCPv6 server behind them.
//!
//! ```text
//! client ---- access ---- relay-a ---- core ---- server
//!                 \------ relay-b ------/
//! ```
//!
//! A [`Layout`] tells what is different, such as relays behind the pair, of which this is the first:
//!
//! ```text
//! client ---- access ---- relay-a ---- aggregation ---- relay-c ---- core ---- server
//!                 \------ relay-b ------/
//! ```

use std::net::{Ipv6Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::line::Line;
use crate::machine::Machine;
use crate::network::{Cable, Switch};
use crate::play::Play;
use crate::trunk::Trunk;

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
/// The server's second NIC, where it has one.
pub const ETH1: &str = "eth1";
/// The server's NIC where it is on a trunk: its `eth0` is then the VLAN interface.
pub const TRUNK: &str = "trunk";
/// The VLAN of the relays and the server, on a trunk.
pub const VLAN: u16 = 10;
/// The MAC address of the machine that was reported.
pub const CLIENT_MAC: [u8; 6] = [0x02, 0x25, 0x90, 0xfc, 0xd3, 0x8c];
/// A relay's interface towards clients.
pub const DOWN: &str = "downlink";
/// A relay's interface towards the server.
pub const UP: &str = "uplink";

/// The address of the server's second NIC.
const SECOND_NIC: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xe, 0, 0, 0, 0, 0xb007);

/// Length of every prefix here.
const PREFIX: u8 = 64;

/// The server's MAC address.
const SERVER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xb7];

/// A segment into which relays send towards the server, and the third group of its prefix.
#[derive(Clone, Copy, Debug)]
struct Upper {
    name: &'static str,
    prefix: u16,
}

impl Upper {
    const AGGREGATION: Self = Self::new("aggregation", 0xc);
    const DISTRIBUTION: Self = Self::new("distribution", 0xd);
    const CORE: Self = Self::new(CORE, 0xb);
    const SECOND_CORE: Self = Self::new("second-core", 0xe);

    /// Those on the way from the pair to the server, by how many further relays there are.
    const WAYS: [&[Self]; 3] = [
        &[Self::CORE],
        &[Self::AGGREGATION, Self::CORE],
        &[Self::AGGREGATION, Self::DISTRIBUTION, Self::CORE],
    ];

    const fn new(name: &'static str, prefix: u16) -> Self {
        Self { name, prefix }
    }

    /// The address of a relay there.
    fn address(self, relay: &Which) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, self.prefix, 0, 0, 0, 0, relay.number.into())
    }
}

/// Most time that a neighbour may take to be found.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a site differs from the one that was reported.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    /// How many more relays there are between the pair and the server, one behind the other: two
    /// at most.
    pub further_relays: usize,
    /// Whether the server's NIC is on a trunk, where frames are tagged.
    pub trunk: bool,
    /// Whether relay B reaches the server by another NIC than relay A, and how much longer that way
    /// is.
    pub second_nic: Option<Duration>,
    /// Whether the pair leaves its checksums to NICs, which here means that they stay partial.
    pub checksum_offload: bool,
}

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
    /// Those behind them, in the order in which messages go through them.
    pub further_relays: Vec<RelayMachine>,
    /// The server.
    pub server: Machine,
    /// Its cable to the core segment.
    pub server_cable: Cable,
    /// The cable of its second NIC, if it has one.
    pub second_cable: Option<Cable>,
    /// What makes the server's cable a trunk.
    _trunk: Option<Trunk>,
    /// What makes relay B's way longer.
    _line: Option<Line>,
}

/// A machine that is to relay.
#[derive(Clone, Debug)]
pub struct RelayMachine {
    /// The machine.
    pub machine: Machine,
    /// Its cable to the segment of its clients, or of the relays before it.
    pub down: Cable,
    /// Its cable towards the server.
    pub up: Cable,
    /// Its address on the segment below.
    pub link: Ipv6Addr,
    /// Its address on the segment above.
    pub uplink: Ipv6Addr,
    /// Whom it forwards to: the server or the next relay.
    pub next: Ipv6Addr,
}

impl Site {
    /// Builds it. Relays and server know one another's MAC addresses, so that the first message is
    /// like the later ones.
    ///
    /// # Errors
    ///
    /// Without root.
    pub fn new(play: &Play<'_>) -> Result<Self> {
        Self::laid_out(play, Layout::default())
    }

    /// Builds one that is laid out so.
    ///
    /// # Errors
    ///
    /// Without root.
    pub fn laid_out(play: &Play<'_>, layout: Layout) -> Result<Self> {
        let switch = Switch::new()?;
        switch.segment(ACCESS)?;
        let way = Upper::WAYS
            .get(layout.further_relays)
            .context("no site has so many relays in a row")?;
        for segment in *way {
            switch.segment(segment.name)?;
        }

        let client = play.machine("client")?;
        let client_cable = switch.plug(ACCESS, "client", &client, ETH0, CLIENT_MAC)?;

        let server = play.machine("server")?;
        let (server_cable, trunk) = if layout.trunk {
            let (cable, trunk) = Trunk::lay(&switch, CORE, "server", &server, TRUNK, SERVER_MAC)?;
            trunk.vlan_interface.address(SERVER, PREFIX)?;
            (cable, Some(trunk))
        } else {
            let cable = switch.plug(CORE, "server", &server, ETH0, SERVER_MAC)?;
            cable.machine.address(SERVER, PREFIX)?;
            (cable, None)
        };

        // Whom relays of this level forward to; the pair's is 0.
        let next = |level: usize| {
            if level < layout.further_relays {
                way[level].address(&Which::FURTHER[level])
            } else {
                SERVER
            }
        };
        let [a, b] = RELAYS.map(|link| (ACCESS, link));
        let way_of_b = match layout.second_nic {
            Some(_) => Upper::SECOND_CORE,
            None => way[0],
        };
        let second_cable = match layout.second_nic {
            Some(_) => Some(second_nic(&switch, &server)?),
            None => None,
        };
        let relays = [
            RelayMachine::new(play, &switch, &Which::A, a, way[0], next(0))?,
            RelayMachine::new(play, &switch, &Which::B, b, way_of_b, next(0))?,
        ];
        let line = match layout.second_nic {
            Some(delay) => Some(switch.lengthen(&relays[1].up, way_of_b.name, delay)?),
            None => None,
        };
        let mut further_relays = Vec::new();
        for (level, (which, above)) in Which::FURTHER.iter().zip(&way[1..]).enumerate() {
            let below = (way[level].name, way[level].address(which));
            let relay = RelayMachine::new(play, &switch, which, below, *above, next(level + 1))?;
            further_relays.push(relay);
        }

        let behind = |relay: &RelayMachine| {
            let mut further = further_relays.iter();
            let next = further.find(|further| further.link == relay.next);
            next.map_or(&server, |next| &next.machine)
        };
        // Some relays send from their address on the client's link.
        let [a, b] = &relays;
        let back = &behind(a).namespace;
        back.ip(&format!("route add 2001:db8:1::/64 via {}", a.uplink))?;
        back.ip(&format!("route add {}/128 via {}", b.link, b.uplink))?;
        if second_cable.is_some() {
            let gateway = format!("route add {SERVER}/128 via {SECOND_NIC}");
            b.machine.namespace.ip(&gateway)?;
            acquaint(&b.machine, SECOND_NIC)?;
            acquaint(&server, b.uplink)?;
        }
        let on_its_link = relays
            .iter()
            .filter(|relay| second_cable.is_none() || relay.link != RELAYS[1]);
        for relay in on_its_link.chain(&further_relays) {
            acquaint(&relay.machine, relay.next)?;
            acquaint(behind(relay), relay.uplink)?;
        }
        for relay in relays.iter().filter(|_| layout.checksum_offload) {
            relay.up.machine.checksum_offload(true)?;
        }
        Ok(Self {
            switch,
            client,
            client_cable,
            relays,
            further_relays,
            server,
            server_cable,
            second_cable,
            _trunk: trunk,
            _line: line,
        })
    }
}

/// A second NIC of the server, `eth1`, in a segment of its own.
fn second_nic(switch: &Switch, server: &Machine) -> Result<Cable> {
    let segment = Upper::SECOND_CORE.name;
    switch.segment(segment)?;
    let [a, b, c, d, e, f] = SERVER_MAC;
    let cable = switch.plug(
        segment,
        "server-second",
        server,
        ETH1,
        [a, b, c, d, e ^ 1, f],
    )?;
    cable.machine.address(SECOND_NIC, PREFIX)?;
    Ok(cable)
}

/// One of the relays.
#[derive(Debug)]
struct Which {
    name: &'static str,
    down_port: &'static str,
    up_port: &'static str,
    number: u8,
}

impl Which {
    const A: Self = Self::new("relay-a", "relay-a-down", "relay-a-up", 0xa);
    const B: Self = Self::new("relay-b", "relay-b-down", "relay-b-up", 0xb);
    const FURTHER: [Self; 2] = [
        Self::new("relay-c", "relay-c-down", "relay-c-up", 0xc),
        Self::new("relay-d", "relay-d-down", "relay-d-up", 0xd),
    ];

    const fn new(
        name: &'static str,
        down_port: &'static str,
        up_port: &'static str,
        number: u8,
    ) -> Self {
        Self {
            name,
            down_port,
            up_port,
            number,
        }
    }
}

impl RelayMachine {
    fn new(
        play: &Play<'_>,
        switch: &Switch,
        which: &Which,
        (below, link): (&'static str, Ipv6Addr),
        above: Upper,
        next: Ipv6Addr,
    ) -> Result<Self> {
        let machine = play.machine(which.name)?;
        let mac = |side| [2, 0, 0, 0, which.number, side];
        let down = switch.plug(below, which.down_port, &machine, DOWN, mac(1))?;
        let up = switch.plug(above.name, which.up_port, &machine, UP, mac(2))?;
        let uplink = above.address(which);
        down.machine.address(link, PREFIX)?;
        up.machine.address(uplink, PREFIX)?;
        Ok(Self {
            machine,
            down,
            up,
            link,
            uplink,
            next,
        })
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
