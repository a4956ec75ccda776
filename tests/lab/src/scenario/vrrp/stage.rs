//! The site with two servers, their virtual address, and clients.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::Signal;
use testbed::daemon::Daemon;

use crate::counter::Counter;
use crate::dhcp::{self, Message, MessageType};
use crate::machine::{Machine, Process};
use crate::network::Cable;
use crate::play::{Play, Seen};
use crate::site::{ACCESS, CORE, ETH0, SERVER, Site, UPLINKS, acquaint};
use crate::software::client::Client;
use crate::software::keepalived;
use crate::software::relay::Relay;
use crate::software::server::{Lifetimes, Server};
use crate::tally::{answers_to, copies};
use crate::tap::Tap;

/// Most time that a step may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The servers' own addresses.
const OWN: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0xb1),
    Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0xb2),
];

/// What makes the master go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Its keepalived is told to stop, and says so to the other.
    Told,
    /// Its cable is pulled: the other hears no more of it.
    CablePulled,
}

/// The site with two servers.
pub struct Stage {
    site: Site,
    pub relays: [Process; 2],
    server: Member,
    standby: Member,
}

/// One of the two servers.
struct Member {
    machine: Machine,
    cable: Cable,
    kea: Process,
    filter: Option<Daemon>,
    keepalived: Process,
    /// Its advertisements at a relay, which has no filter, and at the other server, behind one.
    advertisements: [Counter; 2],
    /// On its cable, where every copy is seen.
    on_wire: Tap,
    /// Behind its filter.
    at_stack: Tap,
}

/// What is known of a server in the end.
pub struct Account {
    pub name: &'static str,
    /// What the relays sent to it.
    pub relayed: Vec<Message>,
    /// What of that reached its stack.
    pub reached: Vec<Message>,
    pub answers: usize,
    /// Its filter's counters, by verdict and reason.
    pub counters: Option<BTreeMap<(String, String), u64>>,
    pub times_master: usize,
    /// How many of its advertisements the relay heard, and how many the other server; none if the
    /// other's cable was pulled.
    pub advertisements: Option<[u64; 2]>,
}

/// A client.
pub struct Seat {
    machine: Machine,
    tap: Tap,
    process: Process,
}

impl Stage {
    /// Starts everything but clients; the server is master.
    pub fn new(play: &Play<'_>, lifetimes: Lifetimes) -> Result<Self> {
        let site = Site::new(play)?;
        let machine = play.machine("standby")?;
        let mac = [2, 0, 0, 0, 0, 0xb8];
        let cable = site.switch.plug(CORE, "standby", &machine, ETH0, mac)?;
        cable.machine.address(OWN[1], 64)?;
        for uplink in UPLINKS {
            acquaint(&machine, uplink)?;
        }
        cable.machine.address(SERVER, 64)?;
        site.server_cable.machine.address(OWN[0], 64)?;

        let [a, _] = &site.relays;
        let heard = |from: &Machine, cable: &Cable, by: &Machine| {
            let advertisement = format!("ether saddr {} meta l4proto 112", cable.machine.mac);
            Counter::received(by, from.name, &advertisement)
        };
        let by_relay_and_other = |from: &Machine, cable: &Cable, other: &Machine| -> Result<_> {
            Ok([heard(from, cable, &a.machine)?, heard(from, cable, other)?])
        };
        let of_server = by_relay_and_other(&site.server, &site.server_cable, &machine)?;
        let of_standby = by_relay_and_other(&machine, &cable, &site.server)?;
        let start = |machine, cable, priority, advertisements| {
            Member::new(play, machine, cable, lifetimes, priority, advertisements)
        };
        let mut server = start(&site.server, &site.server_cable, 150, of_server)?;
        keepalived::until_master(&mut server.keepalived, &site.server, SERVER)?;
        let standby = start(&machine, &cable, 100, of_standby)?;
        let relays = Relay::ISC.start_pair(&site)?;
        Ok(Self {
            site,
            relays,
            server,
            standby,
        })
    }

    /// Starts a client, which is held when it is to send a message of this type.
    pub fn client(&self, play: &Play<'_>, held_at: MessageType) -> Result<Seat> {
        Seat::new(play, &self.site.client, &self.site.client_cable, held_at)
    }

    /// Starts three.
    pub fn three_clients(&self, play: &Play<'_>, held_at: MessageType) -> Result<Vec<Seat>> {
        let mut seats = vec![self.client(play, held_at)?];
        for (name, number) in [("client-2", 2), ("client-3", 3)] {
            let machine = play.machine(name)?;
            let mac = [0x02, 0x25, 0x90, 0xfc, 0xd3, number];
            let cable = self.site.switch.plug(ACCESS, name, &machine, ETH0, mac)?;
            seats.push(Seat::new(play, &machine, &cable, held_at)?);
        }
        Ok(seats)
    }

