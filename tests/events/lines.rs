//! What the lines say.

use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testbed::frame::{ClientMessage, message_type, relayed, reported};

use crate::{
    Test,
    bed::{Bed, copies, transmission, wait_for_counts},
    follower::Follower,
};

pub const TESTS: &[(&str, Test)] = &[
    (
        "each drop is a line, in which the message, the client, the relay and the gap stand",
        drops,
    ),
    ("people read the same in columns", columns),
    (
        "on request there are lines for other verdicts and reasons, and for no others",
        on_request,
    ),
    (
        "where the filter observes, what it would drop is followed",
        observed,
    ),
    ("of two interfaces one can be followed alone", one_interface),
];

/// A message, and the name of its type.
fn message(number: u8) -> (ClientMessage, &'static str) {
    let (message_type, name) = [
        (message_type::SOLICIT, "solicit"),
        (message_type::REQUEST, "request"),
        (5, "renew"),
        (8, "release"),
    ][usize::from(number) % 4];
    (ClientMessage::new(message_type, [0xab, 0xcd, number]), name)
}

fn drops() -> Result<()> {
    let bed = Bed::new()?;
    let daemon = bed.run(&[])?;
    let follower = Follower::start(&bed, &["--json"])?;
    let before = SystemTime::now();
    for number in 0..4 {
        let (message, name) = message(number);
        // One that takes a long record, one a short one.
        let message = if number % 2 == 0 {
            message
        } else {
            message.option(1000, &[number; 700])
        };
        for relay in [reported::RELAY_A, reported::RELAY_B] {
            let frame = relayed(relay, reported::SERVER, reported::CLIENT, &message);
            bed.senders[0].send(&frame.bytes())?;
        }
        let line = follower.line()?;
        let value: Value = serde_json::from_str(&line)?;
        let (time, gap) = (value["time"].clone(), value["gap_seconds"].clone());
        let expected = format!(
            "{{\"time\":{time},\"interface\":\"server0\",\"verdict\":\"drop\",\
             \"reason\":\"duplicate\",\"message\":\"{name}\",\"xid\":\"abcd0{number}\",\
             \"peer\":\"fe80::225:90ff:fefc:d38c\",\"relay\":\"2001:db8:1::ffff\",\"layers\":1,\
             \"gap_seconds\":{gap}}}"
        );
        ensure!(line == expected, "{line} is not {expected}");
        let text = time.as_str().context("no time")?;
        let time = humantime::parse_rfc3339(text)?;
        let clocks = std::time::Duration::from_millis(5);
        ensure!(
            before - clocks <= time && time <= SystemTime::now() + clocks,
            "{text}"
        );
        ensure!(text.len() == "2026-11-22T15:32:01.937496Z".len(), "{text}");
        let gap = gap.as_f64().context("no gap")?;
        ensure!((0.0..60.0).contains(&gap), "{gap}");
    }
    wait_for_counts(&daemon, "drop duplicate 4, pass first 4")?;
    let end = follower.stop(Signal::SIGTERM)?;
    ensure!(end.code == Some(0), "{end:?}");
    ensure!(end.lines.is_empty() && end.stderr.is_empty(), "{end:?}");
    Ok(())
}

fn columns() -> Result<()> {
    let bed = Bed::new()?;
    let _daemon = bed.run(&[])?;
    let follower = Follower::start(&bed, &[])?;
    let heading = follower.line()?;
    bed.send_pair(0x0a_0b_0c)?;
    let line = follower.line()?;
    let words: Vec<_> = line.split_whitespace().collect();
    ensure!(
        words[1..8]
            == [
                "server0",
                "drop",
                "duplicate",
                "solicit",
                "0a0b0c",
                "fe80::225:90ff:a:b0c",
                "2001:db8:1::ffff"
            ],
        "{line}"
    );
    ensure!(words.len() == 9 && words[8].ends_with('s'), "{line}");
    for (name, word) in [
        ("time", words[0]),
        ("reason", "duplicate"),
        ("gap", words[8]),
    ] {
        ensure!(heading.find(name) == line.find(word), "{heading}\n{line}");
    }
    let end = follower.stop(Signal::SIGINT)?;
    ensure!(end.code == Some(0) && end.stderr.is_empty(), "{end:?}");
    Ok(())
}

