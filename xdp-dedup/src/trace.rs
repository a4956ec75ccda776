//! The kernel program's own trace lines (`run --trace`), on their way to the daemon's log.

use std::{os::fd::AsFd as _, thread};

use anyhow::{Context as _, Result};
use log::{Log, Metadata, Record};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tracing::{error, info};
use xdp_dedup_common::Decision;

use crate::kernel::Kernel;

/// Hands on what the instance on this interface logs, for as long as this process lives. On a thread
/// of its own: there may be more to log than ever gets done, and signals, the watchdog and scrapes are
/// not to wait for that.
///
/// # Errors
///
/// Where its log cannot be read.
pub fn follow(kernel: &mut Kernel, interface: &str) -> Result<()> {
    let interface = interface.to_owned();
    let mut log = kernel.take_log(InWords { interface })?;
    let follow = move || {
        loop {
            let mut readable = [PollFd::new(log.as_fd(), PollFlags::POLLIN)];
            match poll(&mut readable, PollTimeout::NONE) {
                Ok(_) => log.flush(),
                Err(Errno::EINTR) => {}
                Err(error) => return error!("cannot read the kernel program's log: {error}"),
            }
        }
    };
    thread::Builder::new()
        .name("trace".to_owned())
        .spawn(follow)
        .context("cannot start a thread for the kernel program's log")?;
    Ok(())
}

/// Puts what one instance logs into words, and these into the daemon's log.
struct InWords {
    interface: String,
}

impl Log for InWords {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let text = record.args().to_string();
        let interface = &self.interface;
        match decision(&text) {
            Some(decision) => info!(
                interface,
                verdict = decision.verdict().name(),
                reason = decision.reason().name(),
                gap_us = decision.gap().map(|gap| gap.0),
                "decided"
            ),
            None => info!(interface, "{text}"),
        }
    }

    fn flush(&self) {}
}

/// The decision whose word a line of the kernel program has.
fn decision(text: &str) -> Option<Decision> {
    let word: u64 = text.strip_prefix("decision ")?.parse().ok()?;
    let decision: Decision = bytemuck::cast(word);
    decision.is_valid().then_some(decision)
}

#[cfg(test)]
mod tests {
    use xdp_dedup_common::{Reason, Verdict};

    use super::*;

    #[test]
    fn a_decision_is_read_out_of_its_line_and_nothing_else() {
        // Dropped as a duplicate after 39 us.
        let word = 1 | 1 << 8 | 1 << 16 | 39 << 17;
        let read = decision(&format!("decision {word}")).unwrap();
        assert_eq!(
            (read.verdict(), read.reason()),
            (Verdict::Drop, Reason::Duplicate)
        );
        assert_eq!(read.gap().map(|gap| gap.0), Some(39));
        for text in ["", "decision", "decision x", "decision 255", "other 1"] {
            assert_eq!(decision(text), None, "{text:?}");
        }
    }
}
