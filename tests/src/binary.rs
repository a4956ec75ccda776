//! Where the program under test lies.

use std::env;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};

/// The `xdp-dedup` executable: of those in this test's own profile and in the release profile, the
/// one built last.
///
/// # Errors
///
/// Where it has not been built.
pub fn binary() -> Result<PathBuf> {
    let test = env::current_exe().context("cannot tell where this test lies")?;
    // <target folder>/<profile>/deps/<test>
    let profile = test.parent().and_then(Path::parent).unwrap_or(&test);
    let target = profile.parent().unwrap_or(profile);
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release");
    let built = |folder: PathBuf| {
        let path = folder.join("xdp-dedup");
        let when: SystemTime = path.metadata().ok()?.modified().ok()?;
        Some((when, path))
    };
    [profile.to_owned(), target.join("release"), workspace]
        .into_iter()
        .filter_map(built)
        .max()
        .map(|(_, path)| path)
        .context("xdp-dedup is not built: run `cargo xtask build`, or `cargo xtask test`")
}
