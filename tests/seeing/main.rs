//! `status`, `stats` and `seen` as an operator meets them: beside a running daemon, on what one has
//! left, without anything and without privileges; and the live view in a terminal.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod answers;
mod bed;
mod live;
mod terminal;

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = live::as_another_process() {
        return code;
    }
    let mut trials = answers::trials();
    trials.extend(live::trials());
    testbed::harness::run(trials)
}
