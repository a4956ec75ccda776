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
const MAX_TRANSMISSIONS: u8 = EscalateEvery::MOST.transmissions();
const _: () = assert!(MAX_TRANSMISSIONS as u32 == (1 << TRANSMISSION_BITS) - 1);

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
        let (stamped, gap) = self.stamped(now);
        if gap >= FORGOTTEN {
            return Standing::Forgotten;
        }
        let tag = (self.0 >> TAG_SHIFT) as u16;
        if tag == digest.0 ^ turn(stamped) && gap < policy.window().length() {
            Standing::Copy(gap)
        } else {
            Standing::Later(gap)
        }
    }

    /// Whether this sighting no longer counts, whatever the message.
    #[cfg(feature = "std")]
    pub(crate) fn is_forgotten(self, now: Timestamp) -> bool {
        self.at(now).is_none()
    }

    /// When it was, as seen from now; `None` if it no longer counts, whatever the message.
    pub fn at(self, now: Timestamp) -> Option<Timestamp> {
        let (stamped, gap) = self.stamped(now);
        (gap < FORGOTTEN).then_some(stamped)
    }

    /// When it was, as seen from now, and how long ago.
    #[inline(always)]
    fn stamped(self, now: Timestamp) -> (Timestamp, Microseconds) {
        let ahead = self.0.wrapping_sub(now.0) & STAMP_MASK;
        if ahead <= AHEAD.0 {
            (Timestamp(now.0.wrapping_add(ahead)), Microseconds(0))
        } else {
            let gap = (1 << STAMP_BITS) - ahead;
            (Timestamp(now.0.wrapping_sub(gap)), Microseconds(gap))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::digest::DigestKey;

    const POLICY: Policy = Policy::new(DigestKey::FIXED);

    fn every(transmissions: u8) -> EscalateEvery {
        EscalateEvery::new(transmissions).unwrap()
    }

    #[test]
    fn a_sighting_is_one_word() {
        assert_eq!((size_of::<Sighting>(), align_of::<Sighting>()), (8, 8));
    }

    #[test]
    fn transmissions_escalate_by_their_number_however_many_there_were() {
        for n in 0..=63 {
            let mut sighting = Sighting::first(Digest(0xffff), Timestamp(u64::MAX));
            for transmission in 1..500_u32 {
                let escalates = n != 0 && transmission % u32::from(n) == 0;
                assert_eq!(
                    sighting.is_escalated(every(n)),
                    escalates,
                    "transmission {transmission} of every {n}"
                );
                if transmission <= 63 {
                    assert_eq!(u32::from(sighting.transmission()), transmission);
                }
                sighting = sighting.next(Digest(0), Timestamp(0), every(n));
            }
        }
    }

    #[test]
    fn a_count_that_escalates_never_stands_still() {
        for n in 0..=63 {
            let sighting =
                (0..1000).fold(Sighting::first(Digest(1), Timestamp(1)), |sighting, _| {
                    assert_ne!(sighting.transmission(), 0);
                    sighting.next(Digest(1), Timestamp(1), every(n))
                });
            // Where nothing escalates it stays at the most, ready for a change of policy.
            assert!(n != 0 || sighting.transmission() == 63);
        }
    }

    #[test]
    fn count_time_and_digest_do_not_touch_one_another() {
        for (digest, time) in [
            (0, 0),
            (0xffff, 0),
            (0, STAMP_MASK),
            (0xffff, STAMP_MASK),
            (0xa5, 7),
        ] {
            let mut sighting = Sighting::first(Digest(digest), Timestamp(time));
            for transmission in 1..63 {
                assert_eq!(sighting.transmission(), transmission);
                assert_eq!(sighting.0 & STAMP_MASK, time);
                assert_eq!(sighting.0 >> TAG_SHIFT, u64::from(digest));
                sighting = sighting.next(Digest(digest), Timestamp(time), every(0));
            }
        }
    }

    /// Time spans about everything that a line is drawn at.
    fn span() -> impl Strategy<Value = u64> {
        let lines = [0, 200_000, AHEAD.0, FORGOTTEN.0, 1 << 42, 1 << 58];
        prop_oneof![
            (prop::sample::select(lines.to_vec()), -2_i64..=2)
                .prop_map(|(line, offset)| line.saturating_add_signed(offset)),
            0..FORGOTTEN.0 * 2,
        ]
    }

    proptest! {
        #[test]
        fn a_sighting_stands_as_whole_times_would_have_it(
            stamp in (1_u64 << 43)..1 << 57,
            span in span(),
            forward in any::<bool>(),
            digests in any::<(u16, u16)>(),
            same in any::<bool>(),
        ) {
            let (was, is) = (Digest(digests.0), Digest(if same { digests.0 } else { digests.1 }));
            // Beyond that, stamps alias: the next test.
            prop_assume!(span < 1 << 41);
            let now = Timestamp(if forward { stamp + span } else { stamp - span });
            let expected = match (forward || span == 0, span) {
                (true, gap) if gap >= 70 * 60 * 1_000_000 => Standing::Forgotten,
                (true, gap) if was == is && gap < 200_000 => Standing::Copy(Microseconds(gap)),
                (true, gap) => Standing::Later(Microseconds(gap)),
                (false, ahead) if ahead > 1_000_000 => Standing::Forgotten,
                (false, _) if was == is => Standing::Copy(Microseconds(0)),
                (false, _) => Standing::Later(Microseconds(0)),
            };
            let sighting = Sighting::first(was, Timestamp(stamp));
            prop_assert_eq!(sighting.standing(is, now, &POLICY), expected);
        }

        #[test]
        fn the_same_bytes_some_turns_of_the_stamp_away_are_no_copy(
            stamp in (1_u64 << 52)..1 << 57,
            turns in 1_u64..1000,
            offset in -2_000_000_i64..2_000_000,
            forward in any::<bool>(),
            digest in any::<u16>(),
        ) {
            let turns = turns << STAMP_BITS;
            let now = if forward { stamp + turns } else { stamp - turns }
                .wrapping_add_signed(offset);
            let sighting = Sighting::first(Digest(digest), Timestamp(stamp));
            let standing = sighting.standing(Digest(digest), Timestamp(now), &POLICY);
            prop_assert!(!matches!(standing, Standing::Copy(_)), "{standing:?}");
        }
    }
}
