//! Where the program under test lies.

use std::env;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};

/// The `xdp-dedup` executable: of this test's own profile or of the release profile beside it, the
/// one built last; failing both, the one that `cargo xtask build` leaves in the checkout.
///
/// # Errors
///
/// Where it has not been built.
pub fn binary() -> Result<PathBuf> {
    let test = env::current_exe().context("cannot tell where this test lies")?;
    // <target folder>/<profile>/deps/<test>
    let profile = test.parent().and_then(Path::parent).unwrap_or(&test);
    let release = profile.with_file_name("release");
    let beside = [profile, &release].into_iter().filter_map(built).max();
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release");
    beside
        .or_else(|| built(&workspace))
        .map(|(_, path)| path)
        .context("xdp-dedup is not built: run `cargo xtask build`, or `cargo xtask test`")
}

/// The executable in this folder, and when it was built.
fn built(folder: &Path) -> Option<(SystemTime, PathBuf)> {
    let path = folder.join("xdp-dedup");
    let time = path.metadata().ok()?.modified().ok()?;
    Some((time, path))
}
