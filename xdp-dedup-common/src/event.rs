//! What the kernel program tells `events` of a frame, and what it is asked to tell. None of it
//! touches the decision, which has been made and counted by then.

use bytemuck::{Pod, Zeroable};

use crate::{Decision, Packet, Reason, Verdict, interface::MAX_INTERFACES, packet::Bytes};

/// Bytes of the ring buffer: some 3500 events of usual frames, 500 of the longest.
pub const RING_BYTES: usize = 1 << 20;

/// Bytes of a frame that a short record has room for: a relayed message of the usual length.
pub const SHORT: usize = 256;

/// Bytes of a frame that a long record has room for: any frame on an MTU of 1500 bytes. Of longer ones
/// the beginning is told.
pub const LONG: usize = 2048;

/// A set of outcomes: pairs of a verdict and its reason.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Outcomes(u64);

const _: () = assert!(Reason::ALL.len() * Verdict::ALL.len() <= u64::BITS as usize);

impl Outcomes {
    /// All that can occur with one of these verdicts and one of these reasons.
    pub fn of(verdicts: &[Verdict], reasons: &[Reason]) -> Self {
        let mut outcomes = Self::default();
        for reason in reasons {
            for verdict in reason.verdicts() {
                if verdicts.contains(verdict) {
                    outcomes.0 |= 1 << place(*reason as u8, *verdict as u8);
                }
            }
        }
        outcomes
    }

    /// Whether there are none.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this decision is one of them.
    #[inline(always)]
    pub const fn contains(self, decision: Decision) -> bool {
        let place = place(decision.reason_number(), decision.verdict_number());
        self.0.wrapping_shr(place) & 1 != 0
    }
}

#[inline(always)]
const fn place(reason: u8, verdict: u8) -> u32 {
    reason as u32 * Verdict::ALL.len() as u32 + verdict as u32
}

/// A set of interfaces, by their slots.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Slots(u64);

const _: () = assert!(MAX_INTERFACES <= u64::BITS as usize);

impl FromIterator<u32> for Slots {
    fn from_iter<T: IntoIterator<Item = u32>>(slots: T) -> Self {
        let in_range = slots.into_iter().filter(|slot| *slot < u64::BITS);
        Self(in_range.fold(0, |all, slot| all | 1 << slot))
    }
}

impl Slots {
    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the interface in this slot is one of them.
    #[inline(always)]
    pub const fn contains(self, slot: u32) -> bool {
        self.0.wrapping_shr(slot) & 1 != 0
    }
}

/// What somebody wants to be told, and until when: a lease, so that one who is killed costs nothing
/// for long. All zeros, as a fresh map has it, for nothing. `repr(C)` without padding: the value of a
/// map.
///
/// A reader may see a change half made; each field holds a valid value at all times.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Wanted {
    outcomes: Outcomes,
    interfaces: Slots,
    until: u64,
}

impl Wanted {
    /// These outcomes on these interfaces, until a time in nanoseconds by the kernel's monotonic
    /// clock.
    pub const fn new(outcomes: Outcomes, interfaces: Slots, until: u64) -> Self {
        Self {
            outcomes,
            interfaces,
            until,
        }
    }

    /// Whether it wants this decision of the interface in this slot, the lease aside. All that a frame
    /// pays while nobody listens is that this finds nothing wanted.
    #[inline(always)]
    pub const fn wants(&self, decision: Decision, slot: u32) -> bool {
        self.outcomes.contains(decision) && self.interfaces.contains(slot)
    }

    /// Whether it wants nothing at all.
    pub const fn is_nothing(&self) -> bool {
        self.outcomes.is_empty() || self.interfaces.is_empty()
    }

    /// Whether the lease is over at this time.
    #[inline(always)]
    pub const fn is_over(&self, now: u64) -> bool {
        now >= self.until
    }

    /// Wants nothing any more: after the end of a lease not even the clock is read.
    #[inline(always)]
    pub const fn end(&mut self) {
        self.outcomes = Outcomes(0);
    }
}

/// The beginning of a record in the ring buffer. `repr(C)` without padding.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Header {
    /// When the frame was decided on, in nanoseconds by the kernel's monotonic clock.
    pub time: u64,
    /// What became of it.
    pub decision: Decision,
    /// Slot of the interface that it came in by.
    pub slot: u32,
    /// Its length in bytes.
    pub length: u32,
    /// How many of its first bytes follow.
    pub captured: u32,
    /// Zero.
    pub reserved: u32,
}

/// A record in the ring buffer, with room for the first `N` bytes of the frame.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Record<const N: usize> {
    /// Its beginning.
    pub header: Header,
    /// The frame, from its Ethernet header on; what lies behind `captured` bytes means nothing.
    pub frame: [u8; N],
}

/// A record as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// When the frame was decided on, in nanoseconds by the kernel's monotonic clock.
    pub time: u64,
    /// What became of it.
    pub decision: Decision,
    /// Slot of the interface that it came in by.
    pub slot: u32,
    frame: &'a [u8],
    length: usize,
}

