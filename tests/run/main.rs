//! `xdp-dedup run` as an operator meets it: what it refuses and how it says so, and what it does
//! while it runs. What it lets through is tested in `veth` and `rule`.

mod example;
mod life;
mod refusals;
mod supervised;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut trials = refusals::trials();
    trials.extend(life::trials());
    trials.extend(supervised::trials());
    trials.extend(example::trials());
    testbed::harness::run(trials)
}
