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
