//! What one interface on one CPU has seen: the value of the kernel program's counter map.

use bytemuck::{Pod, Zeroable};

use crate::{Decision, Reason, Verdict, time::Microseconds};

/// Upper bounds of the gap histogram's buckets; one more bucket lies beyond the last.
pub const GAP_BOUNDS: [Microseconds; 21] = [
    Microseconds(10),
    Microseconds(20),
    Microseconds(50),
    Microseconds(100),
    Microseconds(200),
    Microseconds(500),
    Microseconds::from_milliseconds(1),
    Microseconds::from_milliseconds(2),
    Microseconds::from_milliseconds(5),
    Microseconds::from_milliseconds(10),
    Microseconds::from_milliseconds(20),
    Microseconds::from_milliseconds(50),
    Microseconds::from_milliseconds(100),
    Microseconds::from_milliseconds(200),
    Microseconds::from_milliseconds(500),
    Microseconds::from_seconds(1),
    Microseconds::from_seconds(2),
    Microseconds::from_seconds(5),
    Microseconds::from_seconds(10),
    Microseconds::from_seconds(20),
    Microseconds::from_seconds(60),
];

const OUTCOMES: usize = Reason::COUNTED * Verdict::ALL.len();

/// Frames and their bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Traffic {
    /// Frames.
    pub packets: u64,
    /// Their bytes, from the Ethernet header on. Of a message that was read whole, those in the frame's
    /// first buffer: only padding could lie in another.
    pub bytes: u64,
}

/// How long after the remembered copy others came.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct GapHistogram {
    /// Frames by gap: in each bucket those up to its bound in [`GAP_BOUNDS`] and beyond the one
    /// before.
    pub buckets: [u64; GAP_BOUNDS.len() + 1],
    /// Sum of all gaps in microseconds.
    pub sum: u64,
}

/// All counters of one interface on one CPU. `repr(C)` without padding, shared with the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct InterfaceCounters {
    outcomes: [Traffic; OUTCOMES],
    /// Gaps of duplicates, escalated copies and retransmissions.
    pub gaps: GapHistogram,
}

impl Default for InterfaceCounters {
    fn default() -> Self {
        Self::zeroed()
    }
}

impl InterfaceCounters {
    /// Counts one frame of `bytes` bytes. The only place that counts; frames that are not DHCPv6 are
    /// not counted.
    #[inline(always)]
    pub fn count(&mut self, decision: &Decision, bytes: usize) {
        let Some(traffic) = self
            .outcomes
            .get_mut(slot(decision.reason_number(), decision.verdict_number()))
        else {
            return;
        };
        traffic.packets += 1;
        traffic.bytes += bytes as u64;
        if let Some(gap) = decision.gap() {
            if let Some(bucket) = self.gaps.buckets.get_mut(bucket(gap)) {
                *bucket += 1;
            }
            self.gaps.sum += gap.0;
        }
    }

    /// The frames that got this verdict for this reason.
    pub fn traffic(&self, reason: Reason, verdict: Verdict) -> Traffic {
        self.outcomes
            .get(slot(reason as u8, verdict as u8))
            .copied()
            .unwrap_or_default()
    }

    /// Adds what another CPU or interface has counted.
    pub fn add(&mut self, other: &Self) {
        for (sum, traffic) in self.outcomes.iter_mut().zip(&other.outcomes) {
            sum.packets += traffic.packets;
            sum.bytes += traffic.bytes;
        }
        for (sum, frames) in self.gaps.buckets.iter_mut().zip(other.gaps.buckets) {
            *sum += frames;
        }
        self.gaps.sum += other.gaps.sum;
    }
}

#[inline(always)]
const fn slot(reason: u8, verdict: u8) -> usize {
    reason as usize * Verdict::ALL.len() + verdict as usize
}

#[inline(always)]
fn bucket(gap: Microseconds) -> usize {
    // Copies lie below a millisecond, retransmissions above: neither pays for the other's buckets.
    const MIDDLE: usize = GAP_BOUNDS.len() / 3;
    let mut bucket = if gap <= GAP_BOUNDS[MIDDLE - 1] {
        0
    } else {
        MIDDLE
    };
    // One end for both: the verifier of Linux 6.1 does not see that an end goes with its beginning.
    while bucket < GAP_BOUNDS.len() && gap > GAP_BOUNDS[bucket] {
        bucket += 1;
    }
    bucket
}

/// Most relays that are counted by themselves; the others are counted together.
pub const MAX_RELAYS: usize = 256;

