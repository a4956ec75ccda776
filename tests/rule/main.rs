//! The rule, line by line: each case runs through the decision in userspace and through the kernel
//! program, and both must give its verdicts, its reasons and exactly its counters.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod bounds;
mod case;
mod clocks;
mod copies;
mod datagrams;
mod fragments;
mod messages;
mod policies;

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use testbed::harness::{self, needs_root, trial};

use crate::case::load_kernel;

fn main() -> ExitCode {
    let cases = [
        datagrams::cases(),
        fragments::cases(),
        messages::cases(),
        bounds::cases(),
        copies::cases(),
        clocks::cases(),
        policies::cases(),
    ]
    .concat();
    let kernel = Arc::new(Mutex::new(None));
    let trials = cases.into_iter().flat_map(|case| {
        let (same, kernel) = (case.clone(), kernel.clone());
        [
            trial(format!("userspace: {}", case.name), move || {
                case.in_userspace()
            }),
            needs_root(trial(format!("kernel: {}", same.name), move || {
                // A case that failed left nothing behind that the next does not put right.
                let mut kernel = kernel.lock().unwrap_or_else(PoisonError::into_inner);
                let kernel = match &mut *kernel {
                    Some(kernel) => kernel,
                    none => none.insert(load_kernel()?),
                };
                same.in_the_kernel(kernel)
            })),
        ]
    });
    harness::run(trials.collect())
}
