//! How the decision reads a frame: bounds-checked, at byte offsets from the start of the frame.

use bytemuck::AnyBitPattern;

/// The furthest byte offset that is read: the kernel's verifier wants a bound, and the linear part
/// of a frame in native mode ends before it.
pub const MAX_OFFSET: usize = 0x1fff;

/// A received Ethernet frame, readable at byte offsets from its first byte.
///
/// A frame may lie in several buffers (Linux 5.18, multi-buffer XDP). Only the first, the *linear
/// part*, can be read here.
pub trait Packet {
    /// Reads a `T` in network byte order at `offset`; `None` where it would leave the linear part, or
    /// where `offset` is beyond [`MAX_OFFSET`].
    ///
    /// The verifier refuses a one-byte read at an offset that it does not know exactly: read wider.
    fn read<T: AnyBitPattern>(&self, offset: usize) -> Option<T>;

    /// Whether the frame's first `length` bytes all lie in the linear part.
    fn is_linear(&self, length: usize) -> bool;

    /// Length of the whole frame in bytes, all its buffers together.
    fn length(&self) -> usize;

    /// `value` itself, an offset or a length of at most 17 bits.
    ///
    /// The kernel's reader hides here from the compiler and the verifier how the value came about:
    /// every step of a loop then starts in the same state, and the verifier need not follow each.
    #[inline(always)]
    fn forget(value: usize) -> usize {
        value
    }

    /// As [`forget`](Self::forget), also where the value is known exactly: frames of different forms
    /// then look alike to the verifier from here on.
    #[inline(always)]
    fn forget_constant(&self, value: usize) -> usize {
        value
    }
}

/// A frame in ordinary memory, for every place but the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    frame: &'a [u8],
    linear: usize,
    length: usize,
}

impl<'a> Bytes<'a> {
    /// A frame in one buffer.
    pub fn new(frame: &'a [u8]) -> Self {
        Self::with_linear_part(frame, frame.len())
    }

    /// A frame of which the kernel would hold at most `linear` bytes in its first buffer.
    pub fn with_linear_part(frame: &'a [u8], linear: usize) -> Self {
        Self {
            frame,
            linear: linear.min(frame.len()),
            length: frame.len(),
        }
    }

    /// A frame of `length` bytes of which only the first are known.
    pub fn cut_short(frame: &'a [u8], length: usize) -> Self {
        Self {
            length: length.max(frame.len()),
            ..Self::new(frame)
        }
    }
}

impl Packet for Bytes<'_> {
    fn read<T: AnyBitPattern>(&self, offset: usize) -> Option<T> {
        if offset > MAX_OFFSET {
            return None;
        }
        let bytes = self.frame[..self.linear]
            .get(offset..)?
            .get(..size_of::<T>())?;
        Some(bytemuck::pod_read_unaligned(bytes))
    }

    fn is_linear(&self, length: usize) -> bool {
        length <= self.linear
    }

    fn length(&self) -> usize {
        self.length
    }
}

/// Words in a block of [`fold_words`].
pub(crate) const BLOCK: usize = 4;

/// Folds `step` over the bytes from `start` to `end` as little-endian words; `step` is also told the
/// word's place in its block of four. The last one to seven bytes come as a word filled up with
/// zeros, in a place of their own behind the four. `None` where they cannot be read, or are more than
/// `BLOCKS` whole blocks and part of one.
///
/// The eight bytes before `end` must lie in the frame, also where `end - start` is less.
#[inline(always)]
pub(crate) fn fold_words<const BLOCKS: usize, P: Packet, T>(
    packet: &P,
    start: usize,
    end: usize,
    initial: T,
    step: impl Fn(T, usize, u64) -> T,
) -> Option<T> {
    const WORD: usize = size_of::<u64>();
    let mut sum = initial;
    let mut offset = P::forget(start);
    // Block by block first: one check of the bounds for four words.
    for _ in 0..BLOCKS {
        if offset + BLOCK * WORD > end {
            break;
        }
        for (place, word) in packet.read::<[u64; BLOCK]>(offset)?.into_iter().enumerate() {
            sum = step(sum, place, u64::from_le(word));
        }
        offset = P::forget(offset + BLOCK * WORD);
    }
    for place in 0..BLOCK - 1 {
        if offset + WORD > end {
            break;
        }
        sum = step(sum, place, u64::from_le(packet.read(offset)?));
        offset += WORD;
    }
    match end.checked_sub(offset)? {
        0 => Some(sum),
        rest @ 1..WORD => {
            // A one-byte read would be refused: read the word that ends here, drop what came before.
            let last = u64::from_le(packet.read(P::forget(end.checked_sub(WORD)?))?);
            Some(step(sum, BLOCK, last >> (8 * (WORD - rest))))
        }
        _ => None,
    }
}
