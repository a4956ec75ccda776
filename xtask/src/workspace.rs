//! Where things lie: the checkout, cargo's target folder, and the set-up's folder in it.

use std::env;
use std::path::{Path, PathBuf};

/// The one release that builds the kernel program; rust-toolchain.toml pins the same.
pub const RUST_VERSION: &str = "1.95.0";

/// The checkout's top folder.
pub fn root() -> &'static Path {
    let manifest_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest_dir.parent().unwrap_or(manifest_dir)
}

/// What `cargo xtask setup` makes; fixed, because xdp-dedup/build.rs looks there.
pub fn setup_dir() -> PathBuf {
    root().join("target/setup")
}

/// Where bpf-linker is installed.
pub fn setup_bin() -> PathBuf {
    setup_dir().join("bin")
}

/// Core's source, for `-Z build-std=core`.
pub fn core_source() -> PathBuf {
    setup_dir().join("library")
}

/// What is generated for the package; fixed, because xdp-dedup/Cargo.toml names it.
pub fn package_dir() -> PathBuf {
    root().join("target/package")
}

/// The program that a release build leaves behind.
pub fn release_binary() -> PathBuf {
    // Cargo runs in the root, so that is what a relative CARGO_TARGET_DIR is relative to.
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    root().join(target).join("release/xdp-dedup")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_up_is_for_the_toolchain_that_the_checkout_pins() {
        let pin = std::fs::read_to_string(root().join("rust-toolchain.toml")).unwrap();
        assert!(
            pin.contains(&format!("channel = \"{RUST_VERSION}\"")),
            "{pin}"
        );
    }
}
