//! The site at work, and a neighbour on the server's segment for traffic of another kind.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use testbed::daemon::Daemon;

use crate::counter::Counter;
use crate::dhcp::{Message, MessageType};
use crate::machine::{Machine, Process};
use crate::network::Cable;
use crate::play::{Play, Seen};
use crate::site::{CORE, ETH0, SERVER, Site, acquaint};
use crate::software::client::Client;
use crate::software::relay;
use crate::software::server::{Lifetimes, Server};
use crate::tally::{ClientSide, answers_to, copies};
use crate::tap::Tap;
use crate::traffic::Echo;

/// The server's address on its segment in IPv4.
pub const SERVER_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

pub const NEIGHBOUR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0x99);
pub const NEIGHBOUR_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);

/// Most time that a step may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The site, with a neighbour.
pub struct Stage {
    pub site: Site,
    pub neighbour: Machine,
    pub neighbour_cable: Cable,
}

/// The programs of the site, and a client that asks for a lease.
pub struct AtWork {
    kea: Process,
    relays: [Process; 2],
    filter: Option<Daemon>,
    client: Process,
    at_client: Tap,
    /// What each relay sends.
    relayed: [Tap; 2],
    /// What reaches the stack of each server, with its address.
    reached: Vec<(Ipv6Addr, Counter)>,
}

impl Stage {
    pub fn new(play: &Play<'_>) -> Result<Self> {
        let site = Site::new(play)?;
        let neighbour = play.machine("neighbour")?;
        let mac = [2, 0, 0, 0, 0, 0x99];
        let neighbour_cable = site.switch.plug(CORE, "neighbour", &neighbour, ETH0, mac)?;
        neighbour_cable.machine.address(NEIGHBOUR, 64)?;
        neighbour_cable.machine.address(NEIGHBOUR_V4, 24)?;
        site.server_cable.machine.address(SERVER_V4, 24)?;
        acquaint(&neighbour, SERVER)?;
        Ok(Self {
            site,
            neighbour,
            neighbour_cable,
        })
    }

    /// Lets frames of this many bytes pass between the neighbour and the server.
    pub fn mtu(&self, bytes: u32) -> Result<()> {
        for cable in [&self.neighbour_cable, &self.site.server_cable] {
            cable.port.mtu(bytes)?;
            cable.machine.mtu(bytes)?;
        }
        Ok(())
    }

    /// Has the server send back what the neighbour sends to this address of its own.
    pub fn echo(&self, address: SocketAddr) -> Result<Echo> {
        Echo::new(&self.neighbour, &self.site.server, address)
    }

    /// Starts the site's programs, and a client.
    pub fn start(&self, play: &Play<'_>) -> Result<AtWork> {
        self.start_with(play, &[(SERVER, &self.site.server)])
    }

    /// As [`start`](Self::start), where the relays send to all of these servers, of which one is the
    /// site's.
    pub fn start_with(&self, play: &Play<'_>, servers: &[(Ipv6Addr, &Machine)]) -> Result<AtWork> {
        let Site { relays, .. } = &self.site;
        let reached = servers
            .iter()
            .map(|&(address, machine)| {
                let what = format!("ip6 daddr {address} udp dport 547");
                Ok((address, Counter::received(machine, "dhcpv6", &what)?))
            })
            .collect::<Result<_>>()?;
        let addresses: Vec<_> = servers.iter().map(|(address, _)| *address).collect();
        Ok(AtWork {
            kea: Server::Kea.start(&self.site.server, Lifetimes::LONG)?,
            filter: play.filter(&self.site.server, &["-i", ETH0])?,
            relays: [
                relay::start_with_servers(&relays[0].machine, &addresses)?,
                relay::start_with_servers(&relays[1].machine, &addresses)?,
            ],
            at_client: play.tap("client", &self.site.client_cable.machine)?,
            relayed: [
                play.tap("relay-a", &relays[0].up.machine)?,
                play.tap("relay-b", &relays[1].up.machine)?,
            ],
            reached,
            client: Client::Dhclient.start(&self.site.client)?,
        })
    }
}

