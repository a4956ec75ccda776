//! `cargo xtask build`: the set-up, then a release build of xdp-dedup, which leaves
//! target/release/xdp-dedup. The package's build script compiles the kernel program and embeds
//! it, so after one set-up a plain `cargo build` does as well.

use anyhow::Result;

use crate::{cargo, process, setup};

/// Sets up and builds.
pub fn run() -> Result<()> {
    setup::ensure()?;
    process::run(cargo::command("build").args(["--release", "--package", "xdp-dedup"]))
}
