//! One client's whole exchange at the site, from Solicit over Renew to Release, with the programs
//! that a scenario chooses.

use std::any::Any;
use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use crate::dhcp::{self, Message, MessageType};
use crate::play::{Play, Seen};
use crate::site::{ETH0, RELAYS, SERVER, Site};
use crate::software::client::Client;
use crate::software::relay::Relay;
use crate::software::server::{Lifetimes, Server};
use crate::tally::{ClientSide, answers_to, copies};

/// Short enough to see the client renew.
const LIFETIMES: Lifetimes = Lifetimes {
    renew: Duration::from_secs(2),
    rebind: Duration::from_secs(8),
    preferred: Duration::from_secs(12),
    valid: Duration::from_secs(16),
};

/// Most time that a step may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who takes part.
#[derive(Clone, Copy, Debug)]
pub struct Cast {
    pub client: Client,
    pub relays: [Relay; 2],
    pub server: Server,
}

/// What was captured of it.
pub struct Exchange {
    /// By the client itself.
    pub client: ClientSide,
    /// What the relays sent to the server.
    pub relayed: Vec<Message>,
    /// What of it reached the server's stack.
    pub reached: Vec<Message>,
    /// The filter's counters, by verdict and reason.
    pub counters: Option<BTreeMap<(String, String), u64>>,
    stage: Box<dyn Any + Send>,
}

/// Plays it.
pub fn play(play: &Play<'_>, cast: Cast) -> Result<Exchange> {
    let site = Site::new(play)?;
    let server = cast.server.start(&site.server, LIFETIMES)?;
    let [a, b] = &site.relays;
    let relays = [
        cast.relays[0].start(&a.machine, RELAYS[0], SERVER)?,
        cast.relays[1].start(&b.machine, RELAYS[1], SERVER)?,
    ];
    let filter = play.filter(&site.server, &["-i", ETH0])?;
    let at_client = play.tap("client", &site.client_cable.machine)?;
    let on_wire = play.tap("wire", &site.server_cable.port)?;
    let at_server = play.tap("server", &site.server_cable.machine)?;

    let client = cast.client.start(&site.client)?;
    let until_answered = |kind| {
        let what = format!("answer to a {}", dhcp::name(kind));
        at_client.until(&what, PATIENCE, |messages| {
            answers_to(messages, kind).next().is_some()
        })
    };
    until_answered(MessageType::Renew)?;
    cast.client.release(&site.client, client)?;
    until_answered(MessageType::Release)?;

    let client = ClientSide::of(&at_client.finish()?);
    let relayed = relay_forwards(on_wire.finish()?);
    let reached = relay_forwards(at_server.finish()?);
    let counters = match &filter {
        Some(filter) => Some(filter.metrics()?.packets(ETH0)),
        None => None,
    };
    Ok(Exchange {
        client,
        relayed,
        reached,
        counters,
        stage: Box::new((site, server, relays, filter)),
    })
}

fn relay_forwards(messages: Vec<Message>) -> Vec<Message> {
    messages
        .into_iter()
        .filter(Message::is_relay_forward)
        .collect()
}

impl Exchange {
    /// Tells it, and demands what must hold of every client, relay and server.
    pub fn seen(self) -> Seen {
        let mut seen = Seen::default();
        let ClientSide { sent, answers, .. } = self.client;
        let copies = |messages| copies(messages).values().map(Vec::len).max().unwrap_or(0);
        seen.say(format!("{sent} messages, {answers} answers"));
        if self.client.addresses_offered > 1 {
            seen.say(format!(
                "{} addresses offered for one Solicit",
                self.client.addresses_offered
            ));
        }
        if !self.client.complaints.is_empty() {
            seen.say(format!(
                "server complains: {}",
                self.client.complaints.join(", ")
            ));
        }
        seen.figure("messages_sent_by_client", sent);
        seen.figure("answers_to_client", answers);
        seen.figure(
            "addresses_offered_for_one_solicit",
            self.client.addresses_offered,
        );
        seen.figure("complaints_of_server", self.client.complaints.clone());
        seen.figure("frames_relayed", self.relayed.len());
        seen.figure("frames_at_server", self.reached.len());

        seen.must(sent >= 3, format!("the client sent but {sent} messages"));
        seen.must(
            copies(&self.relayed) == 2,
            "the relays did not both send a copy of each message",
        );
        let Some(counters) = &self.counters else {
            seen.must(
                self.client.fewest_answers == 2 && self.client.most_answers == 2,
                "the fault did not show: not two answers to each message",
            );
            seen.hold(self.stage);
            return seen;
        };
        let count = |verdict: &str, reason: &str| {
            let key = (verdict.to_owned(), reason.to_owned());
            counters.get(&key).copied().unwrap_or(0)
        };
        let dropped = count("drop", "duplicate");
        seen.say(format!("{dropped} copies dropped"));
        seen.figure("duplicates_dropped", dropped);
        seen.must(
            self.client.fewest_answers == 1 && self.client.most_answers == 1,
            "not exactly one answer to each message",
        );
        seen.must(
            self.client.complaints.is_empty(),
            "the server complains to the client",
        );
        seen.must(
            copies(&self.reached) == 1,
            "a copy reached the server after the first",
        );
        seen.must(
            self.reached.len() + dropped as usize == self.relayed.len(),
            "the counters do not tell what became of each frame",
        );
        seen.hold(self.stage);
        seen
    }
}
