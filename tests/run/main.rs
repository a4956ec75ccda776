//! `xdp-dedup run` as an operator meets it: what it refuses and how it says so, and what it does
//! while it runs. What it lets through is tested in `veth` and `rule`.

mod life;
mod refusals;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut trials = refusals::trials();
    trials.extend(life::trials());
    testbed::harness::run(trials)
}
