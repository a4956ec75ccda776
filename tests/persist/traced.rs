//! A process that is killed just before its n-th change of state: of what is pinned, attached or in a
//! shared map.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// Most time that it may take; every system call of its stops twice.
const PATIENCE: Duration = Duration::from_secs(60);

/// Commands of bpf(2) that change something that outlives the process (linux/bpf.h).
const CHANGING: [u64; 5] = [
    2,  // BPF_MAP_UPDATE_ELEM
    3,  // BPF_MAP_DELETE_ELEM
    6,  // BPF_OBJ_PIN
    28, // BPF_LINK_CREATE
    29, // BPF_LINK_UPDATE
];

/// System calls that change folders.
const FOLDERS: &[libc::c_long] = &[
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_renameat,
];

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Killed before its n-th change.
    Killed,
    /// By itself, with this exit code, having made fewer changes.
    Exited(i32),
}

/// Runs the command until its `n`-th change, from 1, or to its end. When it tells its service manager
/// that it is ready, it gets a SIGTERM.
pub fn run_until(n: usize, command: &mut Command) -> Result<End> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("notify");
    let ready = UnixDatagram::bind(&path)?;
    ready.set_nonblocking(true)?;
    command
        .env("NOTIFY_SOCKET", &path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: between fork and exec this makes one system call.
    unsafe { command.pre_exec(|| ptrace::traceme().map_err(io::Error::from)) };
    let child = command.spawn().context("cannot start it")?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let (over, is_over) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            // It is not waited for before this ends, so the id is still its own.
            if is_over.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        let end = trace(n, pid, &ready);
        drop(over);
        if end.is_err() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        end
    })
}

fn trace(n: usize, pid: Pid, ready: &UnixDatagram) -> Result<End> {
    let first = waitpid(pid, None)?;
    if !matches!(first, WaitStatus::Stopped(_, Signal::SIGTRAP)) {
        bail!("it did not start: {first:?}");
    }
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(pid, options)?;
    let (mut changes, mut forwarded) = (0, None);
    loop {
        ptrace::syscall(pid, forwarded.take())?;
        match waitpid(pid, None)? {
            WaitStatus::PtraceSyscall(_) => {
                // The call that sends it stops at its end, too.
                let mut datagram = [0; 64];
                let told = ready.recv(&mut datagram).unwrap_or(0);
                if datagram[..told].starts_with(b"READY=1") {
                    kill(pid, Signal::SIGTERM)?;
                }
                if !is_change(pid)? {
                    continue;
                }
                changes += 1;
                if changes == n {
                    kill(pid, Signal::SIGKILL)?;
                    waitpid(pid, None)?;
                    return Ok(End::Killed);
                }
            }
            WaitStatus::Stopped(_, signal) => forwarded = Some(signal),
            WaitStatus::Exited(_, code) => return Ok(End::Exited(code)),
            other => bail!("it ended otherwise, or not within {PATIENCE:?}: {other:?}"),
        }
    }
}

/// Whether it is about to make a system call that changes something.
fn is_change(pid: Pid) -> Result<bool> {
    let info = ptrace::syscall_info(pid)?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return Ok(false);
    }
    // SAFETY: for this kind of stop the kernel fills in this member.
    let entry = unsafe { info.u.entry };
    let number = libc::c_long::try_from(entry.nr)?;
    Ok(if number == libc::SYS_bpf {
        CHANGING.contains(&entry.args[0])
    } else {
        FOLDERS.contains(&number)
    })
}
