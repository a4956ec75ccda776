//! Who listens: one at a time, for as long as there is something to be heard, and at nobody's cost.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use testbed::binary::binary;
use testbed::wait::until;

use crate::{
    Test,
    bed::{Bed, copies, wait_for_counts},
    follower::{Follower, maps_of},
};

pub const TESTS: &[(&str, Test)] = &[
    (
        "a ring that nobody empties changes no verdict, and all that is not shown is told as lost",
        full_ring,
    ),
    (
        "a listener that is killed is listened for no longer than its lease, and leaves the next one \
         nothing",
        killed,
    ),
    (
        "a second listener is refused, until the first one is gone",
        second,
    ),
    (
        "what run --persist left is followed without a daemon, and beside the next one",
        persisted,
    ),
    (
        "the end of the filter is the end of the listener",
        filter_gone,
    ),
    ("another table is the end of the listener", another_table),
    (
        "where nothing is attached there is nothing to follow",
        nothing,
    ),
    ("a reader who has enough is no error", enough),
];

/// Sends the second copy of the first message so many times.
fn send_duplicates(bed: &Bed, frames: usize) -> Result<()> {
    let copy = &copies(1)[1];
    (0..frames).try_for_each(|_| bed.senders[0].send(copy))
}

fn full_ring() -> Result<()> {
    const DROPS: usize = 6000;
    let bed = Bed::new()?;
    let daemon = bed.run(&[])?;
    let mut follower = Follower::start_unread(&bed, &["--json"])?;
    bed.send_copy(1, 0)?;
    send_duplicates(&bed, DROPS)?;
    wait_for_counts(&daemon, &format!("drop duplicate {DROPS}, pass first 1"))?;
    let lost = daemon.metrics()?.value("xdp_dedup_events_lost_total", &[]);
    follower.read();
    let end = follower.stop(Signal::SIGTERM)?;
    ensure!(end.code == Some(0) && end.stderr.is_empty(), "{end:?}");
    let (mut shown, mut said) = (0, 0);
    for line in &end.lines {
        let line: Value = serde_json::from_str(line)?;
        match line["lost"].as_u64() {
            Some(lost) => said += lost as usize,
            None => shown += 1,
        }
    }
    ensure!(said > 0 && shown > 0, "{shown} shown, {said} lost");
    ensure!(shown + said == DROPS, "{shown} shown, {said} lost");
    ensure!(lost == Some(said as f64), "{lost:?}, not {said}");
    let stats = bed.xdp_dedup(&["stats", "--json"])?;
    let stats: Value = serde_json::from_str(&stats.stdout)?;
    ensure!(stats["events_lost"] == said, "{stats:#}");
    Ok(())
}

fn killed() -> Result<()> {
    let bed = Bed::new()?;
    let daemon = bed.run(&[])?;
    let maps = maps_of(&bed, &daemon)?;
    let follower = Follower::start(&bed, &["--json", "--verdict", "drop,pass"])?;
    bed.send_pair(1)?;
    follower.json()?;
    follower.json()?;
    follower.signal(Signal::SIGSTOP)?;
    // For it to find, if it only could.
    send_duplicates(&bed, 10)?;
    wait_for_counts(&daemon, "drop duplicate 11, pass first 1")?;
    ensure!(!maps.wanted_events()?.is_nothing());
    let end = follower.stop(Signal::SIGKILL)?;
    ensure!(end.code.is_none(), "{end:?}");
    until("the end of the lease", || {
        send_duplicates(&bed, 1)?;
        Ok(maps.wanted_events()?.is_nothing().then_some(()))
    })?;
    let follower = Follower::start(&bed, &["--json"])?;
    bed.send_pair(2)?;
    let line = follower.json()?;
    ensure!(line["xid"] == "000002", "one of before: {line}");
    let end = follower.stop(Signal::SIGTERM)?;
    ensure!(end.lines.is_empty(), "{end:?}");
    ensure!(maps.wanted_events()?.is_nothing());
    ensure!(maps.lost_events()? == 0);
    Ok(())
}

fn second() -> Result<()> {
    let bed = Bed::new()?;
    let _daemon = bed.run(&[])?;
    let follower = Follower::start(&bed, &["--json"])?;
    let refused = bed.xdp_dedup(&["events"])?;
    let expected = format!(
        "xdp-dedup: another `xdp-dedup events` (process {}) follows already, and the kernel's ring \
         buffer has one reader: stop it first\n",
        follower.pid()
    );
    ensure!(refused.stderr == expected, "{refused:?}");
    ensure!(
        refused.code == Some(1) && refused.stdout.is_empty(),
        "{refused:?}"
    );
    bed.send_pair(1)?;
    follower.json()?;
    follower.stop(Signal::SIGKILL)?;
    let follower = Follower::start(&bed, &["--json"])?;
    bed.send_pair(2)?;
    follower.json()?;
    Ok(())
}

