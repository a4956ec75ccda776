//! `cargo xtask bench`: the build, then `xdp-dedup bench`, which measures what a frame costs on
//! this machine beside an empty program. Arguments go to it, and its exit code is ours.

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::commands::build;
use crate::{process, workspace};

/// Builds and measures; `args` go to `xdp-dedup bench`.
pub fn run(args: &[OsString]) -> Result<ExitCode> {
    build::run()?;
    let mut bench = Command::new(workspace::release_binary());
    Ok(process::exit_code(process::status(
        bench.arg("bench").args(args),
    )?))
}
