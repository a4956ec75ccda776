//! Where the package lies that is tried.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use anyhow::{Context as _, Result, bail, ensure};

/// The checkout's top folder.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What `cargo xtask package` made, of the binary that is built.
///
/// # Errors
///
/// Where there is none, or an older one.
pub fn path() -> Result<PathBuf> {
    const ADVICE: &str = "`cargo xtask package` makes it";
    let target = checkout().join("target");
    let packages = fs::read_dir(target.join("debian")).into_iter().flatten();
    let packages = packages.flatten().map(|entry| entry.path());
    let mut packages = packages.filter(|path| path.extension().is_some_and(|end| end == "deb"));
    let Some(package) = packages.next() else {
        bail!("the Debian package is not made: {ADVICE}");
    };
    let age = |path: &Path| -> io::Result<_> { path.metadata()?.modified() };
    let binary = age(&target.join("release/xdp-dedup")).context("xdp-dedup is not built")?;
    ensure!(
        age(&package)? >= binary,
        "the Debian package is older than the binary: {ADVICE}"
    );
    Ok(package)
}

/// What `dpkg-deb` says of the package.
pub fn ask(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("dpkg-deb");
    command.args(arguments).arg(path()?);
    run(&mut command)
}

/// Runs a command to its end, and hands back what it printed.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
