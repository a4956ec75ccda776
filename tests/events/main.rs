//! `events` as an operator meets it: what it shows, what it does not show, and that nothing it does
//! changes what becomes of a frame. And the kernel program's own trace lines.

#[expect(dead_code, reason = "of this bed not all is wanted here")]
#[path = "../persist/bed.rs"]
mod bed;
mod follower;
mod lines;
mod listeners;
mod traced;

use std::process::ExitCode;

use anyhow::Result;
use testbed::harness::{needs_root, run, trial};

/// What a trial runs.
type Test = fn() -> Result<()>;

fn main() -> ExitCode {
    let tests = [lines::TESTS, listeners::TESTS, traced::TESTS].concat();
    let trials = tests
        .into_iter()
        .map(|(name, test)| needs_root(trial(name, test)));
    run(trials.collect())
}
