//! What passes between `replay` and the kernel program, in a map of one value.

use bytemuck::{Pod, Zeroable};

use crate::{Decision, Reason, Verdict, time::Timestamp};

/// The clock that `replay` sets before a frame, and the decision that the kernel program leaves
/// after it. `repr(C)` without padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct ReplaySlot {
    now: u64,
    verdict: u8,
    reason: u8,
    reserved: [u8; 6],
}

impl ReplaySlot {
    /// A clock that stands at `now`. The decision starts as that for a bystander, of which the kernel
    /// program leaves no word.
    pub const fn at(now: Timestamp) -> Self {
        Self {
            now: now.0,
            verdict: Verdict::Pass as u8,
            reason: Reason::NotDhcp as u8,
            reserved: [0; 6],
        }
    }

    /// The time it stands at.
    #[inline(always)]
    pub const fn now(&self) -> Timestamp {
        Timestamp(self.now)
    }

    /// Moves the clock on by a microsecond and gives its last three bytes: for `bench`, which has no
    /// other use for the clock, a row of 2^24 numbers.
    #[inline(always)]
    pub const fn count_up(&mut self) -> [u8; 3] {
        self.now += 1;
        let [a, b, c, ..] = self.now.to_le_bytes();
        [a, b, c]
    }

    /// Leaves a decision.
    #[inline(always)]
    pub const fn decided(&mut self, decision: &Decision) {
        self.verdict = decision.verdict_number();
        self.reason = decision.reason_number();
    }

    /// The decision left here; `None` if there is none.
    pub fn decision(&self) -> Option<(Verdict, Reason)> {
        Some((
            *Verdict::ALL.get(usize::from(self.verdict))?,
            *Reason::ALL.get(usize::from(self.reason))?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_decision_comes_back_as_it_was_left() {
        assert_eq!(size_of::<ReplaySlot>(), 16);
        for reason in Reason::ALL {
            for verdict in Verdict::ALL {
                let mut slot = ReplaySlot::at(Timestamp(u64::MAX));
                assert_eq!(slot.decision(), Some((Verdict::Pass, Reason::NotDhcp)));
                slot.decided(&Decision::new(verdict, *reason));
                assert_eq!(slot.decision(), Some((verdict, *reason)));
                assert_eq!(slot.now(), Timestamp(u64::MAX));
            }
        }
    }

    #[test]
    fn what_is_no_decision_is_none() {
        let slot = ReplaySlot {
            verdict: 3,
            ..ReplaySlot::at(Timestamp(0))
        };
        assert_eq!(slot.decision(), None);
        let slot = ReplaySlot {
            reason: Reason::ALL.len() as u8,
            ..ReplaySlot::at(Timestamp(0))
        };
        assert_eq!(slot.decision(), None);
    }
}
