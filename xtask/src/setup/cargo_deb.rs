//! cargo-deb, which makes the Debian package.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use super::QUESTION;
use crate::{cargo, process, say, workspace};

const VERSION: &str = "3.8.0";

/// Installs cargo-deb, unless it already answers with the right version.
pub fn ensure() -> Result<()> {
    if answers() {
        return Ok(());
    }
    say(format_args!(
        "compiling cargo-deb {VERSION} (once; it takes a minute) ..."
    ));
    let build_dir = workspace::setup_dir().join("build-cargo-deb");
    let mut install = cargo::command("install");
    install
        .args(["cargo-deb", "--version", VERSION, "--locked", "--force"])
        // It packs one file in a second: what optimising it takes is never won back. xz is the
        // machine's.
        .args(["--debug", "--no-default-features"])
        .arg("--root")
        .arg(workspace::setup_dir())
        .arg("--target-dir")
        .arg(&build_dir);
    // Without this cargo asks the developer to put the folder on the PATH, which nobody needs to.
    cargo::prepend_path(&mut install, &workspace::setup_bin())?;
    process::run(&mut install).with_context(|| {
        format!(
            "cargo-deb {VERSION} could not be installed (it needs access to the crate registry)"
        )
    })?;
    fs::remove_dir_all(&build_dir).with_context(|| format!("cannot remove {}", build_dir.display()))
}

fn answers() -> bool {
    let mut question = Command::new(workspace::setup_bin().join("cargo-deb"));
    process::capture(question.arg("--version"), QUESTION)
        .is_ok_and(|answer| answer.split_whitespace().nth(1) == Some(VERSION))
}
