//! The pins on the BPF file system: through the maps' the program's instances share them and other
//! commands find them, through the links' the filter outlives the process that attached it.
//!
//! | under `/sys/fs/bpf/xdp-dedup/netns-INODE/` | what it is |
//! |---|---|
//! | `layout-N/TABLE`, `POLICY`, ... | the shared maps |
//! | `layout-N-new/` | fresh ones, until they take their place |
//! | `link-IFINDEX` | the filter on an interface that keeps it (`--persist`) |
//!
//! Links are not tied to a layout: a program with other maps takes over the same link.

mod find;

pub(crate) use find::lock_holder;
pub use find::{Pinned, ReadersPlace, find};

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use aya::programs::links::{FdLink, LinkError, PinnedLink};
use nix::{
    fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2},
    sys::statfs::{BPF_FS_MAGIC, statfs},
    unistd::geteuid,
};
use tracing::warn;

use crate::{maps, privileges};

pub(crate) const BPF_FILE_SYSTEM: &str = "/sys/fs/bpf";
pub(crate) const ROOT: &str = "/sys/fs/bpf/xdp-dedup";

/// What to do where there is no BPF file system.
pub(crate) const HOW_TO_MOUNT: &str = "`mount -t bpf -o mode=700 bpf /sys/fs/bpf` (`ip netns exec` \
                                       hides it; `nsenter --net=/run/netns/NAME` does not)";

const LINK: &str = "link-";
const LAYOUT: &str = "layout-";

/// The folder of this network namespace, locked for this process. Dropping it removes the pins,
/// unless there are links among them.
#[derive(Debug)]
pub struct PinFolder {
    path: PathBuf,
    closed: bool,
    /// Closing it gives the lock back.
    _lock: File,
}

/// A pinned link.
#[derive(Debug)]
pub struct LinkPin {
    /// Index of the interface that the link was made for.
    pub index: u32,
    /// The pin.
    pub path: PathBuf,
    /// Id of the program that it holds.
    pub program_id: u32,
    /// The link itself. Dropping it changes nothing while the pin is there.
    pub link: FdLink,
}

/// Whether the folder could be locked.
enum Locked {
    Yes(PinFolder),
    /// Somebody else holds it.
    No,
    /// It was removed meanwhile.
    Gone,
}

impl PinFolder {
    /// Makes the folder, if it is not there, and locks it.
    ///
    /// # Errors
    ///
    /// Where no BPF file system is mounted, another process holds the lock, somebody else could change
    /// the folder, or the file system refuses.
    pub fn lock() -> Result<Self> {
        let path = mounted_namespace_folder()?;
        loop {
            // Whoever leaves at this moment may remove what was just made.
            let folder = match own_folder(Path::new(ROOT)).and_then(|_| own_folder(&path)) {
                Err(error) if is_missing(&error) => continue,
                other => other?,
            };
            match lock(folder, &path)? {
                Locked::Yes(pins) => return Ok(pins),
                Locked::Gone => {}
                Locked::No => bail!(
                    "{}: stop it first, or give it all interfaces",
                    who_is_at_work(&path)
                ),
            }
        }
    }

    /// Locks the folder; `None` if it is not there.
    ///
    /// # Errors
    ///
    /// As for [`lock`](Self::lock).
    pub fn lock_existing() -> Result<Option<Self>> {
        let path = mounted_namespace_folder()?;
        let folder = match open_own(Path::new(ROOT)).and_then(|_| open_own(&path)) {
            Err(error) if is_missing(&error) => return Ok(None),
            other => other?,
        };
        match lock(folder, &path)? {
            Locked::Yes(pins) => Ok(Some(pins)),
            Locked::Gone => Ok(None),
            Locked::No => bail!(
                "{}: stop it first; a `run` then detaches, unless it has --persist",
                who_is_at_work(&path)
            ),
        }
    }

    /// The folder of the shared maps, which need not be there.
    pub fn maps(&self) -> PathBuf {
        maps_in(&self.path)
    }

    /// An empty folder for fresh maps, which [`install`](Self::install) puts in place of the others.
    ///
    /// # Errors
    ///
    /// Where the file system refuses.
    pub fn prepare(&self) -> Result<PathBuf> {
        self.clean()?;
        let folder = self.fresh();
        own_folder(&folder)?;
        Ok(folder)
    }

