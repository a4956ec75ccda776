//! Compiles the kernel program with what `cargo xtask setup` made ready, for `src/kernel.rs` to embed.

use std::{env, ffi::OsString, path::Path};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain, build_ebpf};

fn main() -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the crate lies in no workspace")?;
    let setup = workspace.join("target/setup");
    let core_source = setup.join("library");
    if !setup.join("bin/bpf-linker").is_file() || !core_source.is_dir() {
        bail!("the tools for the kernel program are not set up: run `cargo xtask build` first");
    }
    let mut path = OsString::from(setup.join("bin"));
    if let Some(rest) = env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    // SAFETY: a build script has one thread, and nobody else reads the environment.
    unsafe {
        env::set_var("PATH", path);
        // core for the BPF target is built from source, a feature that stable keeps to itself.
        env::set_var("RUSTC_BOOTSTRAP", "1");
        env::set_var("__CARGO_TESTS_ONLY_SRC_ROOT", core_source);
        // aya-build turns every line that cargo prints into a warning.
        env::set_var("CARGO_TERM_QUIET", "true");
    }
    for folder in ["xdp-dedup-ebpf", "xdp-dedup-common"] {
        println!(
            "cargo:rerun-if-changed={}",
            workspace.join(folder).display()
        );
    }
    build_ebpf(
        [Package {
            name: "xdp-dedup-ebpf",
            root_dir: &workspace.join("xdp-dedup-ebpf").display().to_string(),
            ..Package::default()
        }],
        Toolchain::Custom("1.95.0"),
    )
}
