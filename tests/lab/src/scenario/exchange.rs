//! One client's exchange at the site, from Solicit over Renew to Release, with the programs that a
//! scenario chooses.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::Duration;

use anyhow::Result;
use testbed::veth::XdpMode;

use crate::dhcp::{self, Message, MessageType};
use crate::network::Cable;
use crate::play::{Play, Seen};
use crate::site::{ETH0, Layout, Site};
use crate::software::client::Client;
use crate::software::radvd;
use crate::software::relay::Relay;
use crate::software::server::{Lifetimes, Server};
use crate::tally::{ClientSide, answers_to, copies};
use crate::tap::Tap;

/// Short enough to see the client renew, and the rest long enough that none asks any server instead:
/// systemd's timers may be ten seconds late, and WIDE takes no less than 30 seconds for that.
const LIFETIMES: Lifetimes = Lifetimes {
    renew: Duration::from_secs(2),
    rebind: Duration::from_secs(30),
    preferred: Duration::from_secs(60),
    valid: Duration::from_secs(120),
};

/// Most time that a step may take.
const PATIENCE: Duration = Duration::from_secs(40);

/// All of it.
pub const WHOLE: &[MessageType] = &[MessageType::Renew, MessageType::Release];

/// It without a renewal, for servers whose clients renew late.
pub const WITHOUT_RENEWAL: &[MessageType] = &[MessageType::Request, MessageType::Release];

/// Who takes part, and how far.
#[derive(Clone, Copy, Debug)]
pub struct Cast {
    pub client: Client,
    pub relays: [Relay; 2],
    pub server: Server,
    /// The messages whose answer is waited for, one after the other. The client is told to send a
    /// Release, and does the others by itself.
    pub steps: &'static [MessageType],
}

impl Cast {
    /// What most rows have.
    pub const USUAL: Self = Self {
        client: Client::Dhclient,
        relays: [Relay::ISC; 2],
        server: Server::Kea,
        steps: WHOLE,
    };
}

/// Where it is played.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub layout: Layout,
    /// How the filter is attached to the server's NIC, and to its second one.
    pub modes: [XdpMode; 2],
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            layout: Layout::default(),
            modes: [XdpMode::Native; 2],
        }
    }
}

/// Frames by verdict and reason.
pub type Counters = BTreeMap<(String, String), u64>;

/// What was captured of it.
pub struct Exchange {
    /// By the client itself.
    pub client: ClientSide,
    /// Of that, the messages that the server answers but once, whatever comes.
    pub answered_once: ClientSide,
    /// And the others.
    pub answered_each: ClientSide,
    /// Addresses that the server granted.
    pub granted: BTreeSet<Ipv6Addr>,
    /// What the relays sent to the server.
    pub relayed: Vec<Message>,
    /// What of it reached the server's stack.
    pub reached: Vec<Message>,
    /// The filter's counters on each of the server's NICs, by verdict and reason.
    pub counters: Option<Vec<Counters>>,
    /// How the filter was attached to each, and how it was to be.
    modes: Vec<(Option<XdpMode>, Option<XdpMode>)>,
    stage: Box<dyn Any + Send>,
}

/// Plays it at the site that was reported.
pub fn play(play: &Play<'_>, cast: Cast) -> Result<Exchange> {
    play_at(play, cast, Setting::default())
}

