//! What is pinned, for commands that only look: without the lock, and with no more privileges than that
//! takes.

use std::{
    fs::{self, File, Metadata, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::stat::{major, minor};

use super::{
    BPF_FILE_SYSTEM, ROOT, is_folder_of, is_mounted, is_own, maps_in, namespace_folder,
    other_layouts,
};
use crate::{maps, privileges};

/// What a `run` has pinned for this network namespace, as other commands find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The folder of the shared maps.
    pub maps: PathBuf,
    /// Id of the process that holds it, if a `run` is at work.
    pub daemon: Option<u32>,
    /// Of the folder of the maps.
    inode: u64,
}

impl Pinned {
    /// Whether these are still the maps that are found.
    pub fn is_still_there(&self) -> bool {
        fs::metadata(&self.maps).is_ok_and(|found| found.ino() == self.inode)
    }
}

/// Finds what is pinned for this network namespace; `None` where that is nothing, or not yet or no
/// longer all that belongs to a filter.
///
/// # Errors
///
/// Where no BPF file system is mounted, privileges lack, the folder may be somebody else's make, or the
/// maps are those of another version.
pub fn find() -> Result<Option<Pinned>> {
    if !is_mounted() {
        bail!(
            "cannot tell what is attached: no BPF file system is mounted at {BPF_FILE_SYSTEM}, \
             where a `run` pins its maps (`ip netns exec` hides it; `nsenter \
             --net=/run/netns/NAME` does not)"
        );
    }
    let folder = namespace_folder()?;
    let Some(status) = trusted(Path::new(ROOT))?.and(trusted(&folder)?) else {
        return Ok(None);
    };
    let maps = maps_in(&folder);
    if !are_all_there(&maps).with_context(|| cannot_look_into(&folder))? {
        let others = other_layouts(&folder).with_context(|| cannot_look_into(&folder))?;
        if let Some(other) = others.last() {
            bail!(
                "cannot read what is attached: it is another version's, whose maps have layout \
                 {other} instead of {}; ask that version, or start `xdp-dedup run` of this one, \
                 which takes over",
                maps::LAYOUT
            );
        }
        return Ok(None);
    }
    let inode = match fs::metadata(&maps) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        folder => folder.with_context(|| cannot_look_into(&maps))?.ino(),
    };
    Ok(Some(Pinned {
        maps,
        inode,
        daemon: lock_holder(&status)?,
    }))
}

/// What there is to know of a folder, if it is there. On a BPF file system that is open to every user
/// of the machine, anybody can make one, and with it a policy and counters as they like: it must be
/// root's or this user's.
fn trusted(folder: &Path) -> Result<Option<Metadata>> {
    let status = match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        status => status.with_context(|| cannot_look_into(folder))?,
    };
    if !is_own(&status) && !is_folder_of(0, &status) {
        bail!(
            "{} belongs to somebody else, or others may write to it: what is pinned there may not \
             be the filter's; remove it",
            folder.display()
        );
    }
    Ok(Some(status))
}

fn cannot_look_into(folder: &Path) -> String {
    privileges::advice_to_find(&format!("look into {}", folder.display()))
}

/// The place of the one process that may read the events among some maps. It is given back when it is
/// dropped, and when the process dies.
#[derive(Debug)]
pub struct ReadersPlace {
    maps: PathBuf,
    folder: File,
}

impl ReadersPlace {
    /// Takes it: a lock on the folder of the maps, for a pinned map cannot be locked.
    ///
    /// # Errors
    ///
    /// Where another process has it, or privileges lack.
    pub fn take(maps: &Path) -> Result<Self> {
        let folder = File::open(maps).with_context(|| cannot_look_into(maps))?;
        let failed = || format!("cannot lock {}", maps.display());
        match folder.try_lock() {
            Ok(()) => Ok(Self {
                maps: maps.to_owned(),
                folder,
            }),
            Err(TryLockError::WouldBlock) => {
                let holder = lock_holder(&folder.metadata().with_context(failed)?)?;
                let holder = holder.map_or_else(String::new, |id| format!(" (process {id})"));
                bail!(
                    "another `xdp-dedup events`{holder} follows already, and the kernel's ring \
                     buffer has one reader: stop it first"
                )
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(failed),
        }
    }

    /// Whether these are still the maps that are found.
    pub fn is_still_there(&self) -> bool {
        match (fs::metadata(&self.maps), self.folder.metadata()) {
            (Ok(found), Ok(locked)) => found.ino() == locked.ino(),
            _ => false,
        }
    }
}

/// Whether all the maps are in this folder.
fn are_all_there(maps: &Path) -> io::Result<bool> {
    let mut are_there = maps::NAMES.iter().map(|map| maps.join(map).try_exists());
    are_there.try_fold(true, |all, there| Ok(all && there?))
}

/// Id of the process that holds the lock on a folder. Taking the lock to see whether it is free
/// could make a `run` fail that starts in this moment.
pub(crate) fn lock_holder(folder: &Metadata) -> Result<Option<u32>> {
    const LOCKS: &str = "/proc/locks";
    let (major, minor) = (major(folder.dev()), minor(folder.dev()));
    let file = format!("{major:02x}:{minor:02x}:{}", folder.ino());
    let locks = fs::read_to_string(LOCKS).with_context(|| format!("cannot read {LOCKS}"))?;
    Ok(locks.lines().find_map(|line| {
        // proc_locks(5): "1: FLOCK  ADVISORY  WRITE 4711 00:1c:12345 0 EOF".
        let fields: Vec<_> = line.split_whitespace().collect();
        match fields[..] {
            [_, "FLOCK", _, "WRITE", process, locked, ..] if locked == file => process.parse().ok(),
            _ => None,
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    #[test]
    fn who_locks_a_file_is_found_among_all_locks() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::open(folder.path()).unwrap();
        let status = file.metadata().unwrap();
        let locked_by = || lock_holder(&status).unwrap();
        assert_eq!(locked_by(), None);
        file.try_lock().unwrap();
        assert_eq!(locked_by(), Some(process::id()));
        file.unlock().unwrap();
        assert_eq!(locked_by(), None);
    }
}
