//! Machines of the lab: each has a network, a process table and a file system of its own.
//!
//! The file system is Debian's packages as the set-up unpacked them, with a layer of memory above
//! that takes what is written. Everything hangs on one process, the machine's init: when it ends,
//! the kernel kills whatever runs in the machine, and takes away its file system and interfaces.
//! It ends when its standard input does, which this process holds: so nothing outlives the lab,
//! whatever ends it. A look inside from another terminal: `nsenter --target PID --all`.

pub mod boot;
mod root;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::net::Ipv6Addr;
use std::os::unix::process::CommandExt as _;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::sethostname;
use testbed::namespace::Namespace;

use crate::process::Process;
use root::Root;

/// Where the machines' programs lie.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/systemd";

/// Where a machine keeps what its programs print.
const LOGS: &str = "/var/log/lab";

/// Most time that a program may take that is to end by itself.
const ERRAND: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const GLANCE: Duration = Duration::from_millis(5);

/// A machine. Clones are handles of the same one.
#[derive(Clone)]
pub struct Machine {
    /// Its name, which its programs see as the host name.
    pub name: &'static str,
    /// Its network.
    pub namespace: Namespace,
    init: Arc<Init>,
}

struct Init {
    child: std::sync::Mutex<Child>,
    pid: u32,
    _life: Life,
    mounts: File,
    host_name: File,
    processes: File,
    logs: AtomicUsize,
}

/// What a machine lives by.
#[expect(dead_code, reason = "it is held")]
enum Life {
    /// While this is open.
    Input(ChildStdin),
    /// As long as the machine around it, and then its control group goes.
    Within(Machine, boot::ControlGroup),
}

impl Machine {
    /// Starts one with the system that lies in `system`, which has `root` with the packages and the
    /// empty folder `machine`. Its interfaces get link-local addresses.
    ///
    /// # Errors
    ///
    /// Without root, and in a kernel without overlayfs or namespaces.
    pub fn new(system: &Path, name: &'static str) -> Result<Self> {
        let namespace = Namespace::new(name)?;
        namespace.sysctl("net/ipv6/conf/default/addr_gen_mode", "0")?;
        namespace
            .sysctl("net/ipv6/conf/all/dad_transmits", "0")
            .ok();
        namespace.sysctl("net/ipv6/conf/default/dad_transmits", "0")?;
        Self::on(system, name, namespace)
    }

