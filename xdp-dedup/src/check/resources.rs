//! What `run` takes hold of beside interfaces: the BPF file system, its folder there, and the port of
//! its exporter; and whether another `run` has them already. Nothing is made or locked.

use std::{
    fs::{self, Metadata},
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use aya::programs::links::{FdLink, PinnedLink};
use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    sys::{
        stat::{major, minor},
        statfs::{BPF_FS_MAGIC, statfs},
    },
    unistd::{AccessFlags, Pid, faccessat, geteuid},
};

use super::report::{Line, Outcome, Subject};
use crate::{
    pins::{BPF_FILE_SYSTEM, ROOT},
    settings::DEFAULT_METRICS,
};

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// The lines.
    pub lines: Vec<Line>,
    /// The `run` that is at work in this network namespace.
    pub running: Option<Pid>,
    /// Ids of the programs that a `run` keeps on their interfaces by pinned links.
    pub kept: Vec<u32>,
}

/// Looks at them.
pub fn look() -> Resources {
    let mut found = Resources::default();
    let file_system = bpf_file_system();
    let is_ours = file_system.outcome == Outcome::Ok;
    found.lines.push(file_system);
    if is_ours {
        found.look_at_folder();
    } else if is_mounted() {
        found.lines.push(Line::new(
            Subject::PinFolder,
            "not looked at, nor whether another `run` is at work",
            Outcome::Warn("look again as root".to_owned()),
        ));
    }
    found
        .lines
        .push(metrics_port(DEFAULT_METRICS, found.running));
    found
}

fn bpf_file_system() -> Line {
    let place = BPF_FILE_SYSTEM;
    let line = |found, outcome| Line::new(Subject::BpfFileSystem, found, outcome);
    if !is_mounted() {
        return line(
            format!("none at {place}, where `run` pins its maps"),
            Outcome::Fail(format!(
                "`mount -t bpf -o mode=700 bpf {place}` (`ip netns exec` hides it; `nsenter \
                 --net=/run/netns/NAME` does not)"
            )),
        );
    }
    let status = match fs::metadata(place) {
        Ok(status) => status,
        Err(error) => {
            let advice = "look again as root".to_owned();
            return line(format!("{place}: {error}"), Outcome::Warn(advice));
        }
    };
    let found = format!("at {place}, mode {:o}", status.mode() & 0o7777);
    let wanted = AccessFlags::W_OK | AccessFlags::X_OK;
    match faccessat(AT_FDCWD, place, wanted, AtFlags::AT_EACCESS) {
        Ok(()) => line(found, Outcome::Ok),
        Err(errno) => line(
            format!("{found}, where this process cannot write: {}", errno.desc()),
            Outcome::Fail(
                "run it as root, or give it CAP_DAC_OVERRIDE; if it is mounted read-only, \
                 `mount -o remount,rw /sys/fs/bpf`"
                    .to_owned(),
            ),
        ),
    }
}

impl Resources {
    fn look_at_folder(&mut self) {
        let line = |found, outcome| Line::new(Subject::PinFolder, found, outcome);
        let folder = match folder() {
            Ok(folder) => folder,
            Err(error) => {
                let advice = "mount proc: `mount -t proc proc /proc`".to_owned();
                let line = line(error.to_string(), Outcome::Fail(advice));
                return self.lines.push(line);
            }
        };
        // The folder of all network namespaces, then that of this one.
        for path in folder.parent().into_iter().chain([folder.as_path()]) {
            let shown = path.display();
            match fs::symlink_metadata(path) {
                Ok(status) if status.is_dir() && is_own(&status) => {}
                Ok(status) if status.uid() == 0 && !geteuid().is_root() => {
                    let advice = "look again as root".to_owned();
                    let line = line(format!("{shown} is root's"), Outcome::Warn(advice));
                    return self.lines.push(line);
                }
                Ok(_) => {
                    let line = line(
                        format!("{shown} belongs to somebody else, or others may write to it"),
                        Outcome::Fail("see who made it, and remove it".to_owned()),
                    );
                    return self.lines.push(line);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.lines.push(line(
                        format!("{}, not there yet", folder.display()),
                        Outcome::Ok,
                    ));
                    return self.lines.push(other_run(None));
                }
                Err(error) => {
                    let advice = "look again as root".to_owned();
                    let line = line(format!("{shown}: {error}"), Outcome::Warn(advice));
                    return self.lines.push(line);
                }
            }
        }
        self.lines
            .push(line(folder.display().to_string(), Outcome::Ok));
        self.running = fs::metadata(&folder)
            .ok()
            .and_then(|status| who_locks(&status, &fs::read_to_string("/proc/locks").ok()?));
        self.kept = kept(&folder).unwrap_or_default();
        self.lines.push(other_run(self.running));
    }
}

