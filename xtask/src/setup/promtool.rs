//! promtool, with which a test checks the metrics as Prometheus' own linter sees them.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::QUESTION;
use super::debian::{self, Wanted};
use crate::{process, workspace};

/// Takes promtool out of Debian's package, unless the machine has one.
pub fn ensure() -> Result<()> {
    let place = workspace::setup_bin().join("promtool");
    let answers =
        |program: &str| process::capture(Command::new(program).arg("--version"), QUESTION).is_ok();
    if answers("promtool") || answers(&place.to_string_lossy()) {
        return Ok(());
    }
    let staging = workspace::setup_dir().join("promtool");
    let wanted = Wanted {
        suite: own_suite()?,
        package: "prometheus",
        version: None,
        megabytes: 60,
        path: "usr/bin/promtool",
    };
    let fetched = debian::fetch(&staging, &wanted).and_then(|promtool| {
        fs::rename(&promtool, &place)
            .with_context(|| format!("cannot move it to {}", place.display()))
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
