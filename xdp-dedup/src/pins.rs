//! The folder on the BPF file system through which the program's instances share their maps, and
//! other commands find them.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    fcntl::OFlag,
    sys::{
        stat::{major, minor},
        statfs::{BPF_FS_MAGIC, statfs},
    },
    unistd::geteuid,
};
use tracing::warn;

use crate::{maps, privileges};

pub(crate) const BPF_FILE_SYSTEM: &str = "/sys/fs/bpf";
pub(crate) const ROOT: &str = "/sys/fs/bpf/xdp-dedup";

/// The folder of this network namespace, locked for this process. Dropping it removes the pins.
#[derive(Debug)]
pub struct PinFolder {
    path: PathBuf,
    /// Closing it gives the lock back.
    _lock: File,
}

impl PinFolder {
    /// Makes the folder, empty, and locks it.
    ///
    /// # Errors
    ///
    /// Where no BPF file system is mounted, another `run` holds the lock, somebody else could change
    /// the folder, or the file system refuses.
    pub fn create() -> Result<Self> {
        if !is_mounted() {
            bail!(
                "no BPF file system is mounted at {BPF_FILE_SYSTEM}, where the maps are to be \
                 pinned: `mount -t bpf -o mode=700 bpf {BPF_FILE_SYSTEM}` (`ip netns exec` hides \
                 it; `nsenter --net=/run/netns/NAME` does not)"
            );
        }
        own_folder(Path::new(ROOT))?;
        let path = namespace_folder()?;
        let folder = own_folder(&path)?;
        match folder.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another `xdp-dedup run` is at work in this network namespace (it holds {}): stop \
                 it first, or give it all interfaces",
                path.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        let pins = Self {
            path,
            _lock: folder,
        };
        // A killed predecessor leaves its pins; its maps are of no use to this one.
        pins.clear()?;
        Ok(pins)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the pins that a `run` makes, and nothing else.
    fn clear(&self) -> Result<()> {
        for map in maps::NAMES {
            let pin = self.path.join(map);
            match fs::remove_file(&pin) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", pin.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn remove(&self) -> Result<()> {
        self.clear()?;
        let failed = |path: &Path| format!("cannot remove {}", path.display());
        fs::remove_dir(&self.path).with_context(|| failed(&self.path))?;
        match fs::remove_dir(ROOT) {
            // Other network namespaces have theirs.
            Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => {
                Err(error).with_context(|| failed(Path::new(ROOT)))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for PinFolder {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            warn!("{error:#}");
        }
    }
}

/// What a `run` has pinned for this network namespace, as other commands find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The folder of the shared maps.
    pub maps: PathBuf,
    /// Id of the process that holds it, if a `run` is at work.
    pub daemon: Option<u32>,
}

/// Finds what is pinned for this network namespace; `None` where that is nothing, or not yet or no
/// longer all that belongs to a filter.
///
/// # Errors
///
/// Where no BPF file system is mounted, or privileges lack.
pub fn find() -> Result<Option<Pinned>> {
    if !is_mounted() {
        bail!(
            "cannot tell what is attached: no BPF file system is mounted at {BPF_FILE_SYSTEM}, \
             where a `run` pins its maps (`ip netns exec` hides it; `nsenter \
             --net=/run/netns/NAME` does not)"
        );
    }
    let folder = namespace_folder()?;
    let status = match fs::metadata(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        status => status.with_context(|| cannot_look_into(&folder))?,
    };
    let Some(maps) = folder_of_maps(&folder).with_context(|| cannot_look_into(&folder))? else {
        return Ok(None);
    };
    Ok(Some(Pinned {
        maps,
        daemon: lock_holder(&status)?,
    }))
}

fn cannot_look_into(folder: &Path) -> String {
    privileges::advice_to_find(&format!("look into {}", folder.display()))
}

/// Where in a network namespace's folder all the maps are: in itself, or in one of its own for their
/// layout.
fn folder_of_maps(folder: &Path) -> io::Result<Option<PathBuf>> {
    let mut places = vec![folder.to_owned()];
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let layout = name.to_str().and_then(|name| name.strip_prefix("layout-"));
        if layout.is_some_and(|layout| layout.parse::<u32>().is_ok()) {
            places.push(entry.path());
        }
    }
    for place in places {
        let mut are_there = maps::NAMES.iter().map(|map| place.join(map).try_exists());
        if are_there.try_fold(true, |all, there| Ok::<_, io::Error>(all && there?))? {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

/// Id of the process that holds the lock on a folder. Taking the lock to see whether it is free
/// could make a `run` fail that starts in this moment.
fn lock_holder(folder: &Metadata) -> Result<Option<u32>> {
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

fn is_mounted() -> bool {
    statfs(BPF_FILE_SYSTEM).is_ok_and(|status| status.filesystem_type() == BPF_FS_MAGIC)
}

/// The folder of this network namespace.
fn namespace_folder() -> Result<PathBuf> {
    Ok(Path::new(ROOT).join(format!("netns-{}", network_namespace()?)))
}

/// Makes the folder unless it is there, and opens it. The BPF file system may be open to every user
/// of the machine: a link, or a folder that others could change, would have this process, as root,
/// pin or remove things where they want it.
fn own_folder(path: &Path) -> Result<File> {
    let shown = path.display();
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error)
                .with_context(|| privileges::advice(&format!("make the folder {shown}")));
        }
        _ => {}
    }
    let folder = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits())
        .open(path)
        .with_context(|| format!("cannot open {shown} as a folder"))?;
    let status = folder
        .metadata()
        .with_context(|| format!("cannot look at {shown}"))?;
    if status.uid() != geteuid().as_raw() || status.mode() & 0o022 != 0 {
        bail!("{shown} belongs to somebody else, or others may write to it: remove it");
    }
    Ok(folder)
}

/// Inode number of this process's network namespace, which is its name within a boot.
fn network_namespace() -> Result<u64> {
    const NAMESPACE: &str = "/proc/self/ns/net";
    Ok(fs::metadata(NAMESPACE)
        .with_context(|| format!("cannot read {NAMESPACE}"))?
        .ino())
}