    /// Puts the fresh maps in place of those that were there.
    ///
    /// # Errors
    ///
    /// Where the file system refuses.
    pub fn install(&self) -> Result<()> {
        let (fresh, maps) = (self.fresh(), self.maps());
        // At no moment there are none: those of a filter that is at work would else not be found, nor
        // by the next `run`, should this one be killed.
        let how = if maps.exists() {
            RenameFlags::RENAME_EXCHANGE
        } else {
            RenameFlags::RENAME_NOREPLACE
        };
        renameat2(AT_FDCWD, &fresh, AT_FDCWD, &maps, how)
            .with_context(|| format!("cannot rename {} to {}", fresh.display(), maps.display()))?;
        self.clean()
    }

    /// Where the link of the interface with this index is pinned.
    pub fn link(&self, index: u32) -> PathBuf {
        link_in(&self.path, index)
    }

    /// The interfaces with a pinned link, by index.
    ///
    /// # Errors
    ///
    /// Where the folder cannot be read.
    pub fn linked(&self) -> Result<Vec<u32>> {
        numbers(&self.path, LINK).with_context(|| cannot_read(&self.path))
    }

    /// The pinned link of the interface with this index.
    ///
    /// # Errors
    ///
    /// Where it cannot be opened.
    pub fn open_link(&self, index: u32) -> Result<LinkPin> {
        let path = self.link(index);
        let (link, program_id) = open_link(&path)
            .with_context(|| privileges::advice(&format!("open {}", path.display())))?;
        Ok(LinkPin {
            index,
            path,
            program_id,
            link,
        })
    }

    /// Layouts of other versions that have maps here.
    ///
    /// # Errors
    ///
    /// Where the folder cannot be read.
    pub fn other_layouts(&self) -> Result<Vec<u32>> {
        other_layouts(&self.path).with_context(|| cannot_read(&self.path))
    }

    /// Removes the maps of other versions, and what a killed predecessor had not finished.
    ///
    /// # Errors
    ///
    /// Where the file system refuses.
    pub fn tidy(&self) -> Result<()> {
        let maps = self.maps();
        let names = names(&self.path, LAYOUT).with_context(|| cannot_read(&self.path))?;
        names
            .into_iter()
            .map(|name| self.path.join(name))
            .filter(|folder| *folder != maps)
            .try_for_each(|folder| remove_folder(&folder))
    }

    /// Removes the pins, unless there are links among them, and gives the lock back.
    ///
    /// # Errors
    ///
    /// Where the file system refuses.
    pub fn close(mut self) -> Result<()> {
        self.closed = true;
        self.remove()
    }

    // Without dots, which the BPF file system keeps to itself.
    fn fresh(&self) -> PathBuf {
        self.path.join(format!("{LAYOUT}{}-new", maps::LAYOUT))
    }

    /// Removes what a killed predecessor had not finished.
    fn clean(&self) -> Result<()> {
        remove_folder(&self.fresh())
    }

    fn remove(&self) -> Result<()> {
        self.clean()?;
        if !self.linked()?.is_empty() {
            return Ok(());
        }
        remove_folder(&self.path)?;
        remove_root()
    }
}

impl Drop for PinFolder {
    fn drop(&mut self) {
        if !self.closed
            && let Err(error) = self.remove()
        {
            warn!("{error:#}");
        }
    }
}

/// Removes the folder of all network namespaces, if it is there and none has pins in it.
///
/// # Errors
///
/// Where the file system refuses.
pub fn remove_root() -> Result<()> {
    use ErrorKind::{DirectoryNotEmpty, NotFound};
    match fs::remove_dir(ROOT) {
        Err(error) if !matches!(error.kind(), DirectoryNotEmpty | NotFound) => {
            Err(error).with_context(|| format!("cannot remove {ROOT}"))
        }
        _ => Ok(()),
    }
}

/// Removes a pin, if it is there.
///
/// # Errors
///
/// Where the file system refuses.
pub fn remove(pin: &Path) -> Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", pin.display()))
        }
        _ => Ok(()),
    }
}

/// Removes a folder and what is in it, if it is there. It follows no links.
fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn lock(folder: File, path: &Path) -> Result<Locked> {
    let failed = || format!("cannot lock {}", path.display());
    match folder.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Locked::No),
        Err(TryLockError::Error(error)) => return Err(error).with_context(failed),
    }
    // Who held the lock before may have removed the folder; it is then nobody's.
    let locked = folder.metadata().with_context(failed)?.ino();
    if fs::symlink_metadata(path).is_ok_and(|now| now.ino() == locked) {
        Ok(Locked::Yes(PinFolder {
            path: path.to_owned(),
            closed: false,
            _lock: folder,
        }))
    } else {
        Ok(Locked::Gone)
    }
}

