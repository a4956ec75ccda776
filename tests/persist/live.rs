//! What SIGHUP changes in the running program, setting by setting: without reattaching, without
//! forgetting.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use testbed::daemon::Daemon;
use testbed::frame::{ClientMessage, Frame, message_type, reported};
use testbed::harness::trial;

use crate::bed::{Bed, program, transmission, wait_for_counts, wait_for_log};
use crate::object::freeze;

/// What is sent.
#[derive(Clone, Copy)]
enum Sent {
    /// Both copies of a message.
    Pair,
    /// The copy by the first relay alone, or by the second.
    One(usize),
    /// Both copies of the next transmission, whose bytes are others.
    NextPair,
    /// A message by a client itself.
    Direct,
}

use Sent::{Direct, NextPair, One, Pair};

/// One setting: the file before, what is then sent and counted, the file after, and the same.
struct Row {
    setting: &'static str,
    before: &'static str,
    sent: &'static [Sent],
    counted: &'static str,
    after: &'static str,
    then_sent: &'static [Sent],
    then_counted: &'static str,
}

const ROWS: &[Row] = &[
    Row {
        setting: "a shorter window",
        before: "window = \"60s\"",
        sent: &[Pair],
        counted: "drop duplicate 1, pass first 1",
        after: "window = \"1ms\"",
        // The message is still known, but its window is over.
        then_sent: &[One(1)],
        then_counted: "drop duplicate 1, pass first 1, pass retransmission 1",
    },
    Row {
        setting: "a longer window",
        before: "window = \"1ms\"",
        sent: &[One(0)],
        counted: "pass first 1",
        after: "window = \"60s\"",
        then_sent: &[One(1)],
        then_counted: "drop duplicate 1, pass first 1",
    },
    Row {
        setting: "observe = true",
        before: "window = \"60s\"\nobserve = false",
        sent: &[Pair],
        counted: "drop duplicate 1, pass first 1",
        after: "window = \"60s\"\nobserve = true",
        then_sent: &[One(1)],
        then_counted: "drop duplicate 1, pass first 1, would_drop duplicate 1",
    },
    Row {
        setting: "no observe",
        before: "window = \"60s\"\nobserve = true",
        sent: &[Pair],
        counted: "pass first 1, would_drop duplicate 1",
        after: "window = \"60s\"",
        then_sent: &[One(1)],
        then_counted: "drop duplicate 1, pass first 1, would_drop duplicate 1",
    },
    Row {
        setting: "escalate-every",
        before: "window = \"60s\"\nescalate-every = 0",
        sent: &[Pair, NextPair],
        counted: "drop duplicate 2, pass first 1, pass retransmission 1",
        after: "window = \"60s\"\nescalate-every = 2",
        // The second transmission was counted before the change.
        then_sent: &[NextPair],
        then_counted: "drop duplicate 2, pass escalated 2, pass first 1, pass retransmission 1",
    },
    Row {
        setting: "trusted-relay",
        before: "window = \"60s\"",
        sent: &[Pair],
        counted: "drop duplicate 1, pass first 1",
        after: "window = \"60s\"\ntrusted-relay = \"2001:db8:1::fffe\"",
        then_sent: &[One(0), One(1)],
        then_counted: "drop duplicate 2, pass first 1, pass untrusted_relay 1",
    },
    Row {
        setting: "no trusted-relay any more",
        before: "window = \"60s\"\ntrusted-relay = \"2001:db8:1::fffe\"",
        sent: &[Pair],
        counted: "pass first 1, pass untrusted_relay 1",
        after: "window = \"60s\"",
        then_sent: &[One(1)],
        then_counted: "drop duplicate 1, pass first 1, pass untrusted_relay 1",
    },
    Row {
        setting: "untrusted",
        before: "window = \"60s\"\ntrusted-relay = \"2001:db8:1::fffe\"\nuntrusted = \"pass\"",
        sent: &[Pair],
        counted: "pass first 1, pass untrusted_relay 1",
        after: "window = \"60s\"\ntrusted-relay = \"2001:db8:1::fffe\"\nuntrusted = \"drop\"",
        then_sent: &[Pair],
        then_counted: "drop duplicate 1, drop untrusted_relay 1, pass first 1, pass untrusted_relay 1",
    },
    Row {
        setting: "messages",
        before: "window = \"60s\"\nmessages = \"relayed\"",
        sent: &[Direct, Pair],
        counted: "drop duplicate 1, pass first 1, pass not_relay_forward 1",
        after: "window = \"60s\"\nmessages = \"all\"",
        then_sent: &[Direct, Direct, One(0)],
        then_counted: "drop duplicate 3, pass first 2, pass not_relay_forward 1",
    },
    Row {
        setting: "identity",
        before: "window = \"60s\"",
        sent: &[Pair],
        counted: "drop duplicate 1, pass first 1",
        after: "window = \"60s\"\nidentity = \"xid\"",
        // One of its own, and then other bytes do not count.
        then_sent: &[One(0), NextPair],
        then_counted: "drop duplicate 3, pass first 2",
    },
];

