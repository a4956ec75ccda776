//! `xdp-dedup check` on machines that `run` cannot work on, each in its own way: what it says of them,
//! and what it advises.

mod interfaces;
mod machine;
mod report;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut trials = machine::trials();
    trials.extend(interfaces::trials());
    testbed::harness::run(trials)
}
