//! `cargo xtask lint`: rustfmt's check, clippy on everything that runs on the host, and clippy on
//! the kernel crate for its own target with core built from source. All three run, also when an
//! earlier one complains; the command fails if any of them did.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{cargo, process, say, setup};

/// Sets up and runs every lint.
pub fn run() -> Result<()> {
    setup::ensure()?;
    let mut complaints = Vec::new();
    for (name, mut lint) in lints()? {
        say(format_args!("{name} ..."));
        if !process::status(&mut lint)?.success() {
            complaints.push(name);
        }
    }
    if !complaints.is_empty() {
        bail!("{} found something to mend (above)", complaints.join(", "));
    }
    Ok(())
}

fn lints() -> Result<[(&'static str, Command); 3]> {
    let mut format = cargo::command("fmt");
    format.args(["--all", "--check"]);

    let mut host = cargo::command("clippy");
    host.args([
        "--workspace",
        "--exclude",
        "xdp-dedup-ebpf",
        "--all-targets",
    ]);
    host.args(["--", "-D", "warnings"]);

    let mut kernel = cargo::kernel_command("clippy")?;
    kernel.args(["--package", "xdp-dedup-ebpf", "--bins"]);
    kernel.args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"]);
    // RUSTC_BOOTSTRAP is part of cargo's fingerprints: sharing the folder would rebuild everything.
    kernel.args(["--target-dir", "target/clippy-ebpf", "--", "-D", "warnings"]);

    Ok([
        ("rustfmt", format),
        ("clippy on the host's crates", host),
        ("clippy on the kernel crate", kernel),
    ])
}