/// Plays it there.
pub fn play_at(play: &Play<'_>, cast: Cast, setting: Setting) -> Result<Exchange> {
    let site = Site::laid_out(play, setting.layout)?;
    let server = cast.server.start(&site.server, LIFETIMES)?;
    let mut relays = Vec::new();
    // The last ones first: the first ones may ask for their next hop at once.
    for further in site.further_relays.iter().rev() {
        relays.push(Relay::ISC.start(&further.machine, further.link, further.next)?);
    }
    for (relay, place) in cast.relays.iter().zip(&site.relays) {
        relays.push(relay.start(&place.machine, place.link, place.next)?);
    }
    let cables: Vec<&Cable> = [&site.server_cable]
        .into_iter()
        .chain(&site.second_cable)
        .collect();
    let mut arguments = Vec::new();
    for (cable, mode) in cables.iter().zip(setting.modes) {
        let nic = cable.machine.name;
        let mode = match mode {
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
        };
        let of_nic = format!("{nic}={mode}");
        arguments.extend(["-i".to_owned(), nic.to_owned(), "--mode".to_owned(), of_nic]);
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let filter = play.filter(&site.server, &arguments)?;
    let mut modes = Vec::new();
    for (cable, mode) in cables.iter().zip(setting.modes) {
        modes.push((cable.machine.xdp()?, play.filtered.then_some(mode)));
    }
    let at_client = play.tap("client", &site.client_cable.machine)?;
    let (mut on_wire, mut at_server) = (Vec::new(), Vec::new());
    for (cable, number) in cables.iter().zip(["", "-second"]) {
        on_wire.push(play.tap(&format!("wire{number}"), &cable.port)?);
        at_server.push(play.tap(&format!("server{number}"), &cable.machine)?);
    }

    let router = match cast.client.waits_for_router() {
        true => Some(radvd::tell_to_use_dhcp(&site.relays[0].machine)?),
        false => None,
    };
    let ignores_second = |kind| cast.server.ignores_second(kind);
    let mut client = cast.client.start(&site.client)?;
    for &step in cast.steps {
        let mut patience = PATIENCE;
        match step {
            MessageType::Release => {
                let granted = granted(&at_client.messages());
                site.client.until_it_has(ETH0, &granted, PATIENCE)?;
                cast.client.release(&site.client, &mut client)?;
                if !cast.client.releases() {
                    break;
                }
            }
            MessageType::Renew => patience += cast.server.renewal(LIFETIMES),
            _ => {}
        }
        let what = format!("answer to a {}", dhcp::name(step));
        at_client.until(&what, patience, |messages| {
            answers_to(messages, step).next().is_some()
        })?;
        // Both copies come by one cable, or by one each.
        for wire in &on_wire {
            wire.until("both copies", PATIENCE, |messages| {
                let sent = messages.iter().filter(|message| message.kind == step);
                sent.count() * on_wire.len() >= 2
            })?;
        }
        if !play.filtered && !ignores_second(step) {
            at_client.until(&format!("second {what}"), PATIENCE, |messages| {
                answers_to(messages, step).count() >= 2
            })?;
        }
    }
    settle(
        &at_client,
        &on_wire,
        if play.filtered { 1 } else { 2 },
        ignores_second,
    );

    let messages = at_client.finish()?;
    let (once, each) = by_answers(&messages, ignores_second);
    let relayed = relay_forwards(on_wire)?;
    let reached = relay_forwards(at_server)?;
    let counters = match &filter {
        Some(filter) => {
            let metrics = filter.metrics()?;
            let of_nics = cables
                .iter()
                .map(|cable| metrics.packets(cable.machine.name));
            Some(of_nics.collect())
        }
        None => None,
    };
    Ok(Exchange {
        client: ClientSide::of(&messages),
        answered_once: ClientSide::of(&once),
        answered_each: ClientSide::of(&each),
        granted: granted(&messages),
        relayed,
        reached,
        counters,
        modes,
        stage: Box::new((site, server, relays, router, filter)),
    })
}

/// The transactions of a client's capture that the server answers but once, whatever comes, and the
/// others.
fn by_answers(
    messages: &[Message],
    ignores_second: impl Fn(MessageType) -> bool,
) -> (Vec<Message>, Vec<Message>) {
    let once: BTreeSet<_> = messages
        .iter()
        .filter(|message| message.outgoing && ignores_second(message.kind))
        .map(|message| message.transaction_id)
        .collect();
    let is_answered_once = |message: &Message| once.contains(&message.transaction_id);
    messages.iter().cloned().partition(is_answered_once)
}

/// Waits for what is on its way: both copies of each of the client's messages, and so many answers to
/// each. What does not come in time is missed by those who look at the captures.
pub fn settle(
    at_client: &Tap,
    on_wire: &[Tap],
    answers: usize,
    ignores_second: impl Fn(MessageType) -> bool,
) {
    let _ = at_client.until("last answer", PATIENCE, |messages| {
        let (_, each) = by_answers(messages, &ignores_second);
        ClientSide::of(&each).fewest_answers >= answers
    });
    let sent = ClientSide::of(&at_client.messages()).sent;
    for wire in on_wire {
        let _ = wire.until("last copy", PATIENCE, |messages| {
            let forwards = messages.iter().filter(|message| message.is_relay_forward());
            forwards.count() * on_wire.len() >= 2 * sent
        });
    }
}

/// The addresses in the Replies so far.
fn granted(messages: &[Message]) -> BTreeSet<Ipv6Addr> {
    let replies = messages
        .iter()
        .filter(|message| message.kind == MessageType::Reply);
    replies.flat_map(|reply| reply.addresses.clone()).collect()
}

/// What these captures have of them together, in the order of time.
fn relay_forwards(taps: Vec<Tap>) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    for tap in taps {
        messages.extend(tap.finish()?);
    }
    messages.retain(Message::is_relay_forward);
    messages.sort_by_key(|message| message.time);
    Ok(messages)
}

