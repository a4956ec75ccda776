//! Never a gap.

use std::fs;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use testbed::binary::binary;
use testbed::veth::XdpMode;

use crate::Test;
use crate::bed::{Bed, WINDOW, program, wait_for_log};
use crate::stream::Stream;
use crate::upgrade::other_build;

pub const TESTS: &[(&str, Test)] = &[
    (
        "killed with -9 and started again: no first copy is lost, no second one passes",
        || restarted_after(Signal::SIGKILL, &[]),
    ),
    (
        "stopped and started again: no first copy is lost, no second one passes",
        || restarted_after(Signal::SIGTERM, &[]),
    ),
    ("the same in generic mode", || {
        restarted_after(Signal::SIGKILL, &["--mode", "generic"])
    }),
    (
        "upgraded to a differently built program: no first copy is lost, no second one passes",
        upgraded,
    ),
    (
        "at a SIGHUP every 50 ms no first copy is lost, and no second one passes",
        reloaded_all_the_time,
    ),
    (
        "a stream without a filter shows that the stream would show a gap",
        the_stream_shows_a_gap,
    ),
];

/// Restarts of each.
const ROUNDS: usize = 5;

fn restarted_after(signal: Signal, arguments: &[&str]) -> Result<()> {
    let mut bed = Bed::new()?;
    let arguments = [&["--persist"], arguments].concat();
    let mut daemon = bed.run(&arguments)?;
    let stream = Stream::start(bed.senders.remove(0), &bed.ends[0])?;
    for _ in 0..ROUNDS {
        stream.wait_for(200)?;
        let status = daemon.stop(signal)?;
        ensure!(signal == Signal::SIGKILL || status.success(), "{status}");
        ensure!(bed.ends[0].xdp()?.is_some(), "the filter is gone");
        // Nobody is there now.
        stream.wait_for(200)?;
        daemon = bed.run(&arguments)?;
        wait_for_log(&daemon, "taken over, without a gap", 1)?;
    }
    stream.wait_for(200)?;
    stream.expect_no_gap_counted_by(&daemon)?;
    ensure!(!daemon.log().contains("anew"), "{}", daemon.log());
    Ok(())
}

fn upgraded() -> Result<()> {
    let mut bed = Bed::new()?;
    let folder = tempfile::tempdir()?;
    let other = folder.path().join("xdp-dedup");
    other_build(&binary()?, &other)?;
    let mut daemon = bed.run(&["--persist"])?;
    let stream = Stream::start(bed.senders.remove(0), &bed.ends[0])?;
    for round in 0..ROUNDS {
        let before = program(&daemon)?;
        stream.wait_for(200)?;
        let signal = [Signal::SIGTERM, Signal::SIGKILL][round % 2];
        daemon.stop(signal)?;
        let next = if round % 2 == 0 { &other } else { &binary()? };
        daemon = bed.run_of(next, &["--persist"])?;
        let after = program(&daemon)?;
        ensure!(before.0 != after.0, "the same program: {after:?}");
        ensure!(before.1 != after.1, "the same tag: {after:?}");
    }
    stream.wait_for(200)?;
    stream.expect_no_gap_counted_by(&daemon)?;
    Ok(())
}

/// Each file trusts both relays, all of them by other prefixes, and what is untrusted is dropped.
fn reloaded_all_the_time() -> Result<()> {
    const FILES: [&str; 4] = [
        "trusted-relay = [\"2001:db8:1::fffe\", \"2001:db8:1::ffff\"]\nuntrusted = \"drop\"\n",
        "trusted-relay = \"2001:db8:1::/64\"\nuntrusted = \"drop\"\n",
        "",
        "trusted-relay = [\"2001:db8:1::fffe/127\", \"2001:db8:2::/64\"]\nuntrusted = \"drop\"\n",
    ];
    const RELOADS: usize = 60;
    let mut bed = Bed::new()?;
    let file = tempfile::NamedTempFile::new()?;
    let write = |number: usize| {
        let observe = "observe = false\n";
        let text = format!(
            "window = \"{}\"\n{}{}",
            [WINDOW, "50s"][number % 2],
            FILES[number % FILES.len()],
            observe
        );
        fs::write(&file, text)
    };
    write(0)?;
    let path = file.path().to_string_lossy().into_owned();
    let daemon = bed.run(&["--persist", "--config", &path])?;
    let stream = Stream::start(bed.senders.remove(0), &bed.ends[0])?;
    for number in 1..=RELOADS {
        write(number)?;
        daemon.signal(Signal::SIGHUP)?;
        // 50 ms.
        stream.wait_for(100)?;
        wait_for_log(&daemon, "policy read again", number)?;
    }
    stream.expect_no_gap_counted_by(&daemon)?;
    Ok(())
}

fn the_stream_shows_a_gap() -> Result<()> {
    let mut bed = Bed::new()?;
    let daemon = bed.run(&[])?;
    let stream = Stream::start(bed.senders.remove(0), &bed.ends[0])?;
    stream.wait_for(100)?;
    // Without --persist.
    daemon.stop(Signal::SIGTERM)?;
    bed.expect_nothing()?;
    stream.wait_for(100)?;
    let daemon = bed.run(&[])?;
    bed.expect_xdp(&[Some(XdpMode::Native)])?;
    stream.wait_for(100)?;
    let outcome = stream.finish()?;
    ensure!(outcome.lost.is_empty(), "{} were lost", outcome.lost.len());
    let doubled = outcome.doubled.len();
    ensure!(
        (100..outcome.messages as usize - 100).contains(&doubled),
        "{doubled} of {} arrived twice: {}",
        outcome.messages,
        daemon.log()
    );
    Ok(())
}
