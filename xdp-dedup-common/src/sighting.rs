//! What the table remembers of a transmission, and how a later copy is judged by it.

use bytemuck::{Pod, Zeroable};

use crate::{
    digest::Digest,
    policy::{EscalateEvery, Policy},
    time::{Microseconds, Timestamp},
};

const STAMP_BITS: u32 = 42;
const TRANSMISSION_BITS: u32 = 6;
const TAG_SHIFT: u32 = STAMP_BITS + TRANSMISSION_BITS;
const STAMP_MASK: u64 = (1 << STAMP_BITS) - 1;

/// The most transmissions that a sighting counts.
pub(crate) const MAX_TRANSMISSIONS: u8 = (1 << TRANSMISSION_BITS) - 1;

/// An entry idle for so long counts as none: Solicit backs off to 66 minutes (RFC 9915, section
/// 18.2.1 with 7.6).
pub const FORGOTTEN: Microseconds = Microseconds::from_seconds(70 * 60);

/// An entry stamped up to so much later than now is within the window: another CPU read its clock
/// later and stored first.
pub const AHEAD: Microseconds = Microseconds::from_seconds(1);

/// A transmission by a client: what it said, the how manieth it was, and when its first copy passed.
///
/// One word, so that compare-and-swap is enough between CPUs: 42 bits of the time in microseconds,
/// 6 bits of the count, 16 bits of tag. The tag is the digest with the time's next 16 bits mixed in:
/// bytes seen a whole turn of the 42 bits (50 days) ago do not match, and cannot look like a fresh
/// copy.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Sighting(pub u64);

/// How a message stands to a remembered transmission of its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The same bytes within the window: a copy, this long after the one that passed.
    Copy(Microseconds),
    /// Other bytes, or the window is over: a transmission of its own, this long after that one.
    Later(Microseconds),
    /// What is remembered is too old, or from too far ahead, to count.
    Forgotten,
}

impl Sighting {
    /// The first transmission of a message.
    #[inline(always)]
    pub const fn first(digest: Digest, now: Timestamp) -> Self {
        Self::new(digest, 1, now)
    }

    /// The transmission after this one.
    #[inline(always)]
    pub const fn next(self, digest: Digest, now: Timestamp, every: EscalateEvery) -> Self {
        Self::new(
            digest,
            after(self.transmission(), every.transmissions()),
            now,
        )
    }

    #[inline(always)]
    const fn new(digest: Digest, transmission: u8, now: Timestamp) -> Self {
        let tag = digest.0 ^ turn(now);
        Self((tag as u64) << TAG_SHIFT | (transmission as u64) << STAMP_BITS | now.0 & STAMP_MASK)
    }

    /// The how manieth transmission it was, from 1; past 63 only its remainder by `escalate-every`
    /// is kept.
    #[inline(always)]
    pub const fn transmission(self) -> u8 {
        (self.0 >> STAMP_BITS) as u8 & MAX_TRANSMISSIONS
    }

    /// Whether all copies of this transmission pass.
    #[inline(always)]
    pub const fn is_escalated(self, every: EscalateEvery) -> bool {
        every.transmissions() != 0 && self.transmission().is_multiple_of(every.transmissions())
    }

    /// How a message with this digest, received now, stands to this sighting.
    #[inline(always)]
    pub fn standing(self, digest: Digest, now: Timestamp, policy: &Policy) -> Standing {
        let ahead = self.0.wrapping_sub(now.0) & STAMP_MASK;
        let (stamped, gap) = if ahead <= AHEAD.0 {
            (now.0.wrapping_add(ahead), Microseconds(0))
        } else {
            let gap = (1 << STAMP_BITS) - ahead;
            (now.0.wrapping_sub(gap), Microseconds(gap))
        };
        if gap >= FORGOTTEN {
            return Standing::Forgotten;
        }
        let tag = (self.0 >> TAG_SHIFT) as u16;
        if tag == digest.0 ^ turn(Timestamp(stamped)) && gap < policy.window().length() {
            Standing::Copy(gap)
        } else {
            Standing::Later(gap)
        }
    }
}

/// The 16 bits of a time above those that a sighting stores.
#[inline(always)]
const fn turn(time: Timestamp) -> u16 {
    (time.0 >> STAMP_BITS) as u16
}

/// The number after `transmission`; where it no longer fits, the least one with the same remainder
/// by `every`.
#[inline(always)]
const fn after(transmission: u8, every: u8) -> u8 {
    if transmission < MAX_TRANSMISSIONS {
        transmission + 1
    } else if every == 0 {
        MAX_TRANSMISSIONS
    } else {
        MAX_TRANSMISSIONS % every + 1
    }
}
