//! Network namespaces that leave nothing behind.
//!
//! They have no name. The kernel keeps such a namespace for as long as something holds it: here a
//! file descriptor, and the processes started in it, which die with the thread that started them.
//! So whatever ends this process, a panic, Ctrl-C or SIGKILL, the kernel takes the namespace away
//! with its interfaces and their XDP programs; a guard with a signal handler could not do as much.
//! A look inside from another terminal: `nsenter --net=/proc/PID/fd/FD ip addr`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::panic;
use std::process::{self, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::{fmt, io};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

/// Sysctls of a fresh namespace: an address serves at once, nobody looks for routers, and nothing
/// but the test speaks. In this order: a setting for `default` is what later interfaces start with.
const QUIET: [(&str, &str); 6] = [
    ("net/ipv6/conf/all/disable_ipv6", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    // No link-local address: multicast listener reports would go out from it.
    ("net/ipv6/conf/default/addr_gen_mode", "1"),
];

/// A network namespace of this process's own.
#[derive(Clone)]
pub struct Namespace {
    purpose: &'static str,
    handle: Arc<File>,
}

impl Namespace {
    /// Makes one, with its loopback up; `purpose` stands in error messages.
    ///
    /// # Errors
    ///
    /// Without CAP_SYS_ADMIN and CAP_NET_ADMIN, in a kernel without network namespaces or IPv6, and
    /// where iproute2 is missing.
    pub fn new(purpose: &'static str) -> Result<Self> {
        // On a thread of its own: the calling one stays where it is.
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        })
        .join()
        .unwrap_or_else(|panic| panic::resume_unwind(panic));
        let namespace = Self {
            purpose,
            handle: Arc::new(made.context("cannot make a network namespace (needs root)")?),
        };
        for (key, value) in QUIET {
            namespace.sysctl(key, value)?;
        }
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Runs `f` on a fresh thread in the namespace. Sockets made there stay in the namespace,
    /// wherever they are used; processes started there die with that thread, so start them by
    /// [`command`](Self::command) from a thread that lives longer.
    ///
    /// # Errors
    ///
    /// Where the namespace cannot be entered. A panic of `f` goes on in the caller.
    pub fn inside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| setns(&self.handle, CloneFlags::CLONE_NEWNET).map(|()| f()))
                .join()
                .unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
        .with_context(|| format!("cannot enter namespace `{}`", self.purpose))
    }

    /// A command that will run in the namespace, and die when the thread that starts it ends: also
    /// when this process is killed. `/sys` stays as it is, unlike under `ip netns exec`.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.plain_command(program);
        let parent = process::id();
        let follow = move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            // The parent may have died before it could be watched.
            if getppid().as_raw().cast_unsigned() != parent {
                return Err(io::Error::from(Errno::ESRCH));
            }
            Ok(())
        };
        // SAFETY: between fork and exec this makes system calls only.
        unsafe { command.pre_exec(follow) };
        command
    }

    /// A command that will run in the namespace, and that ends when it likes.
    pub fn plain_command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let handle = Arc::clone(&self.handle);
        let enter = move || {
            setns(&handle, CloneFlags::CLONE_NEWNET)?;
            Ok(())
        };
        // SAFETY: between fork and exec `enter` makes system calls only: it neither allocates nor
        // takes a lock, and its descriptor is open for as long as the command holds the closure.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs `ip` in the namespace with these blank-separated words, and hands back what it printed.
    ///
    /// # Errors
    ///
    /// With what `ip` complained about, where it failed or is not installed.
    pub fn ip(&self, words: &str) -> Result<String> {
        let output = self
            .command("ip")
            .args(words.split_whitespace())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start `ip {words}` (package iproute2)"))?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!(
                "`ip {words}` in namespace `{}`: {}",
                self.purpose,
                complaint.trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Writes a setting of the namespace: a path under `/proc/sys`, and its value.
    ///
    /// # Errors
    ///
    /// Where the kernel lacks the setting or refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.inside(|| fs::write(format!("/proc/sys/{key}"), value))?
            .with_context(|| format!("cannot set {key} to {value}"))
    }

    /// A path by which other processes can reach the namespace, while this one lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.handle.as_raw_fd())
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} at {}", self.purpose, self.path())
    }
}
