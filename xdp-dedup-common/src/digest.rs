//! What a message says, in 16 bits: two copies have the same digest, two different messages almost
//! never.

use bytemuck::{Pod, Zeroable};

use crate::{
    Packet,
    packet::{BLOCK, fold_words},
    relay_forward::ClientMessage,
};

/// The longest client message in bytes whose copies are recognised: what fits an Ethernet MTU.
pub const MAX_MESSAGE: usize = 1500;

/// The secret under which messages are digested, drawn anew at each load, so that nobody can make
/// two messages of one identity that look like copies of each other.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct DigestKey {
    addends: [u64; BLOCK],
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
    ]);

    /// A key from 40 secret random bytes.
    pub const fn new([a, b, c, d, multiplier]: [u64; BLOCK + 1]) -> Self {
        Self {
            addends: [a, b, c, d],
            multiplier: multiplier | 1,
        }
    }
}

/// Digest of a client message under a [`DigestKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(pub u16);

impl Digest {
    /// The digest of every message under `--identity xid`, where the bytes do not count.
    pub const NONE: Self = Self(0);

    /// Digests a client message; `None` where it cannot be read whole, or is over [`MAX_MESSAGE`]
    /// bytes long.
    ///
    /// Blocks of four words are hashed by products of secretly shifted halves, and the blocks are
    /// the coefficients of a polynomial in a secret number: NH and its polynomial as in UMAC
    /// (RFC 4418), within the 64-bit products that BPF has.
    #[inline(always)]
    pub fn of<P: Packet>(packet: &P, message: &ClientMessage, key: &DigestKey) -> Option<Self> {
        let sum = fold_words::<{ MAX_MESSAGE / 32 }, _, _>(
            packet,
            message.offset,
            message.offset + message.length,
            message.length as u64,
            |sum, place, word| {
                let sum = if place == 0 {
                    sum.wrapping_mul(key.multiplier)
                } else {
                    sum
                };
                let word = word.wrapping_add(key.addends[place]);
                sum.wrapping_add((word & 0xffff_ffff).wrapping_mul(word >> 32))
            },
        )?;
        Some(Self(
            ((sum ^ sum >> 32).wrapping_mul(key.multiplier) >> 48) as u16,
        ))
    }
}
