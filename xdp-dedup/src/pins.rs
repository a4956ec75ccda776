//! The folder on the BPF file system through which the program's instances share their maps, and
//! other commands find them.

use std::{
    fs::{self, File, TryLockError},
    io::ErrorKind,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use tracing::warn;

const BPF_FILE_SYSTEM: &str = "/sys/fs/bpf";
const ROOT: &str = "/sys/fs/bpf/xdp-dedup";

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
    /// Where no BPF file system is mounted, another `run` holds the lock, or the file system refuses.
    pub fn create() -> Result<Self> {
        if !statfs(BPF_FILE_SYSTEM).is_ok_and(|status| status.filesystem_type() == BPF_FS_MAGIC) {
            bail!(
                "no BPF file system is mounted at {BPF_FILE_SYSTEM}, where the maps are to be \
                 pinned: `mount -t bpf bpf {BPF_FILE_SYSTEM}` (`ip netns exec` hides it; \
                 `nsenter --net=/run/netns/NAME` does not)"
            );
        }
        let path = Path::new(ROOT).join(format!("netns-{}", network_namespace()?));
        fs::create_dir_all(&path).with_context(|| {
            crate::privileges::advice(&format!("make the folder {}", path.display()))
        })?;
        let folder = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
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
        let pins = Self { path, _lock: folder };
        // A killed predecessor leaves its pins; its maps are of no use to this one.
        pins.clear()?;
        Ok(pins)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn clear(&self) -> Result<()> {
        let failed = || format!("cannot remove old pins in {}", self.path.display());
        for entry in fs::read_dir(&self.path).with_context(failed)? {
            fs::remove_file(entry.with_context(failed)?.path()).with_context(failed)?;
        }
        Ok(())
    }
}

impl Drop for PinFolder {
    fn drop(&mut self) {
        let removed = self.clear().and_then(|()| {
            fs::remove_dir(&self.path)?;
            match fs::remove_dir(ROOT) {
                // Other network namespaces have theirs.
                Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => Err(error.into()),
                _ => Ok(()),
            }
        });
        if let Err(error) = removed {
            warn!("{error:#}");
        }
    }
}

/// Inode number of this process's network namespace, which is its name within a boot.
fn network_namespace() -> Result<u64> {
    const NAMESPACE: &str = "/proc/self/ns/net";
    Ok(fs::metadata(NAMESPACE).with_context(|| format!("cannot read {NAMESPACE}"))?.ino())
}
