//! The kernel program's own trace lines.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

use crate::{
    Test,
    bed::{Bed, wait_for_counts, wait_for_log},
};

pub const TESTS: &[(&str, Test)] = &[
    (
        "run --trace logs each decision, with its interface, verdict, reason and gap",
        traced,
    ),
    ("without --trace no decision is logged", untraced),
    (
        "the next run without --trace logs none, though the one before left the filter there",
        no_longer_traced,
    ),
];

fn traced() -> Result<()> {
    let bed = Bed::new()?;
    let daemon = bed.run(&["--trace"])?;
    for number in 1..=3 {
        bed.send_pair(number)?;
    }
    wait_for_log(&daemon, "decided", 6)?;
    let log = daemon.log();
    let lines = |verdict: &str, reason: &str| {
        let words = [
            "interface=\"server0\"".to_owned(),
            format!("verdict=\"{verdict}\""),
            format!("reason=\"{reason}\""),
        ];
        let lines = log.lines().filter(|line| line.contains("decided"));
        lines
            .filter(|line| words.iter().all(|word| line.contains(word)))
            .map(|line| line.contains("gap_us="))
            .collect::<Vec<_>>()
    };
    ensure!(lines("pass", "first") == [false; 3], "{log}");
    ensure!(lines("drop", "duplicate") == [true; 3], "{log}");
    Ok(())
}

fn untraced() -> Result<()> {
    let bed = Bed::new()?;
    for arguments in [&[][..], &["--trace=false"]] {
        let daemon = bed.run(arguments)?;
        bed.send_pair(1)?;
        wait_for_counts(&daemon, "drop duplicate 1, pass first 1")?;
        let (_, log) = daemon.stop_and_log(Signal::SIGTERM)?;
        ensure!(!log.contains("decided"), "{log}");
    }
    Ok(())
}

fn no_longer_traced() -> Result<()> {
    let bed = Bed::new()?;
    let daemon = bed.run(&["--trace", "--persist"])?;
    bed.send_pair(1)?;
    wait_for_log(&daemon, "decided", 2)?;
    daemon.stop(Signal::SIGTERM)?;
    // Nobody reads what it logs now, and that is no reason to pass or drop anything.
    bed.send_pair(2)?;
    let daemon = bed.run(&["--persist"])?;
    bed.send_pair(3)?;
    wait_for_counts(&daemon, "drop duplicate 3, pass first 3")?;
    let (_, log) = daemon.stop_and_log(Signal::SIGTERM)?;
    ensure!(!log.contains("decided"), "{log}");
    bed.detach_all()?;
    Ok(())
}