/// Which process has locked the whole of a file by flock(2), as the list of all locks tells: to try
/// the lock would stand in the way of a `run` that starts in that moment.
fn who_locks(file: &Metadata, locks: &str) -> Option<Pid> {
    // proc_locks(5): "1: FLOCK  ADVISORY  WRITE 1234 00:1d:5678 0 EOF"; device numbers in hexadecimal.
    let device = file.dev();
    let place = format!("{:02x}:{:02x}:{}", major(device), minor(device), file.ino());
    locks.lines().find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            [_, "FLOCK", _, "WRITE", pid, at, ..] if at == place => {
                pid.parse().ok().map(Pid::from_raw)
            }
            _ => None,
        }
    })
}

/// The programs whose links are pinned in the folder as `link-IFINDEX`: those of `run --persist`.
fn kept(folder: &Path) -> io::Result<Vec<u32>> {
    let mut programs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("link-") {
            let link = PinnedLink::from_pin(entry.path());
            let info = link.and_then(|link| FdLink::from(link).info());
            programs.extend(info.map(|info| info.program_id()));
        }
    }
    Ok(programs)
}

/// Whether a BPF file system is where the pins go.
fn is_mounted() -> bool {
    statfs(BPF_FILE_SYSTEM).is_ok_and(|status| status.filesystem_type() == BPF_FS_MAGIC)
}

/// The folder of this network namespace, whether it is there or not.
fn folder() -> io::Result<PathBuf> {
    let namespace = fs::metadata("/proc/self/ns/net")?.ino();
    Ok(Path::new(ROOT).join(format!("netns-{namespace}")))
}

/// Whether a folder is this user's, and nobody else may change it.
fn is_own(status: &Metadata) -> bool {
    status.uid() == geteuid().as_raw() && status.mode() & 0o022 == 0
}

fn other_run(running: Option<Pid>) -> Line {
    match running {
        None => Line::new(
            Subject::OtherRun,
            "none in this network namespace",
            Outcome::Ok,
        ),
        Some(pid) => Line::new(
            Subject::OtherRun,
            format!("process {pid} is at work in this network namespace"),
            Outcome::Warn(
                "nothing to do if it is the one you want; else stop it first, or give it all \
                 interfaces: they would share one table"
                    .to_owned(),
            ),
        ),
    }
}

fn metrics_port(address: SocketAddr, running: Option<Pid>) -> Line {
    let line = |found, outcome| Line::new(Subject::MetricsPort, found, outcome);
    match TcpListener::bind(address) {
        Ok(_) => line(format!("{address} is free"), Outcome::Ok),
        Err(error) if error.kind() == ErrorKind::AddrInUse => match running {
            Some(pid) => line(
                format!("{address} is in use, by process {pid} for all that is known"),
                Outcome::Warn("nothing to do if that one is to stay".to_owned()),
            ),
            None => line(
                format!("{address} is in use"),
                Outcome::Fail(format!(
                    "`ss -ltnp 'sport = :{}'` says by whom; choose another with --metrics \
                     ADDR:PORT, or --metrics off",
                    address.port()
                )),
            ),
        },
        Err(error) => line(
            format!("{address} cannot be had: {error}"),
            Outcome::Fail(format!(
                "is the loopback interface up, with IPv6? Else choose another with --metrics \
                 127.0.0.1:{}, or --metrics off",
                address.port()
            )),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, process};

    use super::*;

    #[test]
    fn who_locks_a_file_is_found_among_all_locks() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::open(folder.path()).unwrap();
        let status = file.metadata().unwrap();
        let locked_by = || who_locks(&status, &fs::read_to_string("/proc/locks").unwrap());
        assert_eq!(locked_by(), None);
        file.try_lock().unwrap();
        assert_eq!(
            locked_by(),
            Some(Pid::from_raw(process::id().cast_signed()))
        );
        file.unlock().unwrap();
        assert_eq!(locked_by(), None);
    }

    #[test]
    fn a_port_in_use_is_told_as_such() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let line = metrics_port(address, None);
        assert!(matches!(&line.outcome, Outcome::Fail(advice) if advice.contains("ss -ltnp")));
        let line = metrics_port(address, Some(Pid::from_raw(1)));
        assert!(matches!(line.outcome, Outcome::Warn(_)), "{line:?}");
        drop(taken);
        assert_eq!(metrics_port(address, None).outcome, Outcome::Ok);
    }
}
