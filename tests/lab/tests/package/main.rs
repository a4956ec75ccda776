//! The Debian package: what is in it, and how its service lives on a machine that systemd boots, from
//! its installation to its removal.

mod content;
mod install;
mod package;
mod sandbox;
mod server;
mod service;

use std::process::ExitCode;

use anyhow::Result;
use libtest_mimic::Trial;
use testbed::harness::{needs_root, run, trial};

/// What a trial runs.
type Test = fn() -> Result<()>;

fn main() -> ExitCode {
    let has_package = package::path().map(drop);
    let mut trials = unless_lacking(&has_package, rows(content::TESTS));
    let mut on_a_server = rows(install::TESTS);
    on_a_server.extend(rows(service::TESTS));
    on_a_server.extend(sandbox::trials());
    let has_server = has_package.and_then(|()| server::can_be_had());
    trials.extend(
        unless_lacking(&has_server, on_a_server)
            .into_iter()
            .map(needs_root),
    );
    run(trials)
}

fn rows(tests: &[(&'static str, Test)]) -> Vec<Trial> {
    tests
        .iter()
        .map(|&(name, test)| trial(name, test))
        .collect()
}

/// The trials, ignored where something lacks that they need.
fn unless_lacking(need: &Result<()>, trials: Vec<Trial>) -> Vec<Trial> {
    let Err(lack) = need else {
        return trials;
    };
    eprintln!("{} tests are skipped: {lack:#}", trials.len());
    let ignored = trials
        .into_iter()
        .map(|trial| trial.with_ignored_flag(true));
    ignored.collect()
}
