//! Killed between any two steps: what is left must be something that the next `run` or `detach` copes
//! with, and where there was a filter before, it must go on.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use testbed::binary::binary;
use testbed::veth::XdpMode;

use crate::Test;
use crate::bed::{Bed, wait_for_counts};
use crate::stream::Stream;
use crate::traced::{End, run_until};

pub const TESTS: &[(&str, Test)] = &[
    (
        "a first run --persist, killed at each of its steps, is no problem for the next command",
        first_run,
    ),
    (
        "a run that takes over, killed at each of its steps: no first copy is lost, no second passes",
        || taking_over(&["--persist"]),
    ),
    (
        "the same of a run with another --capacity, but for what fresh tables do not know",
        another_capacity,
    ),
    (
        "a run without --persist that takes over, killed at each of its steps, is no problem",
        || taking_away(&[]),
    ),
    (
        "a run in another mode, killed at each of its steps, is no problem",
        || taking_away(&["--persist", "--mode", "generic"]),
    ),
    (
        "detach, killed at each of its steps, is finished by the next one",
        detaching,
    ),
];

/// No more steps than this.
const MOST: usize = 300;

/// Calls `body` with 1, 2, ... until it tells that the command came to its end.
fn each_step(mut body: impl FnMut(usize) -> Result<End>) -> Result<usize> {
    for n in 1..MOST {
        match body(n)? {
            End::Killed => {}
            End::Exited(0) => {
                // What is traced does change something.
                ensure!(n > 3, "only {n} steps");
                return Ok(n);
            }
            End::Exited(code) => anyhow::bail!("exit code {code} at step {n}"),
        }
    }
    anyhow::bail!("more than {MOST} steps")
}

/// `run` with these arguments, killed at its n-th step.
fn killed_run(bed: &Bed, n: usize, arguments: &[&str]) -> Result<End> {
    let mut command = bed.command(&binary()?);
    command
        .args(["run", "--metrics", "off"])
        .args(Bed::arguments(arguments));
    run_until(n, &mut command)
}

fn first_run() -> Result<()> {
    let bed = Bed::new()?;
    let steps = each_step(|n| {
        let end = killed_run(&bed, n, &["--persist"])?;
        if n % 2 == 0 {
            let daemon = bed.run(&["--persist"])?;
            bed.send_pair(n as u32)?;
            let counted = daemon.metrics()?.packets("server0").len();
            ensure!(counted <= 2, "step {n}: {}", daemon.log());
            daemon.stop(Signal::SIGTERM)?;
        }
        bed.detach_all()?;
        Ok(end)
    })?;
    eprintln!("{steps} steps");
    Ok(())
}

fn taking_over(arguments: &[&str]) -> Result<()> {
    let mut bed = Bed::new()?;
    bed.run(arguments)?.stop(Signal::SIGTERM)?;
    let stream = Stream::start(bed.senders.remove(0), &bed.ends[0])?;
    let steps = each_step(|n| {
        let end = killed_run(&bed, n, arguments)?;
        ensure!(
            bed.ends[0].xdp()? == Some(XdpMode::Native),
            "step {n}: the filter is gone"
        );
        Ok(end)
    })?;
    eprintln!("{steps} steps");
    let daemon = bed.run(arguments)?;
    stream.expect_no_gap_counted_by(&daemon)?;
    Ok(())
}

fn another_capacity() -> Result<()> {
    let mut bed = Bed::new()?;
    bed.run(&["--persist"])?.stop(Signal::SIGTERM)?;
    let stream = Stream::start(bed.senders.remove(0), &bed.ends[0])?;
    let mut changes = 0;
    let steps = each_step(|n| {
        let capacity = (2048 + n).to_string();
        let end = killed_run(&bed, n, &["--persist", "--capacity", &capacity])?;
        changes += 1;
        ensure!(
            bed.ends[0].xdp()? == Some(XdpMode::Native),
            "step {n}: the filter is gone"
        );
        ensure!(bed.links()?.len() == 1, "step {n}");
        // Whoever looks finds maps, though no interface may be noted yet in fresh ones.
        let status = bed.xdp_dedup(&["status"])?;
        ensure!(status.stdout.contains("table "), "step {n}: {status:?}");
        Ok(end)
    })?;
    eprintln!("{steps} steps");
    let outcome = stream.finish()?;
    ensure!(outcome.lost.is_empty(), "lost: {:?}", outcome.lost);
    // A pair between whose copies the tables changed.
    ensure!(
        outcome.doubled.len() <= changes,
        "doubled: {:?}",
        outcome.doubled
    );
    bed.detach_all().map(drop)
}

fn taking_away(arguments: &[&str]) -> Result<()> {
    let bed = Bed::new()?;
    let steps = each_step(|n| {
        bed.run(&["--persist"])?.stop(Signal::SIGTERM)?;
        let end = killed_run(&bed, n, arguments)?;
        if n % 2 == 0 {
            bed.detach_all()?;
        } else {
            let daemon = bed.run(&[])?;
            bed.send_copy(n as u32, 0)?;
            bed.send_copy(n as u32, 1)?;
            bed.expect_xdp(&[Some(XdpMode::Native)])?;
            daemon.stop(Signal::SIGTERM)?;
        }
        bed.expect_nothing()?;
        Ok(end)
    })?;
    eprintln!("{steps} steps");
    Ok(())
}

fn detaching() -> Result<()> {
    let bed = Bed::new()?;
    let steps = each_step(|n| {
        bed.run(&["--persist"])?.stop(Signal::SIGTERM)?;
        let mut command = bed.command(&binary()?);
        command.args(["detach", "--all"]);
        let end = run_until(n, &mut command)?;
        if n % 2 == 0 {
            let daemon = bed.run(&["--persist"])?;
            bed.send_pair(n as u32)?;
            wait_for_counts(&daemon, "drop duplicate 1, pass first 1")?;
            daemon.stop(Signal::SIGTERM)?;
        }
        bed.detach_all()?;
        Ok(end)
    })?;
    eprintln!("{steps} steps");
    Ok(())
}
