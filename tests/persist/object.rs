//! What is pinned, held or changed behind the daemon's back.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::libc;
use testbed::daemon::Daemon;

/// Commands of bpf(2) (linux/bpf.h).
const OBJ_GET: libc::c_long = 7;
const MAP_FREEZE: libc::c_long = 22;

/// The arguments of both, which begin `union bpf_attr`.
#[repr(C)]
union Arguments {
    path: u64,
    map: RawFd,
}

/// The folder of the only network namespace that has one, reached through the daemon's mounts.
pub fn folder_of(daemon: &Daemon) -> Result<PathBuf> {
    let root = PathBuf::from(format!("/proc/{}/root/sys/fs/bpf/xdp-dedup", daemon.pid()));
    let mut folders = fs::read_dir(root)?;
    Ok(folders.next().context("no folder")??.path())
}

/// Opens what a daemon has pinned under this name, such as `link-2`: it lives for as long as it is
/// held.
pub fn hold(daemon: &Daemon, name: &str) -> Result<OwnedFd> {
    let path = folder_of(daemon)?.join(name);
    let path = CString::new(path.as_os_str().as_bytes())?;
    let fd = bpf(
        OBJ_GET,
        Arguments {
            path: path.as_ptr().addr() as u64,
        },
    )
    .with_context(|| format!("cannot open the pin {name}"))?;
    // SAFETY: the kernel has just made it for this process, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a pinned map one that no process can write to any more.
pub fn freeze(daemon: &Daemon, name: &str) -> Result<()> {
    let map = hold(daemon, name)?;
    let arguments = Arguments {
        map: map.as_raw_fd(),
    };
    bpf(MAP_FREEZE, arguments).with_context(|| format!("cannot freeze {name}"))?;
    Ok(())
}

fn bpf(command: libc::c_long, arguments: Arguments) -> Result<RawFd> {
    // SAFETY: the kernel reads as many bytes as it is told that there are, and follows no pointer but
    // that to the path, which ends in a zero byte; both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw const arguments,
            size_of::<Arguments>(),
        )
    };
    Ok(RawFd::try_from(Errno::result(result)?)?)
}
