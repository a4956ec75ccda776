//! bpf-linker, which makes one loadable object with BTF of the kernel crate's bitcode.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::QUESTION;
use crate::{cargo, process, say, workspace};

/// The last line of releases that loads rustc's own libLLVM; later ones want an LLVM of their own.
const VERSION: &str = "0.10.4";

/// Installs bpf-linker, unless it already answers with the right version.
pub fn ensure() -> Result<()> {
    if answers() {
        return Ok(());
    }
    process::require(&["cc"]).context("bpf-linker cannot be compiled")?;
    say(format_args!(
        "compiling bpf-linker {VERSION} (once; it takes a minute or two) ..."
    ));
    let build_dir = workspace::setup_dir().join("build");
    let mut install = cargo::command("install");
    install
        .args(["bpf-linker", "--version", VERSION, "--locked"])
        // A binary that does not answer must not count as installed.
        .arg("--force")
        .arg("--root")
        .arg(workspace::setup_dir())
        .arg("--target-dir")
        .arg(&build_dir);
    // Without this cargo asks the developer to put the folder on the PATH, which nobody needs to.
    cargo::prepend_path(&mut install, &workspace::setup_bin())?;
    process::run(&mut install).with_context(|| {
        format!(
            "bpf-linker {VERSION} could not be installed (it needs a C compiler and access to the \
             crate registry; a second try goes on where this one stopped)"
        )
    })?;
    fs::remove_dir_all(&build_dir)
        .with_context(|| format!("cannot remove {}", build_dir.display()))?;
    if !answers() {
        bail!(
            "{} was just installed but does not answer with version {VERSION}",
            workspace::setup_bin().join("bpf-linker").display()
        );
    }
    Ok(())
}

fn answers() -> bool {
    let mut question = Command::new(workspace::setup_bin().join("bpf-linker"));
    process::capture(question.arg("--version"), QUESTION)
        .is_ok_and(|answer| answer.split_whitespace().nth(1) == Some(VERSION))
}
