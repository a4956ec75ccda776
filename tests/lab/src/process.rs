//! Programs at work in a machine.

use std::process::{Child, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::machine::Machine;

/// How often a condition is looked at.
const GLANCE: Duration = Duration::from_millis(5);

/// How long a program may take to end when it is told to.
const PATIENCE: Duration = Duration::from_secs(10);

/// A program at work in a machine. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    pub(crate) machine: Machine,
    pub(crate) name: String,
    /// Where the machine keeps what it prints.
    pub(crate) log: String,
    pub(crate) child: Child,
}

impl Process {
    /// What it has printed so far.
    pub fn log(&self) -> String {
        self.machine.read(&self.log)
    }

    /// Its process id, as seen from outside the machine.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    ///
    /// Where the kernel does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until `done` says so.
    ///
    /// # Errors
    ///
    /// With the end of its log, where it ends before, or `done` has not come true in time.
    pub fn until(
        &mut self,
        what: &str,
        patience: Duration,
        done: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        while !done(self) {
            if let Some(status) = self.ended()? {
                bail!(
                    "{} ended ({status}) before {what}: {}",
                    self.name,
                    self.last_words()
                );
            }
            if start.elapsed() > patience {
                bail!(
                    "{}: no {what} in {patience:?}: {}",
                    self.name,
                    self.last_words()
                );
            }
            thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// Waits until its log holds this text.
    ///
    /// # Errors
    ///
    /// As for [`until`](Self::until).
    pub fn until_it_says(&mut self, text: &str, patience: Duration) -> Result<()> {
        self.until(&format!("`{text}`"), patience, |process| {
            process.log().contains(text)
        })
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// Where it has not ended in time.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if start.elapsed() > patience {
                bail!(
                    "{} has not ended in {patience:?}: {}",
                    self.name,
                    self.last_words()
                );
            }
            thread::sleep(GLANCE);
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// Where it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal::kill(self.pid(), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Sends it a signal, and waits for its end.
    ///
    /// # Errors
    ///
    /// Where it stays for ten seconds.
    pub fn stop(mut self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.wait(PATIENCE)
    }

    pub(crate) fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().map(str::trim).collect();
        lines[lines.len().saturating_sub(6)..].join("; ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; then neither has anything to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
