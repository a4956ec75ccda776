//! What `replay` makes of the captures of real software, against what other parsers find in them.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use testbed::{frame::reported_pair, harness::trial};

use crate::{
    command::{bytes, capture, captures, file, name, replay},
    oracle::{self, Told},
    pcap::{self, Frame},
};

/// 2026-11-22T15:32:01.937496Z, when the reported frame came.
const REPORTED_TIME: u64 = 1_795_361_521_937_496_000;

/// The default window, in nanoseconds.
const WINDOW: u64 = 200_000_000;

/// Reasons of all frames in captures whose story their README tells.
const STORIES: &[(&str, &[&str])] = &[
    ("05-vlan100", &["first", "duplicate"]),
    ("05-vlan-prio0", &["first", "duplicate"]),
    ("05-qinq-8100-8100", &["first", "duplicate"]),
    ("05-qinq-88a8-8100", &["first", "duplicate"]),
    ("05-triple-tag", &["not_dhcp", "not_dhcp"]),
    ("06-ext-hopbyhop", &["first", "duplicate"]),
    ("06-ext-long-hbh-264", &["first", "duplicate"]),
    ("06-ext-destopt", &["first", "duplicate"]),
    ("06-ext-destopt-x8", &["first", "duplicate"]),
    ("06-ext-hbh-destopt", &["first", "duplicate"]),
    ("06-ext-routing-type0-segleft0", &["first", "duplicate"]),
    ("06-frag-atomic", &["fragment", "fragment"]),
    (
        "06-frag-multi",
        &["fragment", "not_dhcp", "fragment", "not_dhcp"],
    ),
];

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial(
            "the frames of the report are told exactly as the documentation has it",
            the_reported_frames,
        ),
        trial(
            "people get aligned columns and a summary",
            columns_for_people,
        ),
        trial(
            "a window shorter than the slower relay's lag takes its copies for retransmissions",
            a_short_window,
        ),
    ];
    for (name, reasons) in STORIES {
        trials.push(trial(format!("{name}: {}", reasons.join(", ")), || {
            let replayed = file(&capture(name), &[])?;
            ensure!(replayed.reasons() == *reasons, "{:?}", replayed.reasons());
            Ok(())
        }));
    }
    for path in captures() {
        let name = name(&path);
        let mut add = |what: &str, test: fn(&Path) -> Result<()>| {
            let path = path.clone();
            trials.push(trial(format!("{name}: {what}"), move || test(&path)));
        };
        add("each frame is what other parsers find in it", descriptions);
        if name.starts_with("01-") && name.ends_with("-server") {
            add(
                "each client message passes once, its copy is dropped",
                pairs,
            );
        }
        if name.ends_with("-server") {
            add(
                "of each transmission one copy passes, of each third all",
                transmissions,
            );
            add("--observe decides the same and drops nothing", observe);
        }
        if name.ends_with("-client") {
            add("nothing on the client's own link is dropped", clients_link);
        }
    }
    trials
}

/// The frames of a capture, and what others say of them.
fn frames(path: &Path) -> Result<Vec<(Frame, Option<Told>)>> {
    let (_, frames) = pcap::read(&fs::read(path)?)?;
    let told = frames
        .iter()
        .map(|frame| Told::of(&frame.bytes))
        .collect::<Vec<_>>();
    Ok(frames.into_iter().zip(told).collect())
}

fn descriptions(path: &Path) -> Result<()> {
    let replayed = file(path, &[])?;
    let frames = frames(path)?;
    ensure!(replayed.frames.len() == frames.len());
    for (line, (_, told)) in replayed.frames.iter().zip(&frames) {
        let expected = told.as_ref().map_or_else(oracle::nothing, Told::json);
        for (key, value) in expected.as_object().context("no object")? {
            ensure!(line[key] == *value, "{key} of {line}: expected {value}");
        }
    }
    Ok(())
}

fn pairs(path: &Path) -> Result<()> {
    let replayed = file(path, &[])?;
    let mut copies: BTreeMap<Vec<u8>, Vec<_>> = BTreeMap::new();
    for ((_, told), decision) in frames(path)?.into_iter().zip(replayed.decisions()) {
        match told {
            Some(told) if told.layers > 0 => copies
                .entry(told.bytes)
                .or_default()
                .push((told.source, decision)),
            _ => ensure!(
                decision.0 == "pass",
                "{decision:?} of the server's own frame"
            ),
        }
    }
    ensure!(!copies.is_empty(), "no client message");
    for pair in copies.values() {
        let [(one, first), (other, second)] = pair.as_slice() else {
            anyhow::bail!("{} copies", pair.len());
        };
        ensure!(one != other, "both through {one}");
        ensure!(*first == ("pass", "first"), "{first:?}");
        ensure!(*second == ("drop", "duplicate"), "{second:?}");
    }
    Ok(())
}