    /// As [`new`](Self::new), on a network that is there already.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn on(system: &Path, name: &'static str, namespace: Namespace) -> Result<Self> {
        let init = Init::start(system, name, &namespace)
            .with_context(|| format!("cannot start the machine `{name}`"))?;
        let machine = Self {
            name,
            namespace,
            init: Arc::new(init),
        };
        fs::create_dir_all(machine.path(LOGS))?;
        Ok(machine)
    }

    /// The process id of its init: `nsenter --target` enters by it.
    pub fn pid(&self) -> u32 {
        self.init.pid
    }

    /// Where a file of the machine's is seen from outside.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init.pid))
    }

    /// Writes a file in the machine, and the folders that lead to it.
    ///
    /// # Errors
    ///
    /// Where the machine is gone.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let outside = self.path(path);
        let written = match outside.parent() {
            Some(folder) => fs::create_dir_all(folder),
            None => Ok(()),
        };
        written
            .and_then(|()| fs::write(&outside, content))
            .with_context(|| format!("cannot write {path} in {}", self.name))
    }

    /// Reads a text file in the machine; one that is not there is empty.
    pub fn read(&self, path: &str) -> String {
        let bytes = fs::read(self.path(path)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether something in it listens on this UDP port, on IPv6.
    pub fn listens(&self, port: u16) -> bool {
        // linux/net/ipv6: address and port in hexadecimal are the second field.
        let sockets = fs::read_to_string(format!("/proc/{}/net/udp6", self.init.pid));
        let port = format!(":{port:04X}");
        sockets.is_ok_and(|sockets| {
            let mut locals = sockets
                .lines()
                .filter_map(|line| line.split_whitespace().nth(1));
            locals.any(|local| local.ends_with(&port))
        })
    }

    /// The addresses of global scope that its interface has.
    ///
    /// # Errors
    ///
    /// Where the machine is gone.
    pub fn addresses(&self, interface: &str) -> Result<BTreeSet<Ipv6Addr>> {
        // linux/net/ipv6/addrconf.c: address, index, prefix length, scope, flags, name.
        let all = fs::read_to_string(format!("/proc/{}/net/if_inet6", self.init.pid))
            .with_context(|| format!("cannot read the addresses of {}", self.name))?;
        let address = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
            [address, _, _, "00", _, name] if name == interface => {
                u128::from_str_radix(address, 16).ok().map(Ipv6Addr::from)
            }
            _ => None,
        };
        Ok(all.lines().filter_map(address).collect())
    }

    /// Waits until its interface has these addresses of global scope, and no others.
    ///
    /// # Errors
    ///
    /// With those that it has, where it has not come to that in time.
    pub fn until_it_has(
        &self,
        interface: &str,
        addresses: &BTreeSet<Ipv6Addr>,
        patience: Duration,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            let has = self.addresses(interface)?;
            if has == *addresses {
                return Ok(());
            }
            if start.elapsed() > patience {
                bail!(
                    "{interface} of {} has {has:?}, and not {addresses:?}",
                    self.name
                );
            }
            thread::sleep(GLANCE);
        }
    }

    /// Whether something in it has joined this multicast group on this interface.
    pub fn has_joined(&self, interface: &str, group: Ipv6Addr) -> bool {
        // linux/net/ipv6: the interface and the group in hexadecimal are the second and third field.
        let groups = fs::read_to_string(format!("/proc/{}/net/igmp6", self.init.pid));
        let group = format!("{:032x}", group.to_bits());
        groups.is_ok_and(|groups| {
            let mut lines = groups.lines().map(str::split_whitespace);
            lines.any(|mut words| words.nth(1) == Some(interface) && words.next() == Some(&group))
        })
    }

    /// Starts a program, whose output goes to a log in the machine.
    ///
    /// # Errors
    ///
    /// Where the machine has no such program.
    pub fn start<I>(&self, program: &str, arguments: I) -> Result<Process>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        self.start_with(program, arguments, |_| {})
    }

    /// As [`start`](Self::start), after a last change to the command.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_with<I>(
        &self,
        program: &str,
        arguments: I,
        change: impl FnOnce(&mut Command),
    ) -> Result<Process>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let name = program.rsplit('/').next().unwrap_or(program);
        let number = self.init.logs.fetch_add(1, Ordering::Relaxed);
        let log = format!("{LOGS}/{number}-{name}.log");
        let file = File::create(self.path(&log))?;
        let mut command = self.command(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        change(&mut command);
        let child = self
            .in_process_table(|| command.spawn())?
            .with_context(|| format!("cannot start {program} in {}", self.name))?;
        Ok(Process {
            machine: self.clone(),
            name: name.to_owned(),
            log,
            child,
        })
    }

    /// Runs a program to its end, and hands back what it printed.
    ///
    /// # Errors
    ///
    /// With what it printed, where it fails or has not ended in half a minute, or cannot be started.
    pub fn run<I>(&self, program: &str, arguments: I) -> Result<String>
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        let mut process = self.start(program, arguments)?;
        let status = process.wait(ERRAND)?;
        if !status.success() {
            bail!(
                "{program} in {}: {status}: {}",
                self.name,
                process.last_words()
            );
        }
        Ok(process.log())
    }

    /// Loads a ruleset of nftables into the machine.
    ///
    /// # Errors
    ///
    /// With nft's complaint.
    pub fn nft(&self, ruleset: &str) -> Result<()> {
        self.write("/etc/lab.nft", ruleset)?;
        self.run("nft", ["-f", "/etc/lab.nft"]).map(drop)
    }

    /// A command in the machine's network and file system; its process table is joined by the
    /// thread that starts it.
    fn command(&self, program: &str) -> Command {
        let mut command = self.namespace.plain_command(program);
        command
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .env("HOME", "/root");
        let init = Arc::clone(&self.init);
        let enter = move || {
            setns(&init.host_name, CloneFlags::CLONE_NEWUTS)?;
            setns(&init.mounts, CloneFlags::CLONE_NEWNS)?;
            Ok(())
        };
        // SAFETY: between fork and exec this makes system calls only, on descriptors that the
        // closure keeps open.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs `f` on a thread whose children go to the machine's process table.
    fn in_process_table<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        on_a_thread(|| setns(&self.init.processes, CloneFlags::CLONE_NEWPID).map(|()| f()))
            .with_context(|| format!("cannot enter {}", self.name))
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (process {})", self.name, self.init.pid)
    }
}

impl Init {
    fn start(system: &Path, name: &'static str, namespace: &Namespace) -> Result<Self> {
        let mut command = namespace.plain_command("/usr/bin/cat");
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let root = Root::new(system)?;
        let enter = move || {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)?;
            sethostname(name)?;
            root.enter()
        };
        // SAFETY: between fork and exec this makes system calls only: every path was made before.
        unsafe { command.pre_exec(enter) };
        let mut child = on_a_thread(|| unshare(CloneFlags::CLONE_NEWPID).map(|()| command.spawn()))
            .context("cannot make a process table")??;
        let life = child.stdin.take().context("init has no input")?;
        let pid = child.id();
        Self::of(child, pid, Life::Input(life))
    }

    /// That of the process `pid`, which is in its namespaces already and ends with `child`.
    fn of(child: Child, pid: u32, life: Life) -> Result<Self> {
        let open = |kind: &str| {
            let path = format!("/proc/{pid}/ns/{kind}");
            File::open(&path).with_context(|| format!("cannot open {path}"))
        };
        Ok(Self {
            mounts: open("mnt")?,
            host_name: open("uts")?,
            processes: open("pid")?,
            child: std::sync::Mutex::new(child),
            pid,
            _life: life,
            logs: AtomicUsize::new(0),
        })
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        // With it goes all that runs in the machine.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// A thread takes a namespace without the others of its process.
fn on_a_thread<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(f);
        thread
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}