impl AtWork {
    /// Has a round of traffic take place, and further ones until the client has its lease.
    pub fn beside_it(&self, mut round: impl FnMut() -> Result<()>) -> Result<()> {
        let start = Instant::now();
        loop {
            round()?;
            let leased = self.has_lease(&self.at_client.messages());
            if leased || start.elapsed() > PATIENCE {
                return Ok(());
            }
        }
    }

    /// Copies of each message that a server is to get.
    fn copies(&self) -> usize {
        if self.filter.is_some() { 1 } else { 2 }
    }

    fn has_lease(&self, messages: &[Message]) -> bool {
        answers_to(messages, MessageType::Request).count() >= self.copies()
    }

    /// Waits until the client has its lease. Tells what became of its messages, and demands that
    /// each of the servers got each of them twice, or with the filter once, and that the filter
    /// counted nothing else. Hands back how many frames each server got.
    pub fn finish(self, seen: &mut Seen) -> Result<Vec<usize>> {
        let copies_wanted = self.copies();
        self.at_client
            .until("lease", PATIENCE, |messages| self.has_lease(messages))?;
        for relay in &self.relayed {
            for (server, _) in &self.reached {
                relay.until("relayed Request", PATIENCE, |messages| {
                    messages.iter().any(|message| {
                        message.kind == MessageType::Request && message.destination == *server
                    })
                })?;
            }
        }
        let messages = self.at_client.finish()?;
        let client = ClientSide::of(&messages);
        seen.say(format!(
            "client: {} messages, {} answers",
            client.sent, client.answers
        ));
        seen.figure("messages_sent_by_client", client.sent);
        seen.figure("answers_to_client", client.answers);
        seen.must(
            answers_to(&messages, MessageType::Request)
                .all(|reply| reply.complaints.is_empty() && !reply.addresses.is_empty()),
            "the client got no lease",
        );
        // Every server answers a Solicit, and one of them the Request.
        seen.must(
            client.most_answers == copies_wanted * self.reached.len()
                && client.fewest_answers == copies_wanted,
            format!("not {copies_wanted} of a server to each message of the client"),
        );

        let [a, b] = self.relayed;
        let mut relayed = [a.finish()?, b.finish()?].concat();
        relayed.retain(Message::is_relay_forward);
        seen.excuse_if_busy(&relayed);
        let mut all_reached = Vec::new();
        for (server, counter) in &self.reached {
            let mut to_it = relayed.clone();
            to_it.retain(|message| message.destination == *server);
            let copies = copies(&to_it);
            let reached = usize::try_from(counter.packets()?)?;
            seen.must(
                copies.values().all(|copies| copies.len() == 2),
                format!("the relays did not both send each message to {server}"),
            );
            seen.must(
                reached == copies.len() * copies_wanted,
                format!(
                    "{reached} copies of {} messages reached {server}",
                    copies.len()
                ),
            );
            all_reached.push(reached);
        }
        if let Some(filter) = &self.filter {
            let counters = filter.metrics()?.packets(ETH0);
            let duplicates = counters.get(&("drop".to_owned(), "duplicate".to_owned()));
            let dropped = duplicates.copied().unwrap_or(0);
            let counted: u64 = counters.values().sum();
            seen.say(format!(
                "{dropped} copies dropped, of {counted} frames counted"
            ));
            seen.figure("duplicates_dropped", dropped);
            seen.figure("frames_counted", counted);
            seen.must(
                counted == relayed.len() as u64 && dropped * 2 == counted,
                format!(
                    "{} relay-forwards were sent, and the filter counted {counters:?}",
                    relayed.len()
                ),
            );
        }
        seen.hold((self.kea, self.relays, self.filter, self.client));
        Ok(all_reached)
    }
}
