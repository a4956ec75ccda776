//! Prometheus, in which tests try the dashboard, and promtool, which checks metrics and alert rules.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::QUESTION;
use super::debian::{self, Wanted};
use crate::{process, workspace};

/// What the tests run.
const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];

/// Takes both out of Debian's package, unless the machine has them. Nothing is installed or started.
pub fn ensure() -> Result<()> {
    let place = |program: &str| workspace::setup_bin().join(program);
    let answers =
        |program: &str| process::capture(Command::new(program).arg("--version"), QUESTION).is_ok();
    let is_there = |program: &&str| answers(program) || answers(&place(program).to_string_lossy());
    if PROGRAMS.iter().all(is_there) {
        return Ok(());
    }
    let staging = workspace::setup_dir().join("prometheus");
    let wanted = Wanted {
        suite: own_suite()?,
        package: "prometheus",
        version: None,
        megabytes: 20,
        path: "usr/bin",
    };
    let fetched = debian::fetch(&staging, &wanted).and_then(|folder| {
        PROGRAMS.into_iter().try_for_each(|program| {
            let place = place(program);
            fs::rename(folder.join(program), &place)
                .with_context(|| format!("cannot move {program} to {}", place.display()))
        })
    });
    let cleared = fs::remove_dir_all(&staging)
        .with_context(|| format!("cannot remove {}", staging.display()));
    fetched.and(cleared)
}

/// The suite that this machine runs, whose packages fit it.
fn own_suite() -> Result<String> {
    const RELEASE: &str = "/etc/os-release";
    let text = fs::read_to_string(RELEASE).with_context(|| format!("cannot read {RELEASE}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(str::to_owned)
        .with_context(|| format!("{RELEASE} names no suite"))
}