fn persisted() -> Result<()> {
    let bed = Bed::new()?;
    bed.run(&["--persist"])?.stop(Signal::SIGTERM)?;
    let follower = Follower::start(&bed, &["--json"])?;
    bed.send_pair(1)?;
    ensure!(follower.json()?["xid"] == "000001");
    let daemon = bed.run(&["--persist"])?;
    bed.send_pair(2)?;
    ensure!(follower.json()?["xid"] == "000002");
    daemon.stop(Signal::SIGTERM)?;
    bed.send_pair(3)?;
    ensure!(follower.json()?["xid"] == "000003");
    bed.detach_all()?;
    let end = follower.end()?;
    ensure!(end.code == Some(1) && end.lines.is_empty(), "{end:?}");
    Ok(())
}

fn filter_gone() -> Result<()> {
    let bed = Bed::new()?;
    let daemon = bed.run(&[])?;
    let follower = Follower::start(&bed, &["--json"])?;
    bed.send_pair(1)?;
    wait_for_counts(&daemon, "drop duplicate 1, pass first 1")?;
    daemon.stop(Signal::SIGTERM)?;
    let end = follower.end()?;
    ensure!(end.code == Some(1) && end.lines.len() == 1, "{end:?}");
    let expected = "xdp-dedup: the filter is gone: its `run` has ended\n";
    ensure!(end.stderr == expected, "{end:?}");

    // Killed, it leaves its maps, but no filter.
    let daemon = bed.run(&[])?;
    let follower = Follower::start(&bed, &["--json"])?;
    daemon.stop(Signal::SIGKILL)?;
    let end = follower.end()?;
    ensure!(end.code == Some(1), "{end:?}");
    ensure!(end.stderr.contains("not attached any more"), "{end:?}");
    let end = bed.xdp_dedup(&["events"])?;
    ensure!(end.code == Some(1) && end.stdout.is_empty(), "{end:?}");
    ensure!(end.stderr.contains("not attached any more"), "{end:?}");
    Ok(())
}

fn another_table() -> Result<()> {
    let bed = Bed::new()?;
    bed.run(&["--persist"])?.stop(Signal::SIGTERM)?;
    let follower = Follower::start(&bed, &["--json"])?;
    let _daemon = bed.run(&["--persist", "--capacity", "4096"])?;
    let end = follower.end()?;
    ensure!(end.code == Some(1), "{end:?}");
    ensure!(
        end.stderr.contains("the filter is another one now"),
        "{end:?}"
    );
    // Its place is another one too.
    let follower = Follower::start(&bed, &["--json"])?;
    bed.send_pair(1)?;
    follower.json()?;
    Ok(())
}

fn nothing() -> Result<()> {
    let bed = Bed::new()?;
    for arguments in [&["events"][..], &["events", "--json"]] {
        let end = bed.xdp_dedup(arguments)?;
        ensure!(end.code == Some(1) && end.stdout.is_empty(), "{end:?}");
        let expected = "xdp-dedup: nothing is attached in this network namespace: start the filter \
                        with `xdp-dedup run -i IFACE`\n";
        ensure!(end.stderr == expected, "{end:?}");
    }
    let end = bed.xdp_dedup(&["events", "--verdict", "drop", "--reason", "first"])?;
    ensure!(
        end.code == Some(2) && end.stderr.lines().count() == 1,
        "{end:?}"
    );
    Ok(())
}

fn enough() -> Result<()> {
    let bed = Bed::new()?;
    let daemon = bed.run(&[])?;
    let maps = maps_of(&bed, &daemon)?;
    let mut command = bed.command("bash".as_ref());
    command
        .arg("-c")
        .arg("\"$0\" events --json | head -n 1; exit ${PIPESTATUS[0]}")
        .arg(binary()?)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    until("a listener", || {
        Ok((!maps.wanted_events()?.is_nothing()).then_some(()))
    })?;
    bed.send_copy(1, 0)?;
    until("the end", || {
        send_duplicates(&bed, 1)?;
        child.try_wait().context("cannot wait")
    })?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(output.stderr.is_empty(), "{output:?}");
    ensure!(String::from_utf8(output.stdout)?.lines().count() == 1);
    ensure!(maps.wanted_events()?.is_nothing());
    Ok(())
}
