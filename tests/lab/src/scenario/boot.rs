//! A client's boots at the site while something fails: each message is followed from transmission to
//! transmission, until one is answered and the client has its address.

use std::any::Any;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use testbed::daemon::Daemon;

use crate::dhcp::{self, Message, MessageType};
use crate::machine::Process;
use crate::play::{Play, Seen};
use crate::site::{ETH0, Site};
use crate::software::relay::Relay;
use crate::software::server::{Lifetimes, Server};
use crate::tally::{self, Sent, Transmission};
use crate::tap::Tap;

/// Most time that a step may take: a client's fourth transmission comes after eight seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a client sends to get an address.
pub const EXCHANGE: [MessageType; 2] = [MessageType::Solicit, MessageType::Request];

/// How often a condition is looked at.
const GLANCE: Duration = Duration::from_millis(5);

/// Copies of a transmission that the server gets from two relays, but for the escalated ones.
pub fn copies(play: &Play<'_>) -> usize {
    if play.filtered { 1 } else { 2 }
}

/// A site at work: two of ISC's relays, Kea, captures, and the filter if the play has one.
pub struct Boot {
    pub site: Site,
    relays: [Process; 2],
    at_client: Tap,
    at_relays: [Tap; 2],
    on_wire: Tap,
    at_server: Tap,
    server: Process,
    filter: Option<Daemon>,
    escalate_every: usize,
}

/// What came of it.
pub struct Outcome {
    /// The client's messages.
    pub sent: Vec<Sent>,
    /// What the relays sent towards the server.
    relayed: Vec<Message>,
    /// Answers that came to each relay.
    pub answers_to_relays: [usize; 2],
    /// What the filter counted, by verdict and reason.
    counters: Option<BTreeMap<(String, String), u64>>,
    escalate_every: usize,
    /// Held for `--keep`.
    _stage: Box<dyn Any + Send>,
}

/// What an outcome comes to.
#[derive(Default)]
pub struct Totals {
    /// What the client sent.
    pub transmissions: usize,
    /// What of it came to the server's stack at all.
    pub arrived: usize,
    /// Copies that the relays sent towards the server.
    pub relayed: usize,
    /// Copies that came to the server's stack.
    pub reached: usize,
    /// Answers that came to the client.
    pub answers: usize,
}

impl Boot {
    /// Starts all but the client; with the filter, all copies of every third transmission pass.
    pub fn new(play: &Play<'_>, site: Site) -> Result<Self> {
        Self::escalating(play, site, 3)
    }

    /// As [`new`](Self::new), with another `--escalate-every`.
    pub fn escalating(play: &Play<'_>, site: Site, escalate_every: usize) -> Result<Self> {
        let server = Server::Kea.start(&site.server, Lifetimes::LONG)?;
        let [a, b] = &site.relays;
        let relays = Relay::ISC.start_pair(&site)?;
        let every = escalate_every.to_string();
        let filter = play.filter(&site.server, &["-i", ETH0, "--escalate-every", &every])?;
        Ok(Self {
            at_client: play.tap("client", &site.client_cable.machine)?,
            at_relays: [
                play.tap("relay-a", &a.up.port)?,
                play.tap("relay-b", &b.up.port)?,
            ],
            on_wire: play.tap("wire", &site.server_cable.port)?,
            at_server: play.tap("server", &site.server_cable.machine)?,
            site,
            relays,
            server,
            filter,
            escalate_every,
        })
    }

    /// Does something in mid-exchange: the client waits until it is done.
    pub fn meanwhile<T>(client: &Process, what: impl FnOnce() -> Result<T>) -> Result<T> {
        client.signal(Signal::SIGSTOP)?;
        let done = what();
        client.signal(Signal::SIGCONT)?;
        done
    }

    /// Kills a relay's program.
    pub fn kill_relay(&mut self, number: usize) -> Result<()> {
        let relay = &mut self.relays[number];
        relay.signal(Signal::SIGKILL)?;
        relay.wait(PATIENCE).map(drop)
    }

    /// Waits until the client has so many answers in all to messages of this type.
    pub fn until_answered(&self, kind: MessageType, answers: usize) -> Result<()> {
        let what = format!("answer {answers} to a {}", dhcp::name(kind));
        self.at_client.until(&what, PATIENCE, |messages| {
            tally::answers_to(messages, kind).count() >= answers
        })
    }

    /// Waits until so many copies of messages of this type have come to the server's cable.
    pub fn until_relayed(&self, kind: MessageType, copies: usize) -> Result<()> {
        let what = format!("copy {copies} of a {}", dhcp::name(kind));
        self.on_wire.until(&what, PATIENCE, |messages| {
            let relayed = |message: &&Message| message.is_relay_forward() && message.kind == kind;
            messages.iter().filter(relayed).count() >= copies
        })
    }

