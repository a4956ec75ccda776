//! A machine with systemd for its init, as a server has it: units, sandboxes, watchdog and journal are
//! the real ones.
//!
//! It stands in a machine that is there already, which takes it away as it takes away everything in
//! it: in a process table of its own, with the file system above the other's. systemd wants a control
//! group, the one thing that does not go by itself.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{GLANCE, Init, LOGS, Life, Machine};

/// Before systemd can start. Its own units are left out but for the journal: they would set up the
/// machine that this one runs on.
const SCRIPT: &str = r#"
set -e
mount -t proc proc /proc
# Most settings there are those of the machine that this one runs on.
mount --bind /proc/sys /proc/sys
mount -o remount,ro,bind /proc/sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# As systemd mounts it on a host.
mount -t bpf -o mode=700,nosuid,nodev,noexec bpf /sys/fs/bpf
mkdir /run/dev
mount -t tmpfs -o mode=755 tmpfs /run/dev
cd /run/dev
for device in null zero full random urandom tty; do
    : > $device
    mount --bind /dev/$device $device
done
mkdir pts shm mqueue hugepages
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=0 devpts pts
ln -s pts/ptmx ptmx
ln -s /proc/self/fd fd
cd /
mount --move /run/dev /dev
mount --make-rshared /
rm -rf /usr/lib/systemd/system/*.wants /usr/lib/systemd/system-generators
echo 5a1c0e1f2d3b4c5d8e9fa0b1c2d3e4f5 > /etc/machine-id
cat > /etc/systemd/system/lab.target <<END
[Unit]
Requires=basic.target systemd-journald.service
After=basic.target systemd-journald.service
END
: > /var/lib/dpkg/status
exec env container=lab /usr/lib/systemd/systemd --unit=lab.target --log-target=journal --show-status=no
"#;

/// Most time that systemd may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the names of the lab's control groups begin with; the process that made it follows.
const GROUP: &str = "xdp-dedup-lab-";

/// A control group, which goes when it is dropped. What is in it must have ended.
pub(super) struct ControlGroup {
    path: PathBuf,
}

impl Machine {
    /// Boots systemd within this machine, and hands back the machine that then is one of its own. Both
    /// have one network.
    ///
    /// # Errors
    ///
    /// Where [`can_boot`] says why, and where systemd does not come up.
    pub fn boot(self) -> Result<Self> {
        let group = ControlGroup::new()?;
        let processes = OpenOptions::new()
            .write(true)
            .open(group.path.join("cgroup.procs"))?;
        let log = File::create(self.path(LOGS).join("systemd.log"))?;
        // The kernel lets only a process of the machine make a process table below the machine's.
        let mut command = self.command("unshare");
        command
            .args([
                "--pid",
                "--mount",
                "--ipc",
                "--cgroup",
                "--fork",
                "--kill-child",
            ])
            .args(["sh", "-c", SCRIPT])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let enter = move || {
            // The one who writes.
            (&processes).write_all(b"0")
        };
        // SAFETY: between fork and exec this makes system calls only, on a descriptor that the closure
        // keeps open.
        unsafe { command.pre_exec(enter) };
        let child = self
            .in_process_table(|| command.spawn())?
            .with_context(|| format!("cannot boot {}", self.name))?;
        let init =
            until_forked(child.id()).with_context(|| format!("cannot boot {}", self.name))?;
        let booted = Self {
            name: self.name,
            namespace: self.namespace.clone(),
            init: Arc::new(Init::of(child, init, Life::Within(self, group))?),
        };
        booted.wait_until_up()?;
        Ok(booted)
    }

    fn wait_until_up(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let state = self
                .run("systemctl", ["is-system-running"])
                .unwrap_or_else(|error| format!("{error:#}"));
            if state.trim() == "running" {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                let log = self.read(&format!("{LOGS}/systemd.log"));
                bail!("systemd does not come up in {}: {state} {log}", self.name);
            }
            thread::sleep(GLANCE);
        }
    }
}

/// The one child that this process is to have.
fn until_forked(parent: u32) -> Result<u32> {
    let start = Instant::now();
    loop {
        // proc_pid_stat(5): the name, in parentheses, then the state, then the parent.
        let child = fs::read_dir("/proc")?.flatten().find_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let (_, rest) = stat.rsplit_once(") ")?;
            (rest.split(' ').nth(1)? == parent.to_string()).then_some(pid)
        });
        if let Some(child) = child {
            return Ok(child);
        }
        if start.elapsed() > PATIENCE {
            bail!("no process comes out of unshare(1)");
        }
        thread::sleep(GLANCE);
    }
}

/// Whether systemd can be booted here.
///
/// # Errors
///
/// With what this machine lacks.
pub fn can_boot() -> Result<()> {
    ControlGroup::new().map(drop)
}

impl ControlGroup {
    fn new() -> Result<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let top = mounted()?;
        remove_orphans(&top);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = top.join(format!("{GROUP}{}-{number}", process::id()));
        fs::create_dir(&path)
            .with_context(|| format!("cannot make the control group {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Where the unified hierarchy of control groups is mounted.
fn mounted() -> Result<PathBuf> {
    // proc_pid_mountinfo(5): the mount point is the fifth field, the type follows a hyphen.
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot list the mounts")?;
    let unified = |line: &&str| line.contains(" - cgroup2 ");
    let line = mounts.lines().find(unified);
    line.and_then(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .context("no control groups of version 2 are mounted")
}

/// Removes the control groups whose makers are gone: a process that is killed cannot.
fn remove_orphans(top: &Path) {
    for entry in fs::read_dir(top).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name
            .strip_prefix(GROUP)
            .and_then(|rest| rest.split('-').next());
        if maker.is_some_and(|maker| !Path::new("/proc").join(maker).exists()) {
            remove(&entry.path());
        }
    }
}

/// Removes a control group and those in it. One that is in use stays.
fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    // It may be gone, or in use; there is nothing to be done about either.
    let _ = fs::remove_dir(group);
}