/// Settings that take a restart: the file, and what the log must name. `persist` and the rest are as
/// the daemon has them.
const FIXED: &[(&str, &str, &str)] = &[
    (
        "interface",
        "interface = [\"server0\", \"lo\"]",
        "--interface",
    ),
    ("mode", "mode = \"generic\"", "--mode"),
    ("capacity", "capacity = 4096", "--capacity"),
    (
        "relay-counters",
        "relay-counters = false",
        "--relay-counters",
    ),
    ("metrics", "metrics = \"off\"", "--metrics"),
    ("persist", "persist = true", "--persist"),
    (
        "all of them at once",
        "interface = \"lo\"\nmode = \"lo=generic\"\ncapacity = 4096\nrelay-counters = false\n\
         metrics = \"off\"\npersist = true",
        "--interface, --capacity, --relay-counters, --metrics, --persist",
    ),
];

pub fn trials() -> Vec<Trial> {
    let live = ROWS.iter().map(|row| {
        let name = format!("SIGHUP changes {} live", row.setting);
        trial(name, || changes(row))
    });
    let fixed = FIXED.iter().map(|&(setting, file, named)| {
        let name = format!("SIGHUP names what takes a restart: {setting}");
        trial(name, move || is_fixed(file, named))
    });
    let refused = trial(
        "SIGHUP puts a policy in force though a relay cannot be removed, and warns of that",
        cannot_remove,
    );
    live.chain(fixed).chain([refused]).collect()
}

fn changes(row: &Row) -> Result<()> {
    let bed = Bed::new()?;
    let file = tempfile::NamedTempFile::new()?;
    fs::write(&file, row.before)?;
    let daemon = bed.run(&["--config", &file.path().to_string_lossy()])?;
    let before = program(&daemon)?;
    row.sent.iter().try_for_each(|sent| send(&bed, *sent))?;
    wait_for_counts(&daemon, row.counted)?;
    reload(&daemon, file.path(), row.after)?;
    ensure!(!daemon.log().contains("restart"), "{}", daemon.log());
    row.then_sent
        .iter()
        .try_for_each(|sent| send(&bed, *sent))?;
    wait_for_counts(&daemon, row.then_counted)?;
    ensure!(program(&daemon)? == before, "another program");
    Ok(())
}

fn is_fixed(file_after: &str, named: &str) -> Result<()> {
    let bed = Bed::new()?;
    let file = tempfile::NamedTempFile::new()?;
    let interface = "interface = \"server0\"\n";
    fs::write(&file, format!("{interface}window = \"60s\""))?;
    let path = file.path().to_string_lossy().into_owned();
    // Not by the command line, which wins.
    let arguments = ["--config", &path];
    let binary = testbed::binary::binary()?;
    let daemon = Daemon::start_on(&bed.pins, &binary, &bed.server, &arguments)?;
    let interface = if file_after.contains("interface") {
        ""
    } else {
        interface
    };
    // What can change live does, all the same.
    let after = format!("{interface}{file_after}\nwindow = \"60s\"\nobserve = true\n");
    reload(&daemon, file.path(), &after)?;
    let expected = format!("these change with a restart only: {named}\n");
    ensure!(daemon.log().contains(&expected), "{}", daemon.log());
    bed.send_pair(1)?;
    wait_for_counts(&daemon, "pass first 1, would_drop duplicate 1")
}

fn cannot_remove() -> Result<()> {
    let bed = Bed::new()?;
    let file = tempfile::NamedTempFile::new()?;
    fs::write(
        &file,
        "window = \"60s\"\ntrusted-relay = \"2001:db8:1::fffe\"",
    )?;
    let daemon = bed.run(&["--config", &file.path().to_string_lossy()])?;
    bed.send_pair(1)?;
    wait_for_counts(&daemon, "pass first 1, pass untrusted_relay 1")?;
    freeze(&daemon, "layout-2/TRUSTED")?;
    reload(&daemon, file.path(), "window = \"60s\"\nobserve = true")?;
    let log = daemon.log();
    let warning = "2001:db8:1::fffe/128 stays among the trusted relays";
    ensure!(log.contains(warning), "{log}");
    ensure!(!log.contains("the policy stays as it was"), "{log}");
    bed.send_copy(1, 1)?;
    wait_for_counts(
        &daemon,
        "pass first 1, pass untrusted_relay 1, would_drop duplicate 1",
    )
}

fn reload(daemon: &Daemon, file: &Path, text: &str) -> Result<()> {
    fs::write(file, text)?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for_log(daemon, "policy read again", 1)
}

fn send(bed: &Bed, sent: Sent) -> Result<()> {
    match sent {
        Pair => bed.send_pair(1),
        One(relay) => bed.send_copy(1, relay),
        NextPair => {
            for copy in transmission(1, 100) {
                bed.senders[0].send(&copy)?;
            }
            Ok(())
        }
        Direct => {
            let message = ClientMessage::new(message_type::SOLICIT, [9, 9, 9]).elapsed_time(0);
            let frame = Frame::new(reported::CLIENT, reported::SERVER, message.bytes());
            bed.senders[0].send(&frame.bytes())
        }
    }
}