/// Client messages of one relay on one CPU, by verdict: who wins the race, and who loses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct RelayCounters {
    packets: [u64; Verdict::ALL.len()],
}

impl RelayCounters {
    /// Counts one message.
    #[inline(always)]
    pub fn count(&mut self, decision: &Decision) {
        if let Some(packets) = self.packets.get_mut(usize::from(decision.verdict_number())) {
            *packets += 1;
        }
    }

    /// Whether nothing was counted.
    #[inline(always)]
    pub fn is_zero(&self) -> bool {
        self.packets.iter().all(|&packets| packets == 0)
    }

    /// The messages that got this verdict.
    pub const fn packets(&self, verdict: Verdict) -> u64 {
        self.packets[verdict as usize]
    }

    /// Adds what another CPU has counted.
    pub fn add(&mut self, other: &Self) {
        for (sum, packets) in self.packets.iter_mut().zip(other.packets) {
            *sum += packets;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(reason: Reason, verdict: Verdict, gap: Option<u64>) -> Decision {
        let decision = Decision::new(verdict, reason);
        gap.map_or(decision, |gap| decision.after(Microseconds(gap)))
    }

    #[test]
    fn the_kernel_counts_in_a_value_without_gaps() {
        assert_eq!(size_of::<Traffic>(), 16);
        assert_eq!(
            size_of::<InterfaceCounters>(),
            Reason::COUNTED * Verdict::ALL.len() * 16 + (GAP_BOUNDS.len() + 1) * 8 + 8
        );
    }

    #[test]
    fn every_counted_outcome_has_a_place_of_its_own() {
        let mut counters = InterfaceCounters::default();
        let outcomes = || {
            Reason::ALL[..Reason::COUNTED]
                .iter()
                .flat_map(|reason| Verdict::ALL.map(|verdict| (*reason, verdict)))
        };
        for (n, (reason, verdict)) in outcomes().enumerate() {
            for _ in 0..=n {
                counters.count(&decision(reason, verdict, None), 100 + n);
            }
        }
        for (n, (reason, verdict)) in outcomes().enumerate() {
            let packets = n as u64 + 1;
            let expected = Traffic {
                packets,
                bytes: packets * (100 + n as u64),
            };
            assert_eq!(
                counters.traffic(reason, verdict),
                expected,
                "{reason:?} {verdict:?}"
            );
        }
        assert_eq!(counters.gaps, InterfaceCounters::default().gaps);
    }

    #[test]
    fn what_is_not_dhcp_is_not_counted() {
        let mut counters = InterfaceCounters::default();
        for verdict in Verdict::ALL {
            counters.count(&decision(Reason::NotDhcp, verdict, Some(5)), 100);
            assert_eq!(
                counters.traffic(Reason::NotDhcp, verdict),
                Traffic::default()
            );
        }
        assert_eq!(counters, InterfaceCounters::default());
    }

    #[test]
    fn a_gap_counts_up_to_its_bound_and_not_beyond() {
        for (i, bound) in GAP_BOUNDS.iter().enumerate() {
            assert_eq!(bucket(*bound), i, "{bound:?}");
            assert_eq!(bucket(Microseconds(bound.0 + 1)), i + 1, "beyond {bound:?}");
        }
        assert_eq!(bucket(Microseconds(0)), 0);
        assert_eq!(bucket(Microseconds(u64::MAX)), GAP_BOUNDS.len());
        assert!(GAP_BOUNDS.is_sorted());
    }

    #[test]
    fn sums_of_cpus_lose_nothing() {
        let one = |reason, verdict, gap, bytes| {
            let mut counters = InterfaceCounters::default();
            counters.count(&decision(reason, verdict, gap), bytes);
            counters
        };
        let mut sum = one(Reason::Duplicate, Verdict::Drop, Some(39), 211);
        sum.add(&one(
            Reason::Duplicate,
            Verdict::Drop,
            Some(u64::from(u32::MAX)),
            300,
        ));
        sum.add(&one(Reason::First, Verdict::Pass, None, 211));
        let duplicates = Traffic {
            packets: 2,
            bytes: 511,
        };
        assert_eq!(sum.traffic(Reason::Duplicate, Verdict::Drop), duplicates);
        assert_eq!(
            sum.traffic(Reason::First, Verdict::Pass),
            Traffic {
                packets: 1,
                bytes: 211
            }
        );
        assert_eq!(sum.gaps.sum, 39 + u64::from(u32::MAX));
        assert_eq!(sum.gaps.buckets.iter().sum::<u64>(), 2);
        assert_eq!((sum.gaps.buckets[2], sum.gaps.buckets[21]), (1, 1));
    }
}
