//! Never a gap, and policy live: what `run --persist` leaves, how the next `run` takes it over,
//! what SIGHUP changes, what `detach` removes. Under a steady stream of pairs, no first copy may be
//! lost and no second one get through.

mod bed;
mod detach;
mod folder;
mod gap;
mod interfaces;
mod killed;
mod layout;
mod left;
mod live;
mod modes;
mod object;
mod refusing;
mod stream;
mod takeover;
mod traced;
mod upgrade;

use std::process::ExitCode;

use anyhow::Result;
use testbed::harness::{needs_root, run_one_by_one, trial};

/// What a trial runs.
type Test = fn() -> Result<()>;

fn main() -> ExitCode {
    let mut trials = vec![trial(
        "a change of the maps' layout changes its number",
        layout::the_number_stands_for_this_layout,
    )];
    for tests in [
        gap::TESTS,
        takeover::TESTS,
        interfaces::TESTS,
        modes::TESTS,
        left::TESTS,
        detach::TESTS,
        killed::TESTS,
        refusing::TESTS,
    ] {
        trials.extend(
            tests
                .iter()
                .map(|&(name, test)| needs_root(trial(name, test))),
        );
    }
    trials.extend(live::trials().into_iter().map(needs_root));
    // A stream wants a CPU to itself.
    run_one_by_one(trials)
}
