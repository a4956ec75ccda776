//! The firmware that the fault was reported from, as a model of it: see
//! [`strict_client`](crate::software::strict_client).

use anyhow::Result;

use super::{Row, Scenario, exchange};
use crate::play::{Play, Seen};
use crate::site::{ETH0, Site};
use crate::software::relay::Relay;
use crate::software::server::{Lifetimes, Server};
use crate::software::strict_client::{self, Boot};
use crate::tally::ClientSide;

pub const SCENARIO: Scenario = Scenario {
    name: "strict-client",
    expected: "a client written for this lab, which models the reported firmware: a second answer is \
               an error, and in the end PXE-E16; with the filter it boots at once, with --observe it \
               does not",
    at_once: 2,
    packages: &[],
    only_by_name: false,
    rows,
};

fn rows(short: bool) -> Vec<Row> {
    let mut rows = vec![Row::new("dropping", |play| boot(play, Policy::Drop))];
    if !short {
        rows.push(Row::new("--observe", |play| boot(play, Policy::Observe)));
    }
    rows
}

/// What the filter is to do, where it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Drop,
    Observe,
}

fn boot(play: &Play<'_>, policy: Policy) -> Result<Seen> {
    let site = Site::new(play)?;
    let server = Server::Kea.start(&site.server, Lifetimes::LONG)?;
    let relays = Relay::ISC.start_pair(&site)?;
    let (arguments, verdict, became): (&[&str], _, _) = match policy {
        Policy::Drop => (&["-i", ETH0], "drop", "dropped"),
        Policy::Observe => (&["-i", ETH0, "--observe"], "would_drop", "would be dropped"),
    };
    let filter = play.filter(&site.server, arguments)?;
    let at_client = play.tap("client", &site.client_cable.machine)?;
    let on_wire = play.tap("wire", &site.server_cable.port)?;

    let boot = strict_client::boot(&site.client_cable.machine)?;
    let drops = play.filtered && policy == Policy::Drop;
    exchange::settle(
        &at_client,
        std::slice::from_ref(&on_wire),
        if drops { 1 } else { 2 },
        |_| false,
    );
    let client = ClientSide::of(&at_client.finish()?);
    let relayed = on_wire.finish()?;
    let mut seen = Seen::default();
    seen.excuse_if_busy(&relayed);
    let relayed = relayed.iter().filter(|message| message.is_relay_forward());
    let relayed = relayed.count();
    tell(&mut seen, &boot, &client);
    seen.must(
        relayed == 2 * client.sent,
        format!("{relayed} frames relayed of {} messages", client.sent),
    );
    if drops {
        must_boot(&mut seen, &boot, &client);
    } else {
        must_fail(&mut seen, &boot, &client);
    }
    if let Some(filter) = &filter {
        let counters = filter.metrics()?.packets(ETH0);
        let count = |verdict: &str, reason: &str| {
            let key = (verdict.to_owned(), reason.to_owned());
            counters.get(&key).copied().unwrap_or(0)
        };
        let copies = count(verdict, "duplicate");
        seen.say(format!("{copies} copies {became}"));
        seen.figure(&format!("duplicates_{verdict}"), copies);
        seen.must(
            count("pass", "first") as usize == client.sent && copies as usize == client.sent,
            format!("the counters do not tell what became of each frame: {counters:?}"),
        );
    }
    seen.hold((site, server, relays, filter));
    Ok(seen)
}

fn tell(seen: &mut Seen, boot: &Boot, client: &ClientSide) {
    let attempts = match boot.attempts {
        1 => "first attempt".to_owned(),
        attempts => format!("{attempts} attempts"),
    };
    let seconds = boot.took.as_secs_f64();
    let end = boot.log.last().map(|line| line.trim()).unwrap_or_default();
    seen.say(format!(
        "the modelled firmware: {attempts}, {seconds:.1} s: {end}"
    ));
    seen.say(format!(
        "{} messages, {} answers",
        client.sent, client.answers
    ));
    seen.figure("attempts_to_boot", boot.attempts);
    seen.figure("booted_from", boot.from.clone());
    seen.figure(
        "seconds_until_boot_or_error",
        (seconds * 1000.0).round() / 1000.0,
    );
    seen.figure("messages_sent_by_client", client.sent);
    seen.figure("answers_to_client", client.answers);
    seen.figure("firmware_log", boot.log.clone());
}

fn must_boot(seen: &mut Seen, boot: &Boot, client: &ClientSide) {
    seen.must(
        boot.attempts == 1
            && boot
                .from
                .as_ref()
                .is_some_and(|url| url.ends_with("/snponly.efi")),
        format!(
            "it does not boot at the first attempt: {}",
            boot.log.join("; ")
        ),
    );
    seen.must(
        client.sent == 2 && client.fewest_answers == 1 && client.most_answers == 1,
        "not one answer to its Solicit and one to its Request",
    );
}

fn must_fail(seen: &mut Seen, boot: &Boot, client: &ClientSide) {
    seen.must(
        boot.from.is_none() && boot.attempts > 1,
        format!("it does not start over, and fail: {}", boot.log.join("; ")),
    );
    seen.must(
        client.fewest_answers == 2 && client.most_answers == 2,
        "not two answers to each message",
    );
}
