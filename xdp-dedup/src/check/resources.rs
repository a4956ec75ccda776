//! What `run` takes hold of beside interfaces: the BPF file system, its folder there, and the port of
//! its exporter; and whether another `run` has them already. Nothing is made or locked.

use std::{
    fs,
    io::{self, ErrorKind},
    net::SocketAddr,
    os::unix::fs::MetadataExt as _,
};

use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    unistd::{AccessFlags, faccessat, geteuid},
};
use tokio::net::TcpSocket;

use super::report::{Line, Outcome, Subject};
use crate::{
    pins::{self, BPF_FILE_SYSTEM, HOW_TO_MOUNT},
    settings::DEFAULT_METRICS,
};

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Resources {
    /// The lines.
    pub lines: Vec<Line>,
    /// Id of the process that is at work in this network namespace.
    pub running: Option<u32>,
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
    } else if pins::is_mounted() {
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
    if !pins::is_mounted() {
        return line(
            format!("none at {place}, where `run` pins its maps"),
            Outcome::Fail(HOW_TO_MOUNT.to_owned()),
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
        let folder = match pins::namespace_folder() {
            Ok(folder) => folder,
            Err(error) => {
                let advice = "mount proc: `mount -t proc proc /proc`".to_owned();
                let line = line(format!("{error:#}"), Outcome::Fail(advice));
                return self.lines.push(line);
            }
        };
        // The folder of all network namespaces, then that of this one.
        for path in folder.parent().into_iter().chain([folder.as_path()]) {
            let shown = path.display();
            match fs::symlink_metadata(path) {
                Ok(status) if pins::is_own(&status) => {}
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
            .and_then(|status| pins::lock_holder(&status).ok().flatten());
        self.kept = pins::linked_programs(&folder);
        self.lines.push(other_run(self.running));
    }
}

fn other_run(running: Option<u32>) -> Line {
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

/// A port that is taken is no failure: which one `run` is to have, if any, is not known here.
fn metrics_port(address: SocketAddr, running: Option<u32>) -> Line {
    let line = |found, advice| Line::new(Subject::MetricsPort, found, Outcome::Warn(advice));
    match try_port(address) {
        Ok(()) => Line::new(
            Subject::MetricsPort,
            format!("{address} is free"),
            Outcome::Ok,
        ),
        Err(error) if error.kind() == ErrorKind::AddrInUse => match running {
            Some(pid) => line(
                format!("{address} is in use, by process {pid} for all that is known"),
                "nothing to do if that one is to stay".to_owned(),
            ),
            None => line(
                format!("{address} is in use"),
                format!(
                    "`ss -ltnp 'sport = :{}'` says by whom; `run` needs another with --metrics \
                     ADDR:PORT, or --metrics off",
                    address.port()
                ),
            ),
        },
        Err(error) => line(
            format!("{address} cannot be had: {error}"),
            format!(
                "is the loopback interface up, with IPv6? Else `run` needs another with --metrics \
                 127.0.0.1:{}, or --metrics off",
                address.port()
            ),
        ),
    }
}

/// Tries whether somebody listens there, without listening: a `run` that starts in this moment gets the
/// port all the same.
fn try_port(address: SocketAddr) -> io::Result<()> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // As std's listener does.
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_in_use_is_told_as_such() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let line = metrics_port(address, None);
        assert!(matches!(&line.outcome, Outcome::Warn(advice) if advice.contains("ss -ltnp")));
        let line = metrics_port(address, Some(1));
        assert!(matches!(&line.outcome, Outcome::Warn(advice) if advice.contains("to stay")));
        drop(taken);
        assert_eq!(metrics_port(address, None).outcome, Outcome::Ok);
    }

    #[test]
    fn who_wants_a_port_that_is_tried_gets_it() {
        let tried = TcpSocket::new_v4().unwrap();
        tried.set_reuseaddr(true).unwrap();
        tried.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        TcpListener::bind(tried.local_addr().unwrap()).unwrap();
    }
}
