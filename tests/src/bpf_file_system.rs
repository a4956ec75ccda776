//! A BPF file system that several processes share, and nobody else sees: what one pins, the next one
//! finds. It goes with the last of them and with this process, and so do its pins.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::panic;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::Pid;

use crate::namespace::Namespace;

/// A mount namespace with such a file system at `/sys/fs/bpf`.
#[derive(Clone, Debug)]
pub struct BpfFileSystem {
    mounts: Arc<File>,
}

impl BpfFileSystem {
    /// Mounts one.
    ///
    /// # Errors
    ///
    /// Without CAP_SYS_ADMIN.
    pub fn new() -> Result<Self> {
        // On a thread of its own: the calling one stays where it is.
        let made = thread::spawn(|| {
            mount_private()?;
            File::open("/proc/thread-self/ns/mnt")
        })
        .join()
        .unwrap_or_else(|panic| panic::resume_unwind(panic));
        Ok(Self {
            mounts: Arc::new(made.context("cannot mount a BPF file system (needs root)")?),
        })
    }

    /// The one that a process sees, which outlives it.
    ///
    /// # Errors
    ///
    /// Where the process is gone.
    pub fn of_process(pid: Pid) -> Result<Self> {
        let mounts = File::open(format!("/proc/{pid}/ns/mnt"))
            .with_context(|| format!("cannot see the mounts of process {pid}"))?;
        Ok(Self {
            mounts: Arc::new(mounts),
        })
    }

    /// Makes a command see it.
    pub fn show_to(&self, command: &mut Command) {
        let mounts = Arc::clone(&self.mounts);
        let enter = move || {
            setns(&mounts, CloneFlags::CLONE_NEWNS)?;
            Ok(())
        };
        // SAFETY: between fork and exec this makes one system call; its descriptor is open for as
        // long as the command holds the closure.
        unsafe { command.pre_exec(enter) };
    }

    /// What is in it below `xdp-dedup`, a path a line, sorted; empty where that is missing.
    ///
    /// # Errors
    ///
    /// Where it cannot be listed.
    pub fn list(&self, namespace: &Namespace) -> Result<String> {
        let mut command = namespace.command("sh");
        command
            .args([
                "-c",
                "cd /sys/fs/bpf && if [ -e xdp-dedup ]; then find xdp-dedup | sort; fi",
            ])
            .stdin(Stdio::null());
        self.show_to(&mut command);
        let output = command.output().context("cannot list the pins")?;
        ensure!(
            output.status.success(),
            "cannot list the pins: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Mounts a BPF file system that nobody but this thread's or process's children see, and that goes
/// with them. It makes system calls only, with constant arguments.
///
/// # Errors
///
/// Without CAP_SYS_ADMIN.
pub fn mount_private() -> io::Result<()> {
    let nothing = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(nothing, c"/", nothing, private, nothing)?;
    mount(
        Some(c"bpf"),
        c"/sys/fs/bpf",
        Some(c"bpf"),
        MsFlags::empty(),
        nothing,
    )?;
    Ok(())
}
