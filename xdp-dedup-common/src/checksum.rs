//! The UDP checksum over IPv6 (RFC 768; RFC 8200, section 8.1), and what passes for one on this host.

use crate::{
    Packet,
    datagram::{Datagram, MAX_DATAGRAM},
    packet::fold_words,
};

/// Next Header value of UDP as the pseudo-header has it, in little-endian lanes.
const UDP: u64 = 17 << 8;

/// Whether the UDP checksum of `datagram` vouches for its bytes: it verifies, or the field holds the
/// folded sum of the pseudo-header, which is what a sender on this host leaves for its NIC to
/// complete (`CHECKSUM_PARTIAL`; veth hands it over as it is). Zero, "no checksum", is invalid over
/// IPv6.
///
/// `None` where the datagram cannot be read whole, or is over [`MAX_DATAGRAM`] bytes long.
#[inline(always)]
pub fn is_valid<P: Packet>(packet: &P, datagram: &Datagram) -> Option<bool> {
    // Ports, length and checksum field; summed in little-endian lanes, which the one's complement
    // sum permits (RFC 1071, section 2).
    let header = u64::from_le(packet.read(datagram.udp)?);
    let field = (header >> 48) as u16;
    let length = header >> 32 & 0xffff;
    let addresses: [u64; 4] = packet.read(datagram.source())?;
    let pseudo_header = addresses
        .into_iter()
        .fold(length + UDP, |sum, word| add(sum, u64::from_le(word)));
    let sum = fold_words::<{ MAX_DATAGRAM / 32 }, _, _>(
        packet,
        datagram.udp,
        datagram.end,
        pseudo_header,
        |sum, _, word| add(sum, word),
    )?;
    Some(field != 0 && (fold(sum) == 0xffff || fold(pseudo_header) == field))
}

/// Adds a word by its halves, so that no carry is lost.
#[inline(always)]
fn add(sum: u64, word: u64) -> u64 {
    sum + (word & 0xffff_ffff) + (word >> 32)
}

/// Folds a one's complement sum to its 16 bits.
#[inline(always)]
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::packet::Bytes;

    /// Where the tests put the IPv6 header; odd, so that no word is aligned.
    const IPV6: usize = 3;
    const UDP_HEADER: usize = IPV6 + 40;

    /// An IPv6 header and a datagram of `length` bytes, all of it noise but the UDP length, with more
    /// noise behind it.
    fn packet(noise: &[u8], length: usize) -> (Vec<u8>, Datagram) {
        let mut bytes: Vec<u8> = noise
            .iter()
            .copied()
            .cycle()
            .take(UDP_HEADER + length + 9)
            .collect();
        bytes[UDP_HEADER + 4..][..2].copy_from_slice(&(length as u16).to_be_bytes());
        (
            bytes,
            Datagram {
                ipv6: IPV6,
                udp: UDP_HEADER,
                end: UDP_HEADER + length,
            },
        )
    }

    /// Sum of 16-bit words in network byte order with the carry put back at once.
    fn sum(bytes: &[u8], initial: u16) -> u16 {
        bytes.chunks(2).fold(initial, |sum, word| {
            let word = u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]);
            let (sum, carry) = sum.overflowing_add(word);
            sum + u16::from(carry)
        })
    }

    fn pseudo_header_sum(bytes: &[u8], datagram: &Datagram) -> u16 {
        let length = (datagram.end - datagram.udp) as u32;
        let rest = [length.to_be_bytes(), [0, 0, 0, 17]].concat();
        sum(&bytes[datagram.source()..][..32], sum(&rest, 0))
    }

    fn set(bytes: &mut [u8], checksum: u16) {
        bytes[UDP_HEADER + 6..][..2].copy_from_slice(&checksum.to_be_bytes());
    }

    fn complete(bytes: &mut [u8], datagram: &Datagram) -> u16 {
        set(bytes, 0);
        match !sum(
            &bytes[datagram.udp..datagram.end],
            pseudo_header_sum(bytes, datagram),
        ) {
            0 => 0xffff,
            checksum => checksum,
        }
    }

    fn is_valid_in(bytes: &[u8], datagram: &Datagram) -> Option<bool> {
        is_valid(&Bytes::new(bytes), datagram)
    }

    fn noise() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            8 => prop::collection::vec(any::<u8>(), 1..300),
            1 => Just(vec![0xff]),
            1 => Just(vec![0]),
        ]
    }

    proptest! {
        #[test]
        fn a_datagram_of_any_length_is_valid_with_its_checksum_and_with_no_other(
            noise in noise(),
            bits in 1_u16..,
        ) {
            for length in 8..=200 {
                let (mut bytes, datagram) = packet(&noise, length);
                let checksum = complete(&mut bytes, &datagram);
                let partial = pseudo_header_sum(&bytes, &datagram);
                for field in [checksum, partial, checksum ^ bits, 0, !checksum, !partial] {
                    set(&mut bytes, field);
                    // 0 and 0xffff are the same number to a sum, but zero is no checksum.
                    let number = |value: u16| value % 0xffff;
                    let expected = field != 0
                        && (number(field) == number(checksum) || field == partial);
                    prop_assert_eq!(
                        is_valid_in(&bytes, &datagram),
                        Some(expected),
                        "{:#06x} in a datagram of {} bytes, checksum {:#06x}, partial {:#06x}",
                        field,
                        length,
                        checksum,
                        partial
                    );
                }
            }
        }

        #[test]
        fn a_flipped_bit_anywhere_is_noticed(noise in noise(), length in 8_usize..300) {
            let (mut bytes, datagram) = packet(&noise, length);
            let checksum = complete(&mut bytes, &datagram);
            set(&mut bytes, checksum);
            let covered = (datagram.source()..datagram.source() + 32).chain(datagram.udp..datagram.end);
            // The length is the reader's own bound, and the field may become the partial form.
            for offset in covered.filter(|offset| !(UDP_HEADER + 4..UDP_HEADER + 8).contains(offset)) {
                bytes[offset] ^= 1 << (offset % 8);
                let is_partial = pseudo_header_sum(&bytes, &datagram) == checksum;
                prop_assert_eq!(is_valid_in(&bytes, &datagram), Some(is_partial), "{}", offset);
                bytes[offset] ^= 1 << (offset % 8);
            }
        }
    }

    #[test]
    fn the_longest_datagram_is_summed_without_loss() {
        let (mut bytes, datagram) = packet(&[0xff], MAX_DATAGRAM);
        let checksum = complete(&mut bytes, &datagram);
        set(&mut bytes, checksum);
        assert_eq!(is_valid_in(&bytes, &datagram), Some(true));
        set(&mut bytes, checksum ^ 0x100);
        assert_eq!(is_valid_in(&bytes, &datagram), Some(false));
    }

    #[test]
    fn what_cannot_be_read_whole_is_neither_valid_nor_wrong() {
        let (bytes, datagram) = packet(&[7], 100);
        assert_eq!(is_valid_in(&bytes[..datagram.end - 1], &datagram), None);
        let (bytes, datagram) = packet(&[7], MAX_DATAGRAM + 40);
        assert_eq!(is_valid_in(&bytes, &datagram), None);
    }
}