/// Who holds the lock, as far as that is known.
fn who_is_at_work(path: &Path) -> String {
    let status = fs::metadata(path).ok();
    let holder = status.and_then(|status| lock_holder(&status).ok().flatten());
    let process = holder.map_or_else(String::new, |id| format!(" (process {id})"));
    format!(
        "another xdp-dedup{process} is at work in this network namespace (it holds {})",
        path.display()
    )
}

/// A pinned link, and the id of its program.
fn open_link(pin: &Path) -> Result<(FdLink, u32), LinkError> {
    let link = FdLink::from(PinnedLink::from_pin(pin)?);
    let program_id = link.info()?.program_id();
    Ok((link, program_id))
}

/// Ids of the programs whose links are pinned in a network namespace's folder, as far as they can be
/// opened.
pub(crate) fn linked_programs(folder: &Path) -> Vec<u32> {
    let linked = numbers(folder, LINK).unwrap_or_default();
    let pins = linked.iter().map(|index| link_in(folder, *index));
    pins.filter_map(|pin| open_link(&pin).ok())
        .map(|(_, program_id)| program_id)
        .collect()
}

/// Where the link of the interface with this index is pinned.
fn link_in(folder: &Path, index: u32) -> PathBuf {
    folder.join(format!("{LINK}{index}"))
}

/// Makes the folder unless it is there, and opens it.
fn own_folder(path: &Path) -> Result<File> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            let what = format!("make the folder {}", path.display());
            return Err(error).with_context(|| privileges::advice(&what));
        }
        _ => {}
    }
    open_own(path)
}

/// Opens the folder. The BPF file system may be open to every user of the machine: a link, or a
/// folder that others could change, would have this process, as root, pin or remove things where they
/// want it.
fn open_own(path: &Path) -> Result<File> {
    let shown = path.display();
    let folder = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits())
        .open(path)
        .with_context(|| format!("cannot open {shown} as a folder"))?;
    let status = folder
        .metadata()
        .with_context(|| format!("cannot look at {shown}"))?;
    if !is_own(&status) {
        bail!("{shown} belongs to somebody else, or others may write to it: remove it");
    }
    Ok(folder)
}

/// Whether a folder, and no link to one, is this user's, and nobody else may change it.
pub(crate) fn is_own(status: &Metadata) -> bool {
    is_folder_of(geteuid().as_raw(), status)
}

fn is_folder_of(user: u32, status: &Metadata) -> bool {
    status.is_dir() && status.uid() == user && status.mode() & 0o022 == 0
}

fn cannot_read(folder: &Path) -> String {
    format!("cannot read the folder {}", folder.display())
}

/// Layouts of other versions that have maps in a network namespace's folder.
fn other_layouts(folder: &Path) -> io::Result<Vec<u32>> {
    let mut layouts = numbers(folder, LAYOUT)?;
    layouts.retain(|&layout| layout != maps::LAYOUT);
    Ok(layouts)
}

/// The numbers in the names that have nothing else behind this prefix, from the lowest.
fn numbers(folder: &Path, prefix: &str) -> io::Result<Vec<u32>> {
    let names = names(folder, prefix)?;
    let mut numbers: Vec<_> = names
        .iter()
        .filter_map(|name| name.strip_prefix(prefix)?.parse().ok())
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// The names in a folder that begin with this prefix.
fn names(folder: &Path, prefix: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().into_string().ok();
        names.extend(name.filter(|name| name.starts_with(prefix)));
    }
    Ok(names)
}

/// The folder of the shared maps.
fn maps_in(folder: &Path) -> PathBuf {
    folder.join(format!("{LAYOUT}{}", maps::LAYOUT))
}

fn is_missing(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Whether a BPF file system is where the pins go.
pub(crate) fn is_mounted() -> bool {
    statfs(BPF_FILE_SYSTEM).is_ok_and(|status| status.filesystem_type() == BPF_FS_MAGIC)
}

/// The folder of this process's network namespace, by its inode number, which is its name within a
/// boot.
pub(crate) fn namespace_folder() -> Result<PathBuf> {
    const NAMESPACE: &str = "/proc/self/ns/net";
    let inode = fs::metadata(NAMESPACE)
        .with_context(|| format!("cannot read {NAMESPACE}"))?
        .ino();
    Ok(Path::new(ROOT).join(format!("netns-{inode}")))
}

/// The same, where there is a BPF file system for it.
fn mounted_namespace_folder() -> Result<PathBuf> {
    if !is_mounted() {
        bail!(
            "no BPF file system is mounted at {BPF_FILE_SYSTEM}, where the maps are to be pinned: \
             {HOW_TO_MOUNT}"
        );
    }
    namespace_folder()
}