    /// The same, or until the client has an answer.
    pub fn until_relayed_or_answered(&self, kind: MessageType, copies: usize) -> Result<()> {
        let what = format!("copy {copies} of a {}", dhcp::name(kind));
        self.on_wire.until(&what, PATIENCE, |messages| {
            let relayed = |message: &&Message| message.is_relay_forward() && message.kind == kind;
            let client = self.at_client.messages();
            messages.iter().filter(relayed).count() >= copies
                || tally::answers_to(&client, kind).next().is_some()
        })
    }

    /// Waits until both relays have sent each transmission of messages of this type on.
    pub fn until_both_relayed(&self, kind: MessageType) -> Result<()> {
        let messages = self.at_client.messages();
        let sent = |message: &&Message| message.outgoing && message.kind == kind;
        self.until_relayed(kind, 2 * messages.iter().filter(sent).count())
    }

    /// Whose copy of the client's first message of this type came first to the server's stack.
    pub fn first_at_server(&self, kind: MessageType) -> Result<Ipv6Addr> {
        let find = |messages: &[Message]| {
            let mut forwards = messages.iter().filter(|message| message.is_relay_forward());
            forwards.find(|message| message.kind == kind).cloned()
        };
        let what = format!("{} at the server", dhcp::name(kind));
        self.at_server
            .until(&what, PATIENCE, |messages| find(messages).is_some())?;
        let first = find(&self.at_server.messages()).context("the capture forgot it")?;
        Ok(first.source)
    }

    /// Waits until the client has the address on its interface that it was granted last.
    pub fn until_it_has_its_address(&self) -> Result<()> {
        self.until_answered(MessageType::Request, 1)?;
        let start = Instant::now();
        loop {
            let messages = self.at_client.messages();
            let granted = tally::answers_to(&messages, MessageType::Request).last();
            let granted = granted.and_then(|reply| reply.addresses.first());
            let address = granted.context("the last Reply has no address")?;
            let shown = (self.site.client.namespace).ip(&format!("addr show dev {ETH0}"))?;
            if shown.contains(&format!(" {address}/")) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                bail!("the client was granted {address}, and does not have it: {shown}");
            }
            thread::sleep(GLANCE);
        }
    }

    /// Ends the captures when the lines are quiet.
    pub fn finish(self) -> Result<Outcome> {
        let client = self.at_client.finish()?;
        let [a, b] = self.at_relays;
        let answers = |tap: Tap| -> Result<usize> {
            let messages = tap.finish()?;
            Ok(messages
                .iter()
                .filter(|message| !message.is_of_client())
                .count())
        };
        let answers_to_relays = [answers(a)?, answers(b)?];
        let relayed = relay_forwards(self.on_wire.finish()?);
        let reached = relay_forwards(self.at_server.finish()?);
        let counters = match &self.filter {
            Some(filter) => Some(filter.metrics()?.packets(ETH0)),
            None => None,
        };
        Ok(Outcome {
            sent: tally::sent(&client, &relayed, &reached),
            relayed,
            answers_to_relays,
            counters,
            escalate_every: self.escalate_every,
            _stage: Box::new((self.site, self.relays, self.server, self.filter)),
        })
    }
}

