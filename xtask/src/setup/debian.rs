//! Files from Debian's archive, without installing the package. The machine's own apt lists name the
//! mirror, and its own keys vouch for what comes from there: suite, state
//! and cache are private, and nothing of the system is changed, so it works without root too.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::apt_lists::{self, Mirror};
use crate::{process, say};

/// A file or folder in a package of Debian's.
pub struct Wanted {
    /// The suite that has the package.
    pub suite: String,
    /// The package's name.
    pub package: &'static str,
    /// Its version; the suite's newest if there is none.
    pub version: Option<&'static str>,
    /// What it weighs, for the one who waits.
    pub megabytes: u32,
    /// Where the file or folder lies in it.
    pub path: &'static str,
}

/// Long enough for 45 MB by a slow line.
const LIMIT: Duration = Duration::from_secs(900);

/// Downloads and unpacks a package in `dir`, and hands back where the wanted part of it lies.
pub fn fetch(dir: &Path, wanted: &Wanted) -> Result<PathBuf> {
    process::require(&["apt-get", "dpkg-deb", "tar"])?;
    let package = match wanted.version {
        Some(version) => format!("{}={version}", wanted.package),
        None => wanted.package.to_owned(),
    };
    say(format_args!(
        "fetching Debian's {package} ({} MB) ...",
        wanted.megabytes
    ));
    let apt = Apt::new(dir, &wanted.suite)?;
    apt.run(&["update"])?;
    apt.run(&["download", &package])?;
    let [package] = &packages_in(dir)?[..] else {
        bail!("`apt-get download` left no package in {}", dir.display());
    };
    let into = dir.join("root");
    fs::create_dir_all(&into).with_context(|| format!("cannot make {}", into.display()))?;
    unpack(package, &into, wanted.path)?;
    Ok(into.join(wanted.path))
}

/// Unpacks these packages, and all that they depend on, into the folder `into`, as a system of its
/// own: nothing is installed, and no script of theirs is run. `dir` takes what is in passing.
pub fn fetch_system(dir: &Path, into: &Path, suite: &str, packages: &[&str]) -> Result<()> {
    process::require(&["apt-get", "dpkg-deb", "tar"])?;
    let apt = Apt::new(dir, suite)?;
    apt.run(&["update"])?;
    let install = [
        "install",
        "--yes",
        "--download-only",
        "--no-install-recommends",
    ];
    apt.run(&[&install, packages].concat())?;
    for folder in ["bin", "sbin", "lib", "lib64"] {
        // Since Debian 12 these are links; packages of that release still name either.
        let target = format!("usr/{folder}");
        let folder = into.join(folder);
        fs::create_dir_all(into.join(&target))
            .and_then(|()| symlink(&target, &folder))
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    for package in packages_in(&dir.join("cache/archives"))? {
        unpack(&package, into, "")?;
    }
    Ok(())
}

/// The mirror that the machine's own apt lists name.
pub fn mirror() -> Result<Mirror> {
    let lists = apt_lists::read(Path::new("/etc/apt"));
    apt_lists::debian_mirror(&lists).context("the apt lists in /etc/apt name no mirror of Debian")
}

/// apt with lists, status and cache of its own.
struct Apt<'a> {
    dir: &'a Path,
}

impl<'a> Apt<'a> {
    /// One that knows of nothing installed, and of one suite.
    fn new(dir: &'a Path, suite: &str) -> Result<Self> {
        let mirror = mirror()?;
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            let folder = dir.join(folder);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write("status", String::new())?;
        write("sources.list", source_line(&mirror, suite))?;
        write("apt.conf", configuration(dir))?;
        Ok(Self { dir })
    }

    fn run(&self, args: &[&str]) -> Result<String> {
        let mut apt = Command::new("apt-get");
        // `apt-get download` writes into the current folder.
        apt.arg("-qq")
            .arg("-c")
            .arg(self.dir.join("apt.conf"))
            .args(args)
            .current_dir(self.dir);
        process::capture(&mut apt, LIMIT)
    }
}

/// `dpkg -x`, but for what is under `path` alone: rust-src holds ten times as many files.
fn unpack(package: &Path, into: &Path, path: &str) -> Result<()> {
    let mut open = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start `dpkg-deb`")?;
    let mut take = Command::new("tar");
    take.args([
        "--no-same-owner",
        "--keep-directory-symlink",
        "--extract",
        "--directory",
    ])
    .arg(into)
    .arg(format!("./{path}"));
    if let Some(tarfile) = open.stdout.take() {
        take.stdin(tarfile);
    }
    let taken = process::capture(&mut take, LIMIT);
    // Dropped first: should tar not have read to the end, dpkg-deb would wait for a reader.
    drop(take);
    let opened = open.wait().context("cannot wait for `dpkg-deb`")?;
    taken?;
    if !opened.success() {
        bail!(
            "`dpkg-deb --fsys-tarfile {}` failed ({opened})",
            package.display()
        );
    }
    Ok(())
}

/// The InRelease of trixie-backports is signed by the keys of Debian 12 and of Debian 13: the keyring
/// of either release vouches for it (tried with Debian 12's alone), so checking stays on.
fn source_line(mirror: &Mirror, suite: &str) -> String {
    let options = match &mirror.keyring {
        Some(keyring) => format!("[signed-by={keyring}] "),
        None => String::new(),
    };
    format!("deb {options}{} {suite} main\n", mirror.uri)
}

/// Read after the machine's own configuration, which stays in force otherwise (a proxy, say).
fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"Dir::Etc::SourceList "{dir}/sources.list";
Dir::Etc::SourceParts "-";
Dir::State "{dir}/state";
Dir::State::Lists "{dir}/state/lists";
Dir::State::Status "{dir}/status";
Dir::Cache "{dir}/cache";
// The user _apt could not write here.
APT::Sandbox::User "root";
// Hooks are for the system's own lists.
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
// Never an unsigned list or package, whatever the machine allows.
Acquire::AllowInsecureRepositories "false";
APT::Get::AllowUnauthenticated "false";
// A list that could not be had is an error, not a warning.
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Acquire::Retries "1";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
"#
    )
}

/// The packages in a folder, by name.
fn packages_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut packages = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            packages.push(path);
        }
    }
    packages.sort();
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_line_names_the_keyring_that_vouches_for_the_mirror() {
        for (keyring, line) in [
            (None, "deb mirror:/debian trixie-backports main\n"),
            (
                Some("/k.gpg"),
                "deb [signed-by=/k.gpg] mirror:/debian trixie-backports main\n",
            ),
        ] {
            let mirror = Mirror {
                uri: "mirror:/debian".to_owned(),
                keyring: keyring.map(str::to_owned),
            };
            assert_eq!(source_line(&mirror, "trixie-backports"), line);
        }
    }
}
