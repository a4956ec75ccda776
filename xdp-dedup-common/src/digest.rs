//! What a message says and whose it is, in 16 bits: two copies have the same digest, two different
//! messages almost never.

use bytemuck::{Pod, Zeroable};

use crate::{
    Identity, Packet,
    packet::{BLOCK, fold_words},
    relay_forward::ClientMessage,
};

/// The longest client message in bytes whose copies are recognised: what fits an Ethernet MTU.
pub const MAX_MESSAGE: usize = 1500;

/// The secret under which messages are digested, drawn anew with each new table, so that nobody can
/// make two messages of one identity that look like copies of each other.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct DigestKey {
    addends: [u64; BLOCK + 1],
    multiplier: u64,
}

impl DigestKey {
    /// A key that is the same everywhere, for `replay` and tests.
    pub const FIXED: Self = Self::new([
        0x9e37_79b9_7f4a_7c15,
        0xbf58_476d_1ce4_e5b9,
        0x94d0_49bb_1331_11eb,
        0xd6e8_feb8_6659_fd93,
        0xa076_1d64_78bd_642f,
        0xe703_7ed1_a0b4_28db,
    ]);

    /// A key from 48 secret random bytes.
    pub const fn new([a, b, c, d, e, multiplier]: [u64; BLOCK + 2]) -> Self {
        Self {
            addends: [a, b, c, d, e],
            multiplier: multiplier | 1,
        }
    }
}

/// Digest of a client message under a [`DigestKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(pub u16);

impl Digest {
    /// The digest of every message of an identity under `--identity xid`, where the bytes do not
    /// count. Of another identity it is another: the kernel may have given the entry away.
    #[inline(always)]
    pub const fn of_identity(identity: &Identity, key: &DigestKey) -> Self {
        Self::of_sum(product(identity.folded(), key.addends[0]), key)
    }

    /// Digests a client message of this identity; `None` where it cannot be read whole, or is over
    /// [`MAX_MESSAGE`] bytes long.
    ///
    /// Blocks of four words are hashed by products of secretly shifted halves, and the blocks are
    /// the coefficients of a polynomial in a secret number: NH and its polynomial as in UMAC
    /// (RFC 4418), within the 64-bit products that BPF has.
    #[inline(always)]
    pub fn of<P: Packet>(
        packet: &P,
        message: &ClientMessage,
        identity: &Identity,
        key: &DigestKey,
    ) -> Option<Self> {
        let sum = fold_words::<{ MAX_MESSAGE / 32 }, _, _>(
            packet,
            message.offset,
            message.offset + message.length,
            identity.folded().wrapping_add(message.length as u64),
            |sum, place, word| {
                let sum = if place == 0 {
                    sum.wrapping_mul(key.multiplier)
                } else {
                    sum
                };
                sum.wrapping_add(product(word, key.addends[place]))
            },
        )?;
        Some(Self::of_sum(sum, key))
    }

    #[inline(always)]
    const fn of_sum(sum: u64, key: &DigestKey) -> Self {
        Self(((sum ^ sum >> 32).wrapping_mul(key.multiplier) >> 48) as u16)
    }
}

