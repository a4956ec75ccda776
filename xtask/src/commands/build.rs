//! `cargo xtask build`: the set-up, then a release build of xdp-dedup, which leaves
//! target/release/xdp-dedup. The package's build script compiles the kernel program and embeds
//! it, so after one set-up a plain `cargo build` does as well. Beside it lies a copy of the kernel
//! program, target/release/xdp_dedup.bpf.o, for tools that load it themselves.

use std::fs;

use anyhow::{Context as _, Result};
use xdp_dedup_lab::kernel_object;

use crate::{cargo, process, setup, workspace};

/// Sets up and builds.
pub fn run() -> Result<()> {
    setup::ensure()?;
    process::run(cargo::command("build").args(["--release", "--package", "xdp-dedup"]))?;
    let binary = workspace::release_binary();
    let object = binary.with_file_name(kernel_object::NAME);
    fs::write(&object, kernel_object::of(&binary)?)
        .with_context(|| format!("cannot write {}", object.display()))
}
