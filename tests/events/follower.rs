//! A running `xdp-dedup events`, and what it says.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::PathBuf,
    process::{Child, ChildStdout, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use testbed::wait::until;
use testbed::{binary::binary, daemon::Daemon};
use xdp_dedup::maps::SharedMaps;

use crate::bed::Bed;

/// Most time that anything may take to show.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Follower {
    child: Child,
    stdout: Output,
}

enum Output {
    Unread(ChildStdout),
    Read(Receiver<String>),
}

/// How it ended, and what it said that was not looked at before.
#[derive(Debug)]
pub struct End {
    pub code: Option<i32>,
    pub lines: Vec<String>,
    pub stderr: String,
}

impl Follower {
    /// Starts one, and waits until it listens.
    pub fn start(bed: &Bed, arguments: &[&str]) -> Result<Self> {
        let mut follower = Self::start_unread(bed, arguments)?;
        follower.read();
        Ok(follower)
    }

    /// The same, whose output nobody reads for now.
    pub fn start_unread(bed: &Bed, arguments: &[&str]) -> Result<Self> {
        let mut command = bed.command(&binary()?);
        command.arg("events").args(arguments);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("no stdout")?;
        let mut follower = Self {
            child,
            stdout: Output::Unread(stdout),
        };
        let maps = maps(bed, follower.pid())?;
        let before = maps.wanted_events()?;
        until("a listener", || {
            let wanted = maps.wanted_events()?;
            if let Some(status) = follower.child.try_wait()? {
                bail!("it gave up: {status}");
            }
            Ok((wanted != before && !wanted.is_nothing()).then_some(()))
        })?;
        Ok(follower)
    }

    /// Begins to read the output.
    pub fn read(&mut self) {
        let (sender, receiver) = channel();
        if let Output::Unread(stdout) = std::mem::replace(&mut self.stdout, Output::Read(receiver))
        {
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The next line.
    pub fn line(&self) -> Result<String> {
        let Output::Read(lines) = &self.stdout else {
            bail!("nobody reads");
        };
        lines.recv_timeout(PATIENCE).context("no more lines")
    }

    /// The next line, as JSON.
    pub fn json(&self) -> Result<Value> {
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| line)
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.pid(), signal)?)
    }

    /// Sends a signal and waits for the end.
    pub fn stop(self, signal: Signal) -> Result<End> {
        self.signal(signal)?;
        self.end()
    }

    /// Waits for the end.
    pub fn end(mut self) -> Result<End> {
        let status = until("the end of `events`", || Ok(self.child.try_wait()?))?;
        let mut stderr = String::new();
        let pipe = self.child.stderr.take().context("no stderr")?;
        BufReader::new(pipe).read_to_string(&mut stderr)?;
        let lines = match std::mem::replace(&mut self.stdout, Output::Read(channel().1)) {
            Output::Read(lines) => lines.iter().collect(),
            Output::Unread(stdout) => BufReader::new(stdout).lines().collect::<Result<_, _>>()?,
        };
        Ok(End {
            code: status.code(),
            lines,
            stderr,
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended already; then neither has anything to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The maps as a process sees them that is in the bed.
pub fn maps(bed: &Bed, process: Pid) -> Result<SharedMaps> {
    let list = bed.pins.list(&bed.server)?;
    let table = list.lines().find(|line| line.ends_with("/TABLE"));
    let folder = table.and_then(|line| line.strip_suffix("/TABLE"));
    let folder = folder.with_context(|| format!("no maps: {list}"))?;
    // The process may not have entered its mounts yet.
    let path = PathBuf::from(format!("/proc/{process}/root/sys/fs/bpf/{folder}"));
    until("the mounts", || Ok(path.exists().then_some(())))?;
    SharedMaps::open(&path)
}

/// The same of the daemon.
pub fn maps_of(bed: &Bed, daemon: &Daemon) -> Result<SharedMaps> {
    maps(bed, daemon.pid())
}
