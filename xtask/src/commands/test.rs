//! `cargo xtask test`: the build, then every test of the workspace but for the kernel crate, whose
//! decisions live in xdp-dedup-common and whose object the other tests load; then the lab's short
//! run. Exits as cargo test does. Tests that load the program into the kernel need root; without it
//! they report themselves as skipped.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;

use crate::commands::{build, lab, package};
use crate::{cargo, process, say, setup, workspace};

/// Builds and tests; `args` go to cargo test, and then the lab is left out.
pub fn run(args: &[OsString]) -> Result<ExitCode> {
    if !process::is_root() {
        say(
            "not root: kernel tests will be reported as skipped, because only root \
             may load an XDP program and make network namespaces",
        );
    }
    build::run()?;
    setup::ensure_for_tests()?;
    let lab_lacks = lab::missing();
    if args.is_empty() && lab_lacks.is_none() {
        // The lab has tests of its own.
        lab::set_up_short()?;
    }
    if args.is_empty() {
        // It has tests of its own.
        match package::can_be_made() {
            Ok(()) => drop(package::make()?),
            Err(error) => say(format_args!(
                "the package's tests will be reported as skipped: {error:#}"
            )),
        }
    }
    let mut test = cargo::command("test");
    test.args(["--workspace", "--exclude", "xdp-dedup-ebpf"])
        .args(args);
    cargo::prepend_path(&mut test, &workspace::setup_bin())?;
    let status = process::status(&mut test)?;
    if !status.success() || !args.is_empty() {
        return Ok(process::exit_code(status));
    }
    match lab_lacks {
        None => lab::run(&lab::Args::short()),
        Some(what) => {
            say(format_args!("the lab is skipped: {what}"));
            Ok(ExitCode::SUCCESS)
        }
    }
}