/// The rule in other words, over whole messages: it knows neither digest nor table.
fn transmissions(path: &Path) -> Result<()> {
    struct Transmission {
        bytes: Vec<u8>,
        number: u32,
        passed_at: u64,
    }
    let replayed = file(path, &[])?;
    let mut clients: HashMap<_, Transmission> = HashMap::new();
    for (number, ((frame, told), decision)) in frames(path)?
        .into_iter()
        .zip(replayed.decisions())
        .enumerate()
    {
        let Some(told) = told.filter(|told| told.layers > 0) else {
            ensure!(decision.0 == "pass", "frame {}: {decision:?}", number + 1);
            continue;
        };
        let client = (
            told.destination,
            told.message,
            told.transaction_id,
            told.peer,
        );
        let last = clients.get(&client);
        let expected = match last {
            None => ("pass", "first"),
            Some(last)
                if last.bytes == told.bytes
                    && frame.time.saturating_sub(last.passed_at) < WINDOW =>
            {
                if last.number.is_multiple_of(3) {
                    ("pass", "escalated")
                } else {
                    ("drop", "duplicate")
                }
            }
            Some(_) => ("pass", "retransmission"),
        };
        ensure!(decision == expected, "frame {}: {decision:?}", number + 1);
        if ["first", "retransmission"].contains(&expected.1) {
            let transmission = Transmission {
                bytes: told.bytes,
                number: last.map_or(0, |last| last.number) + 1,
                passed_at: frame.time,
            };
            clients.insert(client, transmission);
        }
    }
    Ok(())
}

fn observe(path: &Path) -> Result<()> {
    let enforcing = file(path, &[])?;
    let observing = file(path, &["--observe"])?;
    let expected: Vec<_> = enforcing
        .decisions()
        .into_iter()
        .map(|(verdict, reason)| match verdict {
            "drop" => ("would_drop", reason),
            _ => (verdict, reason),
        })
        .collect();
    ensure!(observing.decisions() == expected, "{observing:?}");
    ensure!(observing.summary["would_drop"] == enforcing.summary["dropped"]);
    ensure!(observing.summary["dropped"] == 0);
    Ok(())
}

fn clients_link(path: &Path) -> Result<()> {
    for arguments in [&[][..], &["--messages", "all"]] {
        let replayed = file(path, arguments)?;
        ensure!(
            replayed.summary["dropped"] == 0,
            "{arguments:?}: {replayed:?}"
        );
    }
    Ok(())
}

fn a_short_window() -> Result<()> {
    let path = capture("02-relaykinds-A_dnsmasq-B_isc-iid-server");
    let expected = [("200ms", "duplicate"), ("50ms", "retransmission")];
    for (window, reason) in expected {
        let replayed = file(&path, &["--window", window])?;
        ensure!(
            replayed.reasons().contains(&reason),
            "{window}: {replayed:?}"
        );
    }
    Ok(())
}

fn the_reported_frames() -> Result<()> {
    let [first, second] = reported_pair().map(|frame| frame.bytes());
    let capture = pcap::USUAL.file(&[
        Frame::new(REPORTED_TIME, first),
        Frame::new(REPORTED_TIME + 39_000, second),
    ]);
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("reported.pcap");
    fs::write(&path, &capture)?;
    let output = replay()?
        .arg(&path)
        .args(["--json", "--engine", "userspace"])
        .output()?;
    let expected = concat!(
        r#"{"frame":1,"time":"2026-11-22T15:32:01.937496Z","verdict":"pass","reason":"first","message":"solicit","xid":"1bf7f8","peer":"fe80::225:90ff:fefc:d38c","relay":"2001:db8:1::fffe","layers":1}"#,
        "\n",
        r#"{"frame":2,"time":"2026-11-22T15:32:01.937535Z","verdict":"drop","reason":"duplicate","message":"solicit","xid":"1bf7f8","peer":"fe80::225:90ff:fefc:d38c","relay":"2001:db8:1::ffff","layers":1}"#,
        "\n",
        r#"{"summary":{"frames":2,"passed":1,"dropped":1,"would_drop":0,"reasons":{"duplicate":1,"first":1}}}"#,
        "\n",
    );
    let stdout = String::from_utf8(output.stdout)?;
    ensure!(stdout == expected, "{stdout}");
    // The same through a pipe.
    ensure!(bytes(&capture, &[])?.reasons() == ["first", "duplicate"]);
    Ok(())
}

fn columns_for_people() -> Result<()> {
    let output = replay()?
        .arg(capture("05-vlan100"))
        .args(["--engine", "userspace"])
        .output()?;
    let expected = "  \
  frame  time                            verdict     reason             message              xid     peer                       relay
      1  2026-11-22T06:41:34.023835Z     pass        first              solicit              52f75c  fe80::25:90ff:fefc:d38c    2001:db8:b::b
      2  2026-11-22T06:41:34.023935Z     drop        duplicate          solicit              52f75c  fe80::25:90ff:fefc:d38c    2001:db8:b::a

2 frames: 1 passed, 1 dropped
  duplicate                 1
  first                     1
";
    let stdout = String::from_utf8(output.stdout)?;
    ensure!(stdout == expected, "{stdout}");
    Ok(())
}
