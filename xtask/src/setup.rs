//! `cargo xtask setup`: makes ready, in target/setup, what building the kernel program needs
//! beyond the pinned toolchain: bpf-linker, and the source of that toolchain's core library, which
//! cargo compiles for the BPF target. It changes nothing that is already as it should be, so every
//! other command begins with it. xdp-dedup/build.rs looks for both in the same place.

mod apt_lists;
mod cargo_deb;
mod core_source;
mod debian;
mod lab_system;
mod ladder;
mod linker;
mod prometheus;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::workspace::{self, RUST_VERSION};
use crate::{process, say};

/// A question that a tool answers from memory; more time than that means that it hangs.
const QUESTION: Duration = Duration::from_secs(60);

/// Sets up and says so.
pub fn run() -> Result<()> {
    ensure()?;
    say(format_args!(
        "{} is ready",
        workspace::setup_dir().display()
    ));
    Ok(())
}

/// Sets up what is not set up yet; silent where nothing is to be done.
pub fn ensure() -> Result<()> {
    check_toolchain()?;
    let _lock = lock()?;
    linker::ensure()?;
    core_source::ensure()
}

/// Sets up what the tests use besides, and says what they will go without.
pub fn ensure_for_tests() -> Result<()> {
    let _lock = lock()?;
    if let Err(error) = prometheus::ensure() {
        say(format_args!(
            "no Prometheus or promtool, so their tests will be reported as skipped: {error:#}"
        ));
    }
    Ok(())
}

/// Sets up what packaging uses besides.
pub fn ensure_for_package() -> Result<()> {
    let _lock = lock()?;
    cargo_deb::ensure()
}

/// Makes ready the system that the lab's machines run, and hands back the folder that it lies in.
pub fn ensure_for_lab(packages: &[&str]) -> Result<PathBuf> {
    let _lock = lock()?;
    lab_system::ensure(packages)
}

/// `cargo +other xtask` would hand the other toolchain down to everything that follows.
/// Whether Debian's packages are to be had, which is not so on every system with apt.
pub fn has_debian_mirror() -> Result<()> {
    debian::mirror().map(drop)
}

fn check_toolchain() -> Result<()> {
    let answer = rustc(&["--version"])?;
    if answer.split_whitespace().nth(1) != Some(RUST_VERSION) {
        bail!(
            "this is {}, but the kernel program needs rustc {RUST_VERSION}: run `cargo xtask` \
             through rustup, without `+toolchain` and with RUSTUP_TOOLCHAIN unset (where rustup \
             lacks it: `rustup toolchain install {RUST_VERSION}`)",
            answer.trim()
        );
    }
    Ok(())
}

fn rustc(args: &[&str]) -> Result<String> {
    process::capture(
        Command::new("rustc")
            .args(args)
            .current_dir(workspace::root()),
        QUESTION,
    )
}

/// Two set-ups at once would write the same files: the second waits. The lock goes with the file.
fn lock() -> Result<File> {
    let dir = workspace::setup_dir();
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let path = dir.join("lock");
    let file =
        File::create(&path).with_context(|| format!("cannot write to {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            say("another set-up is at work in this checkout; waiting for it");
            file.lock()
                .with_context(|| format!("cannot lock {}", path.display()))?;
            Ok(file)
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Removes a file, a link (not what it points to) or a folder; content with one that is not there.
fn clear(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
