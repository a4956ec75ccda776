//! What the test binaries without the standard harness have in common: rows become trials, and what
//! this machine cannot run is skipped with its reason.

use std::{process::ExitCode, sync::Once};

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

/// Runs the trials that the command line asks for.
pub fn run(trials: Vec<Trial>) -> ExitCode {
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The same, one after the other: for trials that want the CPUs to themselves.
pub fn run_one_by_one(trials: Vec<Trial>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A trial by this name: a sentence that says what holds.
pub fn trial(name: impl Into<String>, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, || {
        test().map_err(|error| Failed::from(format!("{error:#}")))
    })
}

/// The same trial, ignored where this process may not load BPF programs.
pub fn needs_root(trial: Trial) -> Trial {
    static SAID: Once = Once::new();
    if nix::unistd::geteuid().is_root() {
        return trial;
    }
    SAID.call_once(|| {
        eprintln!("kernel tests skipped: they load BPF programs, which takes root");
    });
    trial.with_ignored_flag(true)
}
