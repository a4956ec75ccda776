//! A relay fails: in mid-exchange, on its way back to the client, or again and again. And two relays
//! that send from one address, so that either may get the answers.

use std::net::Ipv6Addr;
use std::time::Duration;

use anyhow::Result;

use super::boot::{Boot, EXCHANGE, copies};
use super::{Row, Scenario};
use crate::dhcp::{self, MessageType};
use crate::line::Line;
use crate::machine::Machine;
use crate::play::{Play, Seen};
use crate::site::{CORE, DOWN, RELAYS, RelayMachine, SERVER, Site, UP, UPLINKS, acquaint};
use crate::software::client::Client;

pub const SCENARIO: Scenario = Scenario {
    name: "failover",
    expected: "a relay fails, or its way back does, and the other one's copies are answered; with the \
               filter too, if need be the client's third transmission, of which all copies pass",
    at_once: 4,
    packages: &[],
    only_by_name: false,
    rows: |short| {
        // The longest first.
        let mut rows = vec![
            Row::new("comes and goes", comes_and_goes),
            Row::new("way back broken", |play| way_back_broken(play, 3)),
            Row::new("dies with the answer", dies_with_the_answer),
            Row::new("relay killed", |play| {
                dies_in_mid_exchange(play, Death::Killed)
            }),
            Row::new("relay unplugged", |play| {
                dies_in_mid_exchange(play, Death::Unplugged)
            }),
            Row::new("one anycast source", one_anycast_source),
        ];
        if !short {
            rows.insert(
                2,
                Row::new("never escalated", |play| way_back_broken(play, 0)),
            );
        }
        rows
    },
};

/// How much further away relay B is where relay A is to win every race: more than a busy machine
/// takes to run a relay, and well within the filter's window.
const FURTHER: Duration = Duration::from_millis(100);

/// What is said where relay A did not win all the same.
const TOO_LATE: &str = "relay B came first, although it is further away";

/// Transmissions after which a client is given up that nobody answers.
const TRIES: usize = 4;

/// How often the client boots while a relay comes and goes; an even number.
const BOOTS: usize = 4;

/// The relays' address on the client's link where they share one.
const GATEWAY: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);

/// Their address towards the server where they share one.
const ANYCAST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 1);

/// How a relay dies.
#[derive(Clone, Copy)]
enum Death {
    Killed,
    Unplugged,
}

/// The relay whose Solicit was the first at the server dies before the Request.
fn dies_in_mid_exchange(play: &Play<'_>, death: Death) -> Result<Seen> {
    let mut boot = Boot::new(play, Site::new(play)?)?;
    let client = Client::Dhclient.start(&boot.site.client)?;
    boot.until_relayed(MessageType::Solicit, 2)?;
    boot.until_answered(MessageType::Solicit, copies(play))?;
    let winner = boot.first_at_server(MessageType::Solicit)?;
    let ([winner, survivor], name) = if winner == UPLINKS[0] {
        ([0, 1], "relay A")
    } else {
        ([1, 0], "relay B")
    };
    Boot::meanwhile(&client, || match death {
        Death::Killed => boot.kill_relay(winner),
        Death::Unplugged => pull(&boot.site.relays[winner]),
    })?;
    boot.until_it_has_its_address()?;

    let outcome = boot.finish()?;
    let mut seen = outcome.seen();
    seen.say(match death {
        Death::Killed => format!("{name} won the Solicit and was killed"),
        Death::Unplugged => format!("{name} won the Solicit and lost its cables"),
    });
    outcome.tell(&mut seen);
    for (kind, answers) in [
        (MessageType::Solicit, copies(play)),
        (MessageType::Request, 1),
    ] {
        outcome.must_be_answered(&mut seen, kind, Some(1), answers);
    }
    let relayed_by = outcome.relayed_by(MessageType::Request);
    seen.must(
        relayed_by == [[UPLINKS[survivor]]],
        format!("not the other relay alone relayed the Request, but {relayed_by:?}"),
    );
    seen.hold((outcome, client));
    Ok(seen)
}