impl Outcome {
    /// Starts to tell it, and demands what must hold whatever fails: the server got each of the
    /// client's transmissions, and with the filter no copy without a reason.
    pub fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        seen.excuse_if_busy(&self.relayed);
        let messages = self.sent.len();
        let Totals {
            transmissions,
            arrived,
            relayed,
            reached,
            answers,
        } = self.totals();
        seen.figure("messages_of_client", messages);
        seen.figure("transmissions_by_client", transmissions);
        seen.figure("transmissions_at_server", arrived);
        seen.figure("frames_relayed", relayed);
        seen.figure("frames_at_server", reached);
        seen.figure("answers_to_client", answers);
        seen.must(
            arrived == transmissions,
            format!("of {transmissions} transmissions {arrived} reached the server"),
        );
        let Some(counters) = &self.counters else {
            seen.must(
                reached == relayed,
                "a frame was lost before the server without the filter",
            );
            return seen;
        };
        seen.must(
            self.numbered().all(|(number, transmission)| {
                let of = if self.is_escalated(number) {
                    transmission.relayed.len()
                } else {
                    1
                };
                transmission.reached.len() == of
            }),
            "a copy passed without a reason, or not all copies of an escalated transmission did",
        );
        let dropped = relayed.saturating_sub(reached);
        let escalated: usize = self
            .numbered()
            .filter(|(number, _)| self.is_escalated(*number))
            .map(|(_, transmission)| transmission.reached.len().saturating_sub(1))
            .sum();
        seen.figure("copies_escalated", escalated);
        seen.figure("copies_dropped", dropped);
        seen.must(
            self.sent.iter().all(|sent| sent.answers() <= 1),
            "a message was answered twice",
        );
        // What is on the wire is what the filter has counted, and it counted nothing else.
        let expected: BTreeMap<_, _> = [
            ("drop", "duplicate", dropped),
            ("pass", "escalated", escalated),
            ("pass", "first", messages),
            ("pass", "retransmission", transmissions - messages),
        ]
        .into_iter()
        .filter(|(_, _, count)| *count > 0)
        .map(|(verdict, reason, count)| ((verdict.to_owned(), reason.to_owned()), count as u64))
        .collect();
        seen.must(
            *counters == expected,
            format!("the filter counted {counters:?}, the wire shows {expected:?}"),
        );
        seen
    }

    /// Tells at which transmission each message was answered, and what the filter did with copies.
    pub fn tell(&self, seen: &mut Seen) {
        for sent in &self.sent {
            seen.say(fate(sent));
            let name = dhcp::name(sent.kind).to_lowercase();
            let number = sent.answered().map(|(number, _)| number);
            seen.figure(&format!("{name}_answered_at_transmission"), number);
        }
        if self.counters.is_some() {
            let dropped = self.count("drop", "duplicate");
            let escalated = self.count("pass", "escalated");
            seen.say(match escalated {
                0 => format!("copies: {dropped} dropped"),
                _ => format!("copies: {dropped} dropped, {escalated} escalated"),
            });
        }
    }

    /// Demands that the client's first message of this type was answered first at this transmission,
    /// counted from 1, and so many times in all.
    pub fn must_be_answered(
        &self,
        seen: &mut Seen,
        kind: MessageType,
        at: Option<usize>,
        answers: usize,
    ) {
        let sent = self.sent.iter().find(|sent| sent.kind == kind);
        let was = sent.map(|sent| (sent.answered().map(|(number, _)| number), sent.answers()));
        seen.must(
            was == Some((at, answers)),
            format!(
                "the {} was to be answered at transmission {at:?} and {answers} times, and was: {was:?}",
                dhcp::name(kind)
            ),
        );
    }

    /// Who relayed each transmission of messages of this type, in the order in which the copies came
    /// to the server.
    pub fn relayed_by(&self, kind: MessageType) -> Vec<Vec<Ipv6Addr>> {
        let sent = self.sent.iter().filter(|sent| sent.kind == kind);
        sent.flat_map(|sent| &sent.transmissions)
            .map(|transmission| transmission.relayed.clone())
            .collect()
    }

    /// Adds it all up.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for (_, transmission) in self.numbered() {
            totals.transmissions += 1;
            totals.arrived += transmission.reached.len().min(1);
            totals.relayed += transmission.relayed.len();
            totals.reached += transmission.reached.len();
            totals.answers += transmission.answers;
        }
        totals
    }

    fn numbered(&self) -> impl Iterator<Item = (usize, &Transmission)> {
        self.sent
            .iter()
            .flat_map(|sent| (1..).zip(&sent.transmissions))
    }

    /// Whether all copies of a transmission are to pass, by its number from 1.
    fn is_escalated(&self, number: usize) -> bool {
        number.checked_rem(self.escalate_every) == Some(0)
    }

    fn count(&self, verdict: &str, reason: &str) -> u64 {
        let key = (verdict.to_owned(), reason.to_owned());
        let counters = self.counters.as_ref();
        counters
            .and_then(|counters| counters.get(&key))
            .copied()
            .unwrap_or(0)
    }
}

/// When a message was answered, and how often.
fn fate(sent: &Sent) -> String {
    let name = dhcp::name(sent.kind);
    let answered = match sent.answers() {
        0 => {
            let times = sent.transmissions.len();
            return format!("{name} sent {times} times and never answered");
        }
        1 => "answered".to_owned(),
        2 => "answered twice".to_owned(),
        times => format!("answered {times} times"),
    };
    match sent.answered() {
        None | Some((1, _)) => format!("{name} {answered} at once"),
        Some((number, waited)) => format!(
            "{name} {answered} at its {} transmission, after {:.1} s",
            ordinal(number),
            waited.as_secs_f64()
        ),
    }
}

fn ordinal(number: usize) -> String {
    match number {
        1 => "1st".to_owned(),
        2 => "2nd".to_owned(),
        3 => "3rd".to_owned(),
        number => format!("{number}th"),
    }
}

fn relay_forwards(messages: Vec<Message>) -> Vec<Message> {
    messages
        .into_iter()
        .filter(Message::is_relay_forward)
        .collect()
}