    /// Makes the server go, and waits until the standby has the address and the relays know. Hands
    /// back how long that took.
    pub fn take_over(&mut self, by: Departure) -> Result<Duration> {
        let start = Instant::now();
        match by {
            Departure::Told => self.server.keepalived.signal(Signal::SIGTERM)?,
            Departure::CablePulled => self.server.cable.pull()?,
        }
        let standby = &mut self.standby;
        keepalived::until_master(&mut standby.keepalived, &standby.machine, SERVER)?;
        let mac = standby.cable.machine.mac.to_string();
        for relay in &self.site.relays {
            let neighbour = format!("neigh show {SERVER}");
            loop {
                let shown = relay.machine.namespace.ip(&neighbour)?;
                if shown.contains(&mac) {
                    break;
                }
                if start.elapsed() > PATIENCE {
                    bail!("{} was not told of {mac}: {shown}", relay.machine.name);
                }
                thread::sleep(Duration::from_millis(2));
            }
        }
        Ok(start.elapsed())
    }

    /// Waits until the relays have sent so many frames to the standby: one may lag behind.
    pub fn until_standby_was_sent(&self, frames: usize) -> Result<()> {
        let what = format!("relay-forward {frames}");
        self.standby.on_wire.until(&what, PATIENCE, |messages| {
            let relayed = messages.iter().filter(|message| message.is_relay_forward());
            relayed.count() >= frames
        })
    }

    /// Ends the captures, and tells of the server, which went so, and of the standby.
    pub fn accounts(self, by: Departure, seen: &mut Seen) -> Result<[Account; 2]> {
        let server_hears = by == Departure::Told;
        let accounts = [
            self.server.account(true, seen)?,
            self.standby.account(server_hears, seen)?,
        ];
        seen.hold((self.site, self.relays));
        Ok(accounts)
    }
}

impl Member {
    /// Starts what runs on a server, on a machine that has the virtual address.
    fn new(
        play: &Play<'_>,
        machine: &Machine,
        cable: &Cable,
        lifetimes: Lifetimes,
        priority: u8,
        advertisements: [Counter; 2],
    ) -> Result<Self> {
        let name = machine.name;
        Ok(Self {
            filter: play.filter(machine, &["-i", ETH0])?,
            // Kea starts only where the address is (ip_nonlocal_bind or not), and stays on it. The
            // first thing that keepalived does is to take it away.
            kea: Server::Kea.start(machine, lifetimes)?,
            keepalived: keepalived::start(machine, SERVER, priority)?,
            advertisements,
            on_wire: play.tap(&format!("{name}-wire"), &cable.port)?,
            at_stack: play.tap(name, &cable.machine)?,
            machine: machine.clone(),
            cable: cable.clone(),
        })
    }

    fn account(self, other_hears: bool, seen: &mut Seen) -> Result<Account> {
        let [at_relay, at_other] = &self.advertisements;
        let advertisements = match other_hears {
            true => Some(at_relay.packets_here_and_there(at_other)?),
            false => None,
        };
        let (answers, reached): (Vec<_>, Vec<_>) = self
            .at_stack
            .finish()?
            .into_iter()
            .partition(|message| message.outgoing);
        let mut relayed = self.on_wire.finish()?;
        relayed.retain(Message::is_relay_forward);
        let account = Account {
            name: self.machine.name,
            relayed,
            reached,
            answers: answers.len(),
            counters: match &self.filter {
                Some(filter) => Some(filter.metrics()?.packets(ETH0)),
                None => None,
            },
            times_master: keepalived::times_master(&self.keepalived),
            advertisements,
        };
        seen.hold((self.kea, self.filter, self.keepalived));
        Ok(account)
    }
}

impl Account {
    /// What kinds of messages the relays sent to it, each once for its copies.
    pub fn kinds(&self) -> Vec<MessageType> {
        let copies = copies(&self.relayed);
        copies.values().map(|copies| copies[0].kind).collect()
    }

    /// How many frames did not reach its stack.
    pub fn dropped(&self) -> usize {
        self.relayed.len() - self.reached.len()
    }
}

impl Seat {
    /// Starts a client, which can send no messages of one type until it is [let
    /// go](Self::let_go).
    fn new(
        play: &Play<'_>,
        machine: &Machine,
        cable: &Cable,
        held_at: MessageType,
    ) -> Result<Self> {
        let kind = u8::from(held_at);
        // The type is the first byte behind the UDP header.
        machine.nft(&format!(
            "table inet hold {{
                chain output {{
                    type filter hook output priority 0
                    udp dport 547 @th,64,8 {kind} drop
                }}
            }}"
        ))?;
        Ok(Self {
            tap: play.tap(machine.name, &cable.machine)?,
            process: Client::Dhclient.start(machine)?,
            machine: machine.clone(),
        })
    }

    /// Waits until each of its messages of this type is answered so many times.
    pub fn until_answered(&mut self, kind: MessageType, times: usize) -> Result<()> {
        let what = format!("{times} answers to a {}", dhcp::name(kind));
        self.process.until(&what, PATIENCE, |_| {
            let messages = self.tap.messages();
            let sent = sent(&messages, kind);
            sent > 0 && answers_to(&messages, kind).count() >= sent * times
        })
    }

    /// Lets it send everything.
    pub fn let_go(&self) -> Result<()> {
        let hold = ["delete", "table", "inet", "hold"];
        self.machine.run("nft", hold).map(drop)
    }

    /// Ends it and its capture, and hands over what was captured.
    pub fn finish(self) -> Result<Vec<Message>> {
        self.tap.finish()
    }
}

/// How often a client has sent its message of this type.
pub fn sent(messages: &[Message], kind: MessageType) -> usize {
    let sent = messages.iter().filter(|message| message.outgoing);
    sent.filter(|message| message.kind == kind).count()
}