/// Relay A wins the Solicit, and dies before the answer gets back to it.
fn dies_with_the_answer(play: &Play<'_>) -> Result<Seen> {
    let site = Site::new(play)?;
    let line = put_away(&site)?;
    // From now on the answer is lost, however long the killing takes.
    break_way_back(&site.relays[0])?;
    let mut boot = Boot::new(play, site)?;
    let client = Client::Dhclient.start(&boot.site.client)?;
    boot.until_relayed(MessageType::Solicit, 1)?;
    boot.kill_relay(0)?;
    boot.until_it_has_its_address()?;

    let outcome = boot.finish()?;
    let mut seen = outcome.seen();
    seen.say("relay A won the Solicit and was killed before the answer got there");
    outcome.tell(&mut seen);
    // The price of the filter: the answer to relay B's copy would have been there at once.
    let at = if play.filtered { 2 } else { 1 };
    outcome.must_be_answered(&mut seen, MessageType::Solicit, Some(at), 1);
    outcome.must_be_answered(&mut seen, MessageType::Request, Some(1), 1);
    let [a, b] = UPLINKS;
    let relayed_by = EXCHANGE.map(|kind| outcome.relayed_by(kind)).concat();
    let won = relayed_by[0] == [a, b] && relayed_by[1..].iter().all(|by| *by == [b]);
    seen.must(
        won,
        format!("relay A did not win the first race and then fall silent: {relayed_by:?}"),
    );
    if !won {
        seen.excuse(TOO_LATE);
    }
    seen.hold((outcome, client, line));
    Ok(seen)
}

/// Relay A wins every race, and answers that come back to it go no further.
fn way_back_broken(play: &Play<'_>, escalate_every: usize) -> Result<Seen> {
    let site = Site::new(play)?;
    let line = put_away(&site)?;
    break_way_back(&site.relays[0])?;
    let boot = Boot::escalating(play, site, escalate_every)?;
    let client = Client::Dhclient.start(&boot.site.client)?;
    let served_at = match (play.filtered, escalate_every) {
        (false, _) => Some(1),
        (true, 0) => None,
        (true, every) => Some(every),
    };
    match served_at {
        Some(_) => boot.until_it_has_its_address()?,
        None => boot.until_relayed_or_answered(MessageType::Solicit, 2 * TRIES)?,
    }

    let outcome = boot.finish()?;
    let mut seen = outcome.seen();
    let lost = outcome.answers_to_relays[0];
    seen.say(format!("{lost} answers lost on relay A's way back"));
    seen.figure("answers_lost", lost);
    outcome.tell(&mut seen);
    let [a, b] = UPLINKS;
    let relayed_by = EXCHANGE.map(|kind| outcome.relayed_by(kind)).concat();
    let won = relayed_by.iter().all(|by| *by == [a, b]);
    seen.must(
        won,
        format!("relay A did not win every race: {relayed_by:?}"),
    );
    if !won {
        seen.excuse(TOO_LATE);
    }
    seen.must(
        lost == relayed_by.len(),
        format!(
            "not each of relay A's {} copies was answered",
            relayed_by.len()
        ),
    );
    let answers = usize::from(served_at.is_some());
    outcome.must_be_answered(&mut seen, MessageType::Solicit, served_at, answers);
    if served_at.is_some() {
        outcome.must_be_answered(&mut seen, MessageType::Request, served_at, answers);
    }
    seen.hold((outcome, client, line));
    Ok(seen)
}

/// Relay A is unplugged in the midst of one boot, and plugged in again in the midst of the next.
fn comes_and_goes(play: &Play<'_>) -> Result<Seen> {
    let boot = Boot::new(play, Site::new(play)?)?;
    let relay = &boot.site.relays[0];
    let mut is_there = true;
    // So far, in all boots.
    let mut relayed = [0; 2];
    let mut answers = [0; 2];
    for _ in 0..BOOTS {
        let client = Client::Dhclient.start(&boot.site.client)?;
        for (number, kind) in EXCHANGE.into_iter().enumerate() {
            relayed[number] += if is_there { 2 } else { 1 };
            answers[number] += if is_there { copies(play) } else { 1 };
            boot.until_relayed(kind, relayed[number])?;
            boot.until_answered(kind, answers[number])?;
            if kind == MessageType::Solicit {
                is_there = !is_there;
                let change = if is_there { put_back } else { pull };
                Boot::meanwhile(&client, || change(relay))?;
            }
        }
        boot.until_it_has_its_address()?;
        drop(client);
    }

    let outcome = boot.finish()?;
    let mut seen = outcome.seen();
    let relayed_by = |relays: usize| {
        let all = EXCHANGE.map(|kind| outcome.relayed_by(kind)).concat();
        all.iter().filter(|by| by.len() == relays).count()
    };
    let messages = outcome.sent.len();
    let [by_both, by_one] = [relayed_by(2), relayed_by(1)];
    let came = outcome.totals().answers;
    seen.say(format!(
        "{BOOTS} boots, relay A lost its cables or got them back in the midst of each; {messages} \
         messages, {by_both} by both relays and {by_one} by relay B alone; {came} answers; {BOOTS} \
         leases",
    ));
    seen.figure("boots", BOOTS);
    seen.figure("messages_by_both_relays", by_both);
    seen.figure("messages_by_one_relay", by_one);
    seen.must(
        [messages, by_both, by_one] == [2 * BOOTS, BOOTS, BOOTS],
        "not one message of each boot went by both relays, and one by relay B alone",
    );
    let answers: usize = answers.iter().sum();
    seen.must(
        came == answers,
        format!("{came} answers came, not {answers}"),
    );
    seen.hold(outcome);
    Ok(seen)
}

