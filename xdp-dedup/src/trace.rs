//! The kernel program's own trace lines (`run --trace`), on their way to the daemon's log.

use anyhow::Result;
use log::{Log, Metadata, Record};
use tracing::{error, info};
use xdp_dedup_common::Decision;

use crate::{attachment::Attachment, ring};

/// Hands on what the instance on this interface logs, for as long as this process lives.
///
/// # Errors
///
/// Where its log cannot be read.
pub fn follow(attachment: &mut Attachment) -> Result<()> {
    let interface = attachment.interface.name.clone();
    let mut log = ring::watch(attachment.kernel.take_log(InWords { interface })?)?;
    tokio::spawn(async move {
        loop {
            match log.readable_mut().await {
                Ok(mut ready) => {
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
                Err(error) => return error!("cannot read the kernel program's log: {error}"),
            }
        }
    });
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