/// Frames of some reasons, each sent to the first interface.
fn send_all(bed: &Bed) -> Result<()> {
    let unfiltered = ClientMessage::new(message_type::REPLY, [0, 0, 9]);
    let unfiltered = relayed(
        reported::RELAY_A,
        reported::SERVER,
        reported::CLIENT,
        &unfiltered,
    );
    let [first, copy] = copies(1);
    let [again, _] = transmission(1, 100);
    let mut cut = copies(2)[0].clone();
    // The option length of option 9, beyond the datagram.
    cut[98..100].copy_from_slice(&[0xff, 0xff]);
    for frame in [&first, &copy, &again, &unfiltered.bytes(), &cut, &copy] {
        bed.senders[0].send(frame)?;
    }
    Ok(())
}

fn on_request() -> Result<()> {
    const SENT: [&str; 6] = [
        "pass first",
        "drop duplicate",
        "pass retransmission",
        "pass other_type",
        "pass malformed",
        "pass retransmission",
    ];
    for (arguments, expected) in [
        (&[][..], &[SENT[1]][..]),
        (&["--verdict", "drop,pass"], &SENT),
        (&["--reason", "first"], &[SENT[0]]),
        (
            &["--reason", "malformed,other_type", "--reason", "duplicate"],
            &[SENT[1], SENT[3], SENT[4]],
        ),
        (
            &["--verdict", "pass", "--reason", "retransmission"],
            &[SENT[2], SENT[5]],
        ),
        (&["--verdict", "would_drop"], &[]),
    ] {
        let bed = Bed::new()?;
        let daemon = bed.run(&[])?;
        let follower = Follower::start(&bed, &[&["--json"], arguments].concat())?;
        send_all(&bed)?;
        wait_for_counts(
            &daemon,
            "drop duplicate 1, pass first 1, pass malformed 1, pass other_type 1, \
             pass retransmission 2",
        )?;
        // Whatever was told is shown before the end.
        let end = follower.stop(Signal::SIGTERM)?;
        let mut shown = Vec::new();
        for line in &end.lines {
            let line: Value = serde_json::from_str(line)?;
            let field = |name: &str| line[name].as_str().unwrap_or("null").to_owned();
            shown.push(format!("{} {}", field("verdict"), field("reason")));
            if line["reason"] == "malformed" {
                let known = json!([line["message"], line["xid"], line["peer"], line["relay"]]);
                let expected = json!([null, null, null, "2001:db8:1::fffe"]);
                ensure!(known == expected, "{line}");
            }
            let has_gap = ["duplicate", "retransmission"].map(|name| line["reason"] == name);
            ensure!(
                line["gap_seconds"].is_number() == has_gap.contains(&true),
                "{line}"
            );
        }
        ensure!(shown == expected, "{arguments:?}: {shown:?}");
        ensure!(end.code == Some(0) && end.stderr.is_empty(), "{end:?}");
    }
    Ok(())
}

fn observed() -> Result<()> {
    let bed = Bed::new()?;
    let _daemon = bed.run(&["--observe"])?;
    let follower = Follower::start(&bed, &["--json"])?;
    bed.send_pair(1)?;
    let line = follower.json()?;
    ensure!(line["verdict"] == "would_drop", "{line}");
    ensure!(line["reason"] == "duplicate", "{line}");
    Ok(())
}

fn one_interface() -> Result<()> {
    let bed = Bed::with_cables(2)?;
    let _daemon = bed.run(&["-i", "server0", "-i", "server1"])?;
    let follower = Follower::start(&bed, &["--json", "-i", "server1"])?;
    let [first, copy] = copies(1);
    for (cable, frame) in [(0, &first), (0, &copy), (1, &copy), (0, &copy)] {
        bed.senders[cable].send(frame)?;
    }
    let line = follower.json()?;
    ensure!(line["interface"] == "server1", "{line}");
    let end = follower.stop(Signal::SIGTERM)?;
    ensure!(end.lines.is_empty(), "{end:?}");
    let ended = bed.xdp_dedup(&["events", "-i", "server7"])?;
    ensure!(ended.code == Some(1), "{ended:?}");
    let expected = "xdp-dedup: the filter is not on server7; it is on server0, server1\n";
    ensure!(ended.stderr == expected, "{ended:?}");
    Ok(())
}