/// Both relays have the same addresses, as anycast gateways do, and what is sent to those may come to
/// either.
fn one_anycast_source(play: &Play<'_>) -> Result<Seen> {
    let site = Site::new(play)?;
    for relay in &site.relays {
        for (cable, address) in [(&relay.down, GATEWAY), (&relay.up, ANYCAST)] {
            let interface = &cable.machine;
            let flush = format!("addr flush dev {} scope global", interface.name);
            interface.namespace.ip(&flush)?;
            interface.address(address, 64)?;
        }
        // The server's answer to the question for its MAC address might come to the other relay.
        let server = site.server_cable.machine.mac;
        relay.up.machine.neighbour(SERVER, server)?;
    }
    let boot = Boot::new(play, site)?;
    let way_back = |relay: &RelayMachine| {
        let server = &boot.site.server_cable.machine;
        server.neighbour(ANYCAST, relay.up.machine.mac)
    };
    let [a, b] = &boot.site.relays;
    let answers = copies(play);
    way_back(a)?;
    let client = Client::Dhclient.start(&boot.site.client)?;
    boot.until_relayed(MessageType::Solicit, 2)?;
    boot.until_answered(MessageType::Solicit, answers)?;
    Boot::meanwhile(&client, || way_back(b))?;
    boot.until_relayed(MessageType::Request, 2)?;
    boot.until_answered(MessageType::Request, answers)?;
    boot.until_it_has_its_address()?;

    let outcome = boot.finish()?;
    let mut seen = outcome.seen();
    seen.say(format!(
        "both relays send from {ANYCAST}; answers to the Solicit came back by relay A, to the Request by \
         relay B"
    ));
    outcome.tell(&mut seen);
    let [by_a, by_b] = outcome.answers_to_relays;
    seen.must(
        [by_a, by_b] == [answers; 2],
        format!("{by_a} answers came back by relay A and {by_b} by relay B, not {answers} each"),
    );
    for kind in EXCHANGE {
        outcome.must_be_answered(&mut seen, kind, Some(1), answers);
        let relayed_by = outcome.relayed_by(kind);
        seen.must(
            relayed_by == [[ANYCAST; 2]],
            format!("the {} was relayed by {relayed_by:?}", dhcp::name(kind)),
        );
    }
    seen.hold((outcome, client));
    Ok(seen)
}

/// Moves relay B so far away that relay A wins every race.
fn put_away(site: &Site) -> Result<Line> {
    let [_, b] = &site.relays;
    let line = site.switch.lengthen(&b.up, CORE, FURTHER)?;
    find_again(&b.machine, UP, SERVER)?;
    Ok(line)
}

/// Drops the server's answers where they come to a relay.
fn break_way_back(relay: &RelayMachine) -> Result<()> {
    relay.machine.nft(&format!(
        "table ip6 way-back {{
            chain answers {{
                type filter hook input priority filter;
                iifname {UP} udp dport 547 drop
            }}
        }}"
    ))
}

fn pull(relay: &RelayMachine) -> Result<()> {
    relay.down.pull()?;
    relay.up.pull()
}

/// Hands back when both cables carry again; first the one to the server, or what the relay hears from
/// the client in the meantime would get there late.
fn put_back(relay: &RelayMachine) -> Result<()> {
    relay.up.put_back()?;
    find_again(&relay.machine, UP, SERVER)?;
    relay.down.put_back()?;
    find_again(&relay.machine, DOWN, RELAYS[1])
}

/// Waits until a machine gets through to a neighbour on another way than before.
fn find_again(machine: &Machine, interface: &str, neighbour: Ipv6Addr) -> Result<()> {
    machine
        .namespace
        .ip(&format!("neigh flush dev {interface}"))?;
    acquaint(machine, neighbour)
}
