//! `status`, `stats` and `seen` as an operator meets them: beside a running daemon, on what one has
//! left, without anything and without privileges; and the live view in a terminal.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod bed;
mod live;
mod seen;
mod stats;
mod status;
mod terminal;
mod without;

use std::process::ExitCode;

use anyhow::Result;
use testbed::harness::{needs_root, trial};

/// What a trial runs.
type Test = fn() -> Result<()>;

fn main() -> ExitCode {
    if let Some(code) = live::as_another_process() {
        return code;
    }
    let tests = [status::TESTS, stats::TESTS, seen::TESTS, without::TESTS];
    let mut trials: Vec<_> = tests
        .into_iter()
        .flatten()
        .map(|&(name, test)| needs_root(trial(name, test)))
        .collect();
    trials.extend(live::trials());
    testbed::harness::run(trials)
}
