//! What the other commands say of a filter that goes on without a daemon.

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::Test;
use crate::bed::{Bed, wait_for_counts};

pub const TESTS: &[(&str, Test)] = &[
    (
        "status, stats and seen read what is left, the same as beside the daemon",
        the_same_as_beside_the_daemon,
    ),
    (
        "check is content with what is left, and says that it is there",
        check,
    ),
];

fn the_same_as_beside_the_daemon() -> Result<()> {
    let bed = Bed::new()?;
    let daemon = bed.run(&["--persist"])?;
    bed.send_pair(1)?;
    wait_for_counts(&daemon, "drop duplicate 1, pass first 1")?;
    let look = || -> Result<[Value; 3]> {
        let (mut stats, mut seen) = (json(&bed, "stats")?, json(&bed, "seen")?);
        // What changes with the moment.
        take(&mut stats, "time")?;
        take(&mut seen, "age_seconds")?;
        Ok([json(&bed, "status")?, stats, seen])
    };
    let [mut status, stats, seen] = look()?;
    ensure!(status["daemon_running"] == true, "{status:#}");
    ensure!(seen["message"] == "solicit", "{seen:#}");
    daemon.stop(Signal::SIGTERM)?;
    status["daemon_running"] = false.into();
    status["daemon_pid"] = Value::Null;
    let left = look()?;
    ensure!(left == [status, stats, seen], "{left:#?}");
    // It counts on.
    bed.send_pair(1)?;
    let stats = json(&bed, "stats")?;
    ensure!(stats.to_string().contains(r#""packets":3"#), "{stats:#}");
    Ok(())
}

fn check() -> Result<()> {
    let bed = Bed::new()?;
    bed.run(&["--persist"])?.stop(Signal::SIGTERM)?;
    let ended = bed.xdp_dedup(&["check", "-i", "server0"])?;
    ensure!(ended.code == Some(0), "{ended:?}");
    for text in ["left in place by --persist", "ok    pin folder"] {
        ensure!(ended.stdout.contains(text), "no `{text}`: {ended:?}");
    }
    Ok(())
}

/// The one object that a command prints.
fn json(bed: &Bed, command: &str) -> Result<Value> {
    let ended = bed.xdp_dedup(&[command, "--json"])?;
    ensure!(ended.code == Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).with_context(|| format!("{ended:?}"))
}

fn take(object: &mut Value, key: &str) -> Result<Value> {
    let value = object.as_object_mut().and_then(|object| object.remove(key));
    value.with_context(|| format!("no {key}"))
}