impl<'a> Event<'a> {
    /// Reads a record; `None` if it is none.
    pub fn read(record: &'a [u8]) -> Option<Self> {
        let (header, frame) = record.split_at_checked(size_of::<Header>())?;
        let header: Header = bytemuck::pod_read_unaligned(header);
        let Header {
            time,
            decision,
            slot,
            length,
            captured,
            reserved: _,
        } = header;
        decision.is_valid().then_some(())?;
        Some(Self {
            time,
            decision,
            slot,
            frame: frame.get(..captured as usize)?,
            length: length as usize,
        })
    }

    /// The frame, as far as it was told.
    pub fn packet(&self) -> impl Packet + 'a {
        Bytes::cut_short(self.frame, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Microseconds;

    /// Every pair, also those that do not occur.
    fn outcomes() -> impl Iterator<Item = (Verdict, Reason)> {
        let reasons = Reason::ALL.iter().copied();
        reasons.flat_map(|reason| Verdict::ALL.map(|verdict| (verdict, reason)))
    }

    #[test]
    fn outcomes_are_those_that_have_both_the_verdict_and_the_reason() {
        const DROPS: &[Verdict] = &[Verdict::Drop];
        const EITHER: &[Verdict] = &[Verdict::Drop, Verdict::WouldDrop];
        for (verdicts, reasons) in [
            (&[][..], Reason::ALL),
            (DROPS, Reason::ALL),
            (EITHER, Reason::ALL),
            (&Verdict::ALL, &[Reason::First, Reason::TableError]),
            (&Verdict::ALL, &[]),
            (EITHER, &[Reason::UntrustedRelay]),
            (DROPS, &[Reason::First]),
        ] {
            let set = Outcomes::of(verdicts, reasons);
            for (verdict, reason) in outcomes() {
                let wanted = verdicts.contains(&verdict)
                    && reasons.contains(&reason)
                    && reason.verdicts().contains(&verdict);
                let decision = Decision::new(verdict, reason).after(Microseconds(u32::MAX.into()));
                assert_eq!(set.contains(decision), wanted, "{verdicts:?} {decision:?}");
            }
        }
        assert!(Outcomes::of(DROPS, &[Reason::First]).is_empty());
        assert!(!Outcomes::of(DROPS, Reason::ALL).is_empty());
    }

    #[test]
    fn what_is_wanted_is_wanted_of_some_interfaces_until_the_lease_is_over() {
        let drops = Outcomes::of(&[Verdict::Drop], Reason::ALL);
        let last = MAX_INTERFACES as u32 - 1;
        let slots: Slots = [0, 3, last, 64, u32::MAX].into_iter().collect();
        let mut wanted = Wanted::new(drops, slots, 1000);
        let dropped = Decision::new(Verdict::Drop, Reason::Duplicate);
        let passed = Decision::new(Verdict::Pass, Reason::First);
        for slot in 0..=last {
            let is_one = [0, 3, last].contains(&slot);
            assert_eq!(wanted.wants(dropped, slot), is_one, "slot {slot}");
            assert!(!wanted.wants(passed, slot), "slot {slot}");
        }
        for (now, is_over) in [(0, false), (999, false), (1000, true), (u64::MAX, true)] {
            assert_eq!(wanted.is_over(now), is_over, "at {now}");
        }
        wanted.end();
        assert!(!wanted.wants(dropped, 0));
        assert!(wanted.is_nothing());
    }

    #[test]
    fn a_fresh_map_wants_nothing() {
        let nothing = Wanted::zeroed();
        assert_eq!(nothing, Wanted::default());
        for (verdict, reason) in outcomes() {
            assert!(!nothing.wants(Decision::new(verdict, reason), 0));
        }
    }

    fn header() -> Header {
        Header {
            time: 5,
            decision: Decision::new(Verdict::Drop, Reason::Duplicate).after(Microseconds(39)),
            slot: 1,
            length: 9000,
            captured: 4,
            reserved: 0,
        }
    }

    fn record(header: Header) -> Vec<u8> {
        let mut record = bytemuck::bytes_of(&header).to_vec();
        record.extend([1, 2, 3, 4, 0xee, 0xee, 0xee]);
        record
    }

    #[test]
    fn an_event_is_read_as_it_was_written() {
        assert_eq!(size_of::<Header>(), 32);
        assert_eq!(size_of::<Record<SHORT>>(), 32 + SHORT);
        let record = record(header());
        let event = Event::read(&record).unwrap();
        assert_eq!((event.time, event.slot), (5, 1));
        assert_eq!(event.decision, header().decision);
        let packet = event.packet();
        assert_eq!(packet.length(), 9000);
        assert_eq!(packet.read::<[u8; 4]>(0), Some([1, 2, 3, 4]));
        assert_eq!(packet.read::<[u8; 5]>(0), None);
    }

    #[test]
    fn what_is_no_record_is_none() {
        let whole = record(header());
        for length in 0..size_of::<Header>() + 4 {
            assert_eq!(Event::read(&whole[..length]), None, "{length} bytes");
        }
        for (place, byte) in [(8, Reason::ALL.len() as u8), (9, 3)] {
            let mut broken = whole.clone();
            broken[place] = byte;
            assert_eq!(Event::read(&broken), None, "byte {place}");
        }
    }
}