/// The product of the halves of a word that was secretly shifted.
#[inline(always)]
const fn product(word: u64, addend: u64) -> u64 {
    let word = word.wrapping_add(addend);
    (word & 0xffff_ffff).wrapping_mul(word >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{message::MessageHeader, packet::Bytes};

    /// Numbers that look random and are the same at each run (SplitMix64).
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ z >> 31
        }

        fn below(&mut self, bound: usize) -> usize {
            (self.next() % bound as u64) as usize
        }

        fn message(&mut self, length: usize) -> Vec<u8> {
            (0..length).map(|_| self.next() as u8).collect()
        }

        fn key(&mut self) -> DigestKey {
            DigestKey::new(std::array::from_fn(|_| self.next()))
        }
    }

    /// The message lies behind its envelope, as in every frame.
    fn digest(message: &[u8], key: &DigestKey) -> u16 {
        const ENVELOPE: usize = 100;
        let frame = [&[0xee; ENVELOPE], message, &[0xdd; 5]].concat();
        let message = ClientMessage {
            header: MessageHeader::default(),
            offset: ENVELOPE,
            length: message.len(),
            peer: 0,
            layers: 1,
        };
        Digest::of(&Bytes::new(&frame), &message, &Identity::default(), key)
            .unwrap()
            .0
    }

    /// Of how many messages of `samples` the change keeps the digest, under a new key for each.
    fn collisions(samples: usize, mut change: impl FnMut(&mut Vec<u8>, &mut Numbers)) -> usize {
        let mut numbers = Numbers(547);
        (0..samples)
            .filter(|_| {
                let length = 4 + numbers.below(250);
                // Few values, so that there are equal words and zeros, too.
                let mut message = numbers.message(length);
                if numbers.below(2) == 0 {
                    message.iter_mut().for_each(|byte| *byte &= 1);
                }
                let mut other = message.clone();
                change(&mut other, &mut numbers);
                let key = numbers.key();
                message != other && digest(&message, &key) == digest(&other, &key)
            })
            .count()
    }

    type Change = fn(&mut Vec<u8>, &mut Numbers);

    fn swap(message: &mut [u8], numbers: &mut Numbers, length: usize) {
        let words = message.len() / length;
        let (a, b) = (numbers.below(words.max(1)), numbers.below(words.max(1)));
        if words > 1 {
            (0..length).for_each(|i| message.swap(a * length + i, b * length + i));
        }
    }

    fn flip_tops(message: &mut [u8], numbers: &mut Numbers, length: usize) {
        let words = message.len() / length;
        for word in [numbers.below(words.max(1)), numbers.below(words.max(1))] {
            if let Some(top) = message.get_mut(word * length + length - 1) {
                *top ^= 0x80;
            }
        }
    }

    #[test]
    fn other_messages_have_other_digests() {
        const SAMPLES: usize = 20_000;
        let changes: [(&str, Change); 12] = [
            ("a flipped bit", |message, numbers| {
                let at = numbers.below(message.len());
                message[at] ^= 1 << numbers.below(8);
            }),
            ("another byte", |message, numbers| {
                let at = numbers.below(message.len());
                message[at] = numbers.next() as u8;
            }),
            ("all other bytes", |message, numbers| {
                *message = numbers.message(message.len())
            }),
            ("swapped words of 2 bytes", |message, numbers| {
                swap(message, numbers, 2)
            }),
            ("swapped words of 4 bytes", |message, numbers| {
                swap(message, numbers, 4)
            }),
            ("swapped words of 8 bytes", |message, numbers| {
                swap(message, numbers, 8)
            }),
            ("swapped blocks of 32 bytes", |message, numbers| {
                swap(message, numbers, 32)
            }),
            ("top bits of two words of 4 bytes", |message, numbers| {
                flip_tops(message, numbers, 4)
            }),
            ("top bits of two words of 8 bytes", |message, numbers| {
                flip_tops(message, numbers, 8)
            }),
            ("zeros at the end", |message, numbers| {
                message.resize(message.len() + 1 + numbers.below(9), 0);
            }),
            ("a shorter message", |message, numbers| {
                message.truncate(message.len() - numbers.below(4));
            }),
            ("one up here and one down there", |message, numbers| {
                let (a, b) = (numbers.below(message.len()), numbers.below(message.len()));
                message[a] = message[a].wrapping_add(1);
                message[b] = message[b].wrapping_sub(1);
            }),
        ];
        for (name, change) in changes {
            // Of 2^16 pairs one is to be expected: more than five of 20 000 are a matter of 1 in 10^6.
            let collisions = collisions(SAMPLES, change);
            assert!(
                collisions <= 5,
                "{name}: {collisions} of {SAMPLES} have the same digest"
            );
        }
    }

    #[test]
    fn the_bytes_behind_the_last_word_do_not_stand_for_it() {
        const SAMPLES: usize = 1000;
        let mut numbers = Numbers(8415);
        for rest in 1..8 {
            let collisions = (0..SAMPLES)
                .filter(|_| {
                    let (a, b) = (numbers.message(rest), numbers.message(rest));
                    let zeros = vec![0; 8 - rest];
                    let before = numbers.message(24);
                    let message = [&before[..], &a, &zeros, &b].concat();
                    let exchanged = [&before[..], &b, &zeros, &a].concat();
                    let key = numbers.key();
                    a != b && digest(&message, &key) == digest(&exchanged, &key)
                })
                .count();
            assert!(collisions <= 2, "{rest} bytes: {collisions} of {SAMPLES}");
        }
    }

    #[test]
    fn the_same_bytes_of_other_identities_have_other_digests() {
        let mut numbers = Numbers(9147);
        let mut other = Identity {
            message: MessageHeader::from_wire([1, 2, 3, 4]),
            ..Identity::default()
        };
        let collisions = (0..1000)
            .filter(|_| {
                other.peer = bytemuck::cast([numbers.next(), numbers.next()]);
                let key = numbers.key();
                Digest::of_identity(&other, &key) == Digest::of_identity(&Identity::default(), &key)
            })
            .count();
        assert!(collisions <= 2, "{collisions} of 1000");
    }

    #[test]
    fn every_byte_of_a_message_counts() {
        let mut numbers = Numbers(9915);
        for length in (4..=140).chain([500, 1000, 1499, 1500]) {
            let message = numbers.message(length);
            for at in (0..length).rev().take(150) {
                let mut other = message.clone();
                other[at] ^= 1 << numbers.below(8);
                let differs = (0..3).any(|_| {
                    let key = numbers.key();
                    digest(&message, &key) != digest(&other, &key)
                });
                assert!(differs, "byte {at} of {length}");
            }
        }
    }

    #[test]
    fn the_same_bytes_have_the_same_digest_wherever_they_lie() {
        let mut numbers = Numbers(1);
        for length in 4..200 {
            let bytes = numbers.message(length);
            let at = |offset: usize| {
                let frame = [&vec![0x77; offset], &bytes, &vec![0x11; offset % 7][..]].concat();
                let header = MessageHeader::default();
                let message = ClientMessage {
                    header,
                    offset,
                    length,
                    peer: 0,
                    layers: 1,
                };
                Digest::of(
                    &Bytes::new(&frame),
                    &message,
                    &Identity::default(),
                    &DigestKey::FIXED,
                )
                .unwrap()
            };
            assert!(
                (62..130).all(|offset| at(offset) == at(200)),
                "{length} bytes"
            );
        }
    }

    #[test]
    fn digests_are_spread_evenly_over_messages_and_keys() {
        const SAMPLES: usize = 1 << 16;
        let mut numbers = Numbers(2);
        let message = numbers.message(111);
        let by_key: Vec<_> = (0..SAMPLES)
            .map(|_| digest(&message, &numbers.key()))
            .collect();
        let by_message: Vec<_> = (0..SAMPLES as u32)
            .map(|n| {
                // Messages that differ in little: the transaction-id counts up.
                let mut message = message.clone();
                message[..4].copy_from_slice(&n.to_be_bytes());
                digest(&message, &DigestKey::FIXED)
            })
            .collect();
        for digests in [by_key, by_message] {
            for shift in [0, 8] {
                let mut buckets = [0_i64; 256];
                digests
                    .iter()
                    .for_each(|digest| buckets[usize::from(digest >> shift & 0xff)] += 1);
                // 256 in each, give or take 16: seven times that is a matter of 1 in 10^9.
                assert!(
                    buckets.iter().all(|count| (count - 256).abs() < 112),
                    "bits from {shift} on: {buckets:?}"
                );
            }
        }
    }

    #[test]
    fn a_message_that_cannot_be_read_whole_has_no_digest() {
        let header = MessageHeader::default();
        let message = |length| ClientMessage {
            header,
            offset: 62,
            length,
            peer: 0,
            layers: 0,
        };
        let frame = [0; 5000];
        let packet = Bytes::with_linear_part(&frame, 100);
        assert!(
            Digest::of(
                &packet,
                &message(38),
                &Identity::default(),
                &DigestKey::FIXED
            )
            .is_some()
        );
        assert!(
            Digest::of(
                &packet,
                &message(39),
                &Identity::default(),
                &DigestKey::FIXED
            )
            .is_none()
        );
        let packet = Bytes::new(&frame);
        assert!(
            Digest::of(
                &packet,
                &message(MAX_MESSAGE),
                &Identity::default(),
                &DigestKey::FIXED
            )
            .is_some()
        );
        assert!(
            Digest::of(
                &packet,
                &message(MAX_MESSAGE + 32),
                &Identity::default(),
                &DigestKey::FIXED
            )
            .is_none()
        );
    }

    #[test]
    fn the_kernel_reads_a_key_of_48_bytes() {
        assert_eq!(size_of::<DigestKey>(), 48);
    }
}