/// How often frames came to an end for this reason on these NICs together.
pub fn count(counters: &[Counters], verdict: &str, reason: &str) -> u64 {
    let key = (verdict.to_owned(), reason.to_owned());
    counters
        .iter()
        .filter_map(|counters| counters.get(&key))
        .sum()
}

impl Exchange {
    /// Tells it, and demands what must hold of every client, relay and server.
    pub fn seen(self) -> Seen {
        let mut seen = Seen::default();
        let ClientSide { sent, answers, .. } = self.client;
        let kinds = self.client.kinds.iter().map(|(kind, times)| match times {
            1 => dhcp::name(*kind),
            times => format!("{times} {}s", dhcp::name(*kind)),
        });
        seen.say(format!(
            "{sent} messages ({}), {answers} answers",
            kinds.collect::<Vec<_>>().join(", ")
        ));
        if let Some(lease) = self.granted.first() {
            seen.say(format!("{lease} on {ETH0}"));
        }
        if self.client.addresses_offered > 1 {
            seen.say(format!(
                "{} addresses offered for one Solicit",
                self.client.addresses_offered
            ));
        }
        let mut complaints: BTreeMap<&str, usize> = BTreeMap::new();
        for complaint in &self.client.complaints {
            *complaints.entry(complaint).or_default() += 1;
        }
        for (complaint, times) in complaints {
            seen.say(match times {
                1 => format!("server complains: {complaint}"),
                times => format!("server complains {times} times: {complaint}"),
            });
        }
        seen.excuse_if_busy(&self.relayed);
        seen.figure("messages_sent_by_client", sent);
        seen.figure("answers_to_client", answers);
        seen.figure(
            "addresses_offered_for_one_solicit",
            self.client.addresses_offered,
        );
        seen.figure("complaints_of_server", self.client.complaints.clone());
        seen.figure("frames_relayed", self.relayed.len());
        seen.figure("frames_at_server", self.reached.len());
        seen.figure("addresses_granted", self.granted.len());

        // That it is on the interface was waited for.
        seen.must(
            self.granted.len() == 1,
            format!("not one address was granted, but {:?}", self.granted),
        );
        seen.must(
            copies(&self.relayed)
                .values()
                .all(|copies| copies.len() == 2),
            "the relays did not both send a copy of each message",
        );
        for (found, expected) in &self.modes {
            seen.must(
                found == expected,
                format!("the filter is there as {found:?} instead of {expected:?}"),
            );
        }
        match &self.counters {
            None => self.judge_fault(&mut seen),
            Some(counters) => self.judge_filter(counters, &mut seen),
        }
        seen.hold(self.stage);
        seen
    }

    /// Without the filter.
    fn judge_fault(&self, seen: &mut Seen) {
        if self.answered_once.sent > 0 {
            seen.say("the server itself leaves the second Release unanswered");
        }
        seen.must(
            self.each_arrived(2),
            "not both copies of each message reached the server",
        );
        seen.must(
            self.answered_each.fewest_answers == 2 && self.answered_each.most_answers == 2,
            "the fault did not show: not two answers to each message",
        );
        seen.must(
            self.answered_once.answers == self.answered_once.sent,
            "not one answer to each message of a type that is answered once",
        );
    }

    /// With it.
    fn judge_filter(&self, counters: &[Counters], seen: &mut Seen) {
        let dropped = count(counters, "drop", "duplicate");
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
            self.each_arrived(1),
            "not exactly one copy of each message reached the server",
        );
        let transactions: BTreeSet<_> = self
            .relayed
            .iter()
            .map(|message| (message.peer(), message.name(), message.transaction_id))
            .collect();
        let as_counted: u64 = counters.iter().flat_map(BTreeMap::values).sum();
        seen.must(
            self.reached.len() + dropped as usize == self.relayed.len()
                && as_counted as usize == self.relayed.len()
                && count(counters, "pass", "first") as usize == transactions.len(),
            format!("the counters do not tell what became of each frame: {counters:?}"),
        );
    }

    /// Whether all that was relayed reached the server, in so many copies.
    fn each_arrived(&self, times: usize) -> bool {
        let (relayed, reached) = (copies(&self.relayed), copies(&self.reached));
        reached.keys().eq(relayed.keys()) && reached.values().all(|copies| copies.len() == times)
    }
}
