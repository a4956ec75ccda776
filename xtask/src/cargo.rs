//! Cargo commands in the checkout, by the cargo that runs us: under rustup it exports
//! RUSTUP_TOOLCHAIN, so the whole tree of children is of the toolchain that `setup` checks.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::workspace;

/// A cargo command that runs in the checkout's top folder.
pub fn command(subcommand: &str) -> Command {
    // Set by `cargo run`, which is what `cargo xtask` is.
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.arg(subcommand).current_dir(workspace::root());
    command
}

/// A cargo command that compiles core for the kernel: it needs what the set-up made.
/// xdp-dedup/build.rs gives the same environment to the build that it starts.
pub fn kernel_command(subcommand: &str) -> Result<Command> {
    let mut command = command(subcommand);
    prepend_path(&mut command, &workspace::setup_bin())?;
    command
        // The pinned release is a stable one, and build-std is unstable.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("__CARGO_TESTS_ONLY_SRC_ROOT", workspace::core_source());
    Ok(command)
}

/// Puts a folder first on the command's PATH.
pub fn prepend_path(command: &mut Command, dir: &Path) -> Result<()> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = [dir.to_owned()].into_iter().chain(env::split_paths(&path));
    let path = env::join_paths(dirs)
        .with_context(|| format!("{} cannot stand in a PATH", dir.display()))?;
    command.env("PATH", path);
    Ok(())
}
