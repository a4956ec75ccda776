//! `cargo xtask package`: the build, then a Debian package of it, whose path is printed. What is to
//! be in it stands in xdp-dedup/Cargo.toml; what is generated lies in target/package meanwhile. The
//! same commit makes the same package, byte for byte, by the same toolchain.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::commands::build;
use crate::{process, setup, workspace};

/// <https://reproducible-builds.org/specs/source-date-epoch/>
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Far more than packing takes.
const LIMIT: Duration = Duration::from_secs(300);

/// As xdp-dedup/Cargo.toml has it.
const MAINTAINER: &str = "The xdp-dedup authors <xdp-dedup@example.org>";

/// Completions: the shell, and the file that its folder takes them from.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "xdp-dedup"),
    ("zsh", "_xdp-dedup"),
    ("fish", "xdp-dedup.fish"),
];

/// Packages, and prints where the package lies.
pub fn run() -> Result<()> {
    build::run()?;
    println!("{}", make()?.display());
    Ok(())
}

/// Packages what is built, and hands back where the package lies.
pub fn make() -> Result<PathBuf> {
    can_be_made()?;
    setup::ensure_for_package()?;
    let epoch = epoch()?;
    let folder = workspace::package_dir();
    generate(&folder, &epoch)?;
    let output = folder.with_file_name("debian");
    // Packages of other versions would look like this one's.
    empty(&output)?;
    let mut pack = Command::new(workspace::setup_bin().join("cargo-deb"));
    pack.args(["deb", "--no-build", "--quiet", "--package", "xdp-dedup"])
        .arg("--output")
        .arg(&output)
        .env(EPOCH, &epoch)
        .current_dir(workspace::root());
    let answer = process::capture(&mut pack, LIMIT)?;
    let package = answer.lines().last().map(PathBuf::from);
    package.context("cargo-deb does not say where the package lies")
}

/// Whether this machine has what packing takes.
///
/// # Errors
///
/// With what it lacks.
pub fn can_be_made() -> Result<()> {
    process::require(&["dpkg-shlibdeps", "xz"]).context("the package cannot be made")
}

/// What the command itself makes, and the changelog in Debian's form, which leads to ours.
fn generate(folder: &Path, epoch: &str) -> Result<()> {
    let [man, completions] = ["man", "completions"].map(|name| folder.join(name));
    empty(folder)?;
    for folder in [&man, &completions] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let write = |path: PathBuf, text: String| {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let command = || Command::new(workspace::release_binary());
    process::capture(
        command().arg("man").arg("--dir").arg(man).env(EPOCH, epoch),
        LIMIT,
    )?;
    for (shell, file) in COMPLETIONS {
        let script = process::capture(command().args(["completions", shell]), LIMIT)?;
        write(completions.join(file), script)?;
    }
    write(folder.join("changelog"), changelog(epoch)?)
}

/// Makes the folder, and empties it if it is there.
fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

fn changelog(epoch: &str) -> Result<String> {
    // The first package of that version, as cargo-deb numbers it.
    let version = concat!(env!("CARGO_PKG_VERSION"), "-1");
    let mut date = Command::new("date");
    date.args(["--utc", "--rfc-email", "--date"])
        .arg(format!("@{epoch}"));
    let date = process::capture(&mut date, LIMIT)?;
    Ok(format!(
        "xdp-dedup ({version}) unstable; urgency=medium\n\n  * See the changelog of xdp-dedup itself, beside this one.\n\n \
         -- {MAINTAINER}  {}\n",
        date.trim()
    ))
}

/// The time that all in the package has: whoever packages it may say, else it is the commit's.
fn epoch() -> Result<String> {
    if let Ok(said) = std::env::var(EPOCH) {
        return Ok(said);
    }
    let mut git = Command::new("git");
    git.args(["log", "-1", "--format=%ct"])
        .current_dir(workspace::root());
    let said = process::capture(&mut git, LIMIT)
        .with_context(|| format!("cannot tell the commit's time; {EPOCH} gives another"))?;
    Ok(said.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changelog_is_by_the_maintainer_of_the_package() {
        let manifest = workspace::root().join("xdp-dedup/Cargo.toml");
        let manifest = fs::read_to_string(manifest).unwrap();
        assert!(manifest.contains(&format!("maintainer = \"{MAINTAINER}\"")));
        let changelog = changelog("0").unwrap();
        let signature = format!("\n -- {MAINTAINER}  Thu, 01 Jan 1970 00:00:00 +0000\n");
        assert!(changelog.ends_with(&signature), "{changelog}");
    }
}
