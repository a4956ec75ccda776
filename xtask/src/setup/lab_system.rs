//! The system that the lab's machines run: servers, relays and clients out of Debian's packages,
//! unpacked side by side with all that they depend on. Nothing is installed on this machine, so no
//! service can start and nothing has to be removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{QUESTION, clear, debian};
use crate::{process, say, workspace};

/// The release whose programs the lab's numbers were taken with; the kernel is this machine's.
const SUITE: &str = "bookworm";

/// Written last: the packages that the system is made of. Without it the system counts as absent.
const PACKAGES: &str = "packages";

/// Users that the packages' scripts would have made.
const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
dhcpcd:x:100:100::/var/lib/dhcpcd:/usr/sbin/nologin
systemd-network:x:101:101::/:/usr/sbin/nologin
dnsmasq:x:102:102::/var/lib/misc:/usr/sbin/nologin
";

const GROUP: &str = "\
root:x:0:
nogroup:x:65534:
dhcpcd:x:100:
systemd-network:x:101:
dnsmasq:x:102:
";

/// Puts the system in its place, unless it is there with at least these packages, and hands back
/// the folder: `root` in it is the system.
pub fn ensure(packages: &[&str]) -> Result<PathBuf> {
    let place = workspace::setup_dir().join("lab");
    let has = fs::read_to_string(place.join(PACKAGES)).unwrap_or_default();
    let has: Vec<&str> = has.lines().collect();
    let mut wanted = [&has, packages].concat();
    wanted.sort_unstable();
    wanted.dedup();
    if wanted == has {
        return Ok(place);
    }
    say(format_args!(
        "fetching the lab's servers, relays and clients from Debian (once; {} packages and what they need) ...",
        wanted.len()
    ));
    let staging = workspace::setup_dir().join("lab-unpack");
    clear(&staging)?;
    let made = make(&staging, &wanted).and_then(|()| {
        clear(&place)?;
        fs::rename(staging.join("lab"), &place)
            .with_context(|| format!("cannot move it to {}", place.display()))
    });
    made.and(clear(&staging))?;
    Ok(place)
}

fn make(staging: &Path, packages: &[&str]) -> Result<()> {
    let lab = staging.join("lab");
    let root = lab.join("root");
    // The mount point of the machines, each in a mount namespace of its own.
    for folder in [&root, &lab.join("machine")] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    debian::fetch_system(&staging.join("apt"), &root, SUITE, packages)?;
    let write = |path: PathBuf, text: &str| {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write(root.join("etc/passwd"), PASSWD)?;
    write(root.join("etc/group"), GROUP)?;
    let mut ldconfig = Command::new("/sbin/ldconfig");
    process::capture(ldconfig.arg("-r").arg(&root), QUESTION)?;
    write(lab.join(PACKAGES), &format!("{}\n", packages.join("\n")))
}
