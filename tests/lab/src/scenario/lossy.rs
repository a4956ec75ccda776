//! The server's answers are lost on their way, and the client sends again.

use anyhow::{Context as _, Result};

use super::boot::{Boot, EXCHANGE, Totals, copies};
use super::{Row, Scenario};
use crate::dhcp::{self, MessageType};
use crate::machine::Machine;
use crate::play::{Play, Seen};
use crate::site::{ETH0, Site};
use crate::software::client::Client;

pub const SCENARIO: Scenario = Scenario {
    name: "lossy",
    expected: "the server's first answers are lost on their way and the client sends again; with the \
               filter too the server gets every transmission, and of the third all copies",
    at_once: 4,
    packages: &[],
    only_by_name: false,
    rows: |short| {
        let mut rows = vec![
            first_answers("dhclient", Client::Dhclient),
            first_answers("dhcpcd", Client::Dhcpcd),
            Row::new("three Advertises", |play| {
                boot(play, Client::Dhclient, [3, 0])
            }),
        ];
        if !short {
            rows.push(Row::new("every Reply for 7 s", no_reply));
        }
        rows
    },
};

/// All answers to the first transmission of each message are lost.
fn first_answers(name: &str, client: Client) -> Row {
    Row::new(name, move |play| boot(play, client, [copies(play); 2]))
}

/// All answers to the first three transmissions of the Request are lost; with the filter both copies
/// of the third are answered.
fn no_reply(play: &Play<'_>) -> Result<Seen> {
    let replies = if play.filtered { 1 + 1 + 2 } else { 2 + 2 + 2 };
    boot(play, Client::Dhclient, [0, replies])
}

/// So many Advertises are lost, and so many Replies, from the first on.
fn boot(play: &Play<'_>, client: Client, losses: [usize; 2]) -> Result<Seen> {
    let site = Site::new(play)?;
    lose(&site.server, losses)?;
    let boot = Boot::new(play, site)?;
    let client = client.start(&boot.site.client)?;
    let expected = losses.map(|lost| answered(play, lost));
    for (kind, (_, answers)) in EXCHANGE.into_iter().zip(expected) {
        boot.until_answered(kind, answers)?;
        boot.until_both_relayed(kind)?;
    }
    boot.until_it_has_its_address()?;

    let lost = lost(&boot.site.server)?;
    let outcome = boot.finish()?;
    let mut seen = outcome.seen();
    let Totals {
        transmissions,
        arrived,
        reached,
        ..
    } = outcome.totals();
    seen.say(format!(
        "{lost} answers lost; {transmissions} transmissions, {arrived} at the server in {reached} frames"
    ));
    seen.figure("answers_lost", lost);
    outcome.tell(&mut seen);
    seen.must(
        lost == losses.iter().sum::<usize>(),
        format!("{lost} answers were lost, not {losses:?}"),
    );
    for (kind, (at, answers)) in EXCHANGE.into_iter().zip(expected) {
        outcome.must_be_answered(&mut seen, kind, Some(at), answers);
        let relayed_by = outcome.relayed_by(kind);
        seen.must(
            relayed_by.iter().all(|by| by.len() == 2),
            format!(
                "not both relays sent each {} on: {relayed_by:?}",
                dhcp::name(kind)
            ),
        );
    }
    seen.hold((outcome, client));
    Ok(seen)
}

/// At which transmission of a message its first answer is not lost, and how many of that one's are
/// not: the client does not send it again.
fn answered(play: &Play<'_>, lost: usize) -> (usize, usize) {
    let (mut number, mut answers) = (0, 0);
    while answers <= lost {
        number += 1;
        answers += if number % 3 == 0 { 2 } else { copies(play) };
    }
    (number, answers - lost)
}

/// Drops answers where they have left the server's stack, which takes no notice.
fn lose(server: &Machine, [advertises, replies]: [usize; 2]) -> Result<()> {
    // In Kea's answers the Relay Message option comes first. So the type of the message within stands
    // behind the headers of UDP (8 bytes), of the relay's envelope (34) and of the option (4).
    let rule = |kind: MessageType, count: usize| {
        let kind = u8::from(kind);
        format!("udp sport 547 @th,368,8 {kind} numgen inc mod 1000000 < {count} counter drop")
    };
    server.nft(&format!(
        "table netdev loss {{
            chain answers {{
                type filter hook egress device {ETH0} priority filter;
                {}
                {}
            }}
        }}",
        rule(MessageType::Advertise, advertises),
        rule(MessageType::Reply, replies),
    ))
}

/// How many were dropped.
fn lost(server: &Machine) -> Result<usize> {
    let rules = server.run("nft", ["list", "table", "netdev", "loss"])?;
    let counts = rules.split("counter packets ").skip(1).map(|rest| {
        let count = rest.split_whitespace().next().unwrap_or_default();
        let count: Result<usize, _> = count.parse();
        count.with_context(|| format!("no counter of nft: {rules}"))
    });
    counts.sum()
}
