//! DHCPv6 message types and the four bytes that every client message starts with.

use core::fmt;

use bytemuck::{Pod, Zeroable};

/// A DHCPv6 message type (RFC 9915, section 7.3).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct MessageType(pub u8);

/// The types whose copies are dropped: what clients send, and nothing else.
const FILTERED: &[MessageType] = &[
    MessageType(1),  // Solicit
    MessageType(3),  // Request
    MessageType(4),  // Confirm
    MessageType(5),  // Renew
    MessageType(6),  // Rebind
    MessageType(8),  // Release
    MessageType(9),  // Decline
    MessageType(11), // Information-request
    MessageType(36), // ADDR-REG-INFORM (RFC 9686)
];

/// [`FILTERED`] as a bit per type, so that the kernel needs no table.
const FILTERED_BITS: u64 = {
    let mut bits = 0;
    let mut i = 0;
    while i < FILTERED.len() {
        bits |= 1 << FILTERED[i].0;
        i += 1;
    }
    bits
};

impl MessageType {
    /// Relay-forward: a relay's envelope around a message on its way to the server.
    pub const RELAY_FORWARD: Self = Self(12);
    /// Relay-reply: the envelope on the way back.
    pub const RELAY_REPLY: Self = Self(13);

    /// Whether copies of such a message are dropped.
    ///
    /// DHCPv4-query and -response (RFC 7341) are not among them: they carry flags where others carry
    /// the transaction-id.
    #[inline(always)]
    pub const fn is_filtered(self) -> bool {
        self.0 < 64 && FILTERED_BITS >> self.0 & 1 == 1
    }

    /// The types for which [`is_filtered`](Self::is_filtered) holds, in the order of their numbers.
    pub const fn filtered() -> &'static [Self] {
        FILTERED
    }

    /// Whether bytes 1 to 3 of such a message are a transaction-id: not for the relays' envelopes,
    /// nor for DHCPv4-over-DHCPv6 (RFC 7341, section 6).
    pub const fn has_transaction_id(self) -> bool {
        !matches!(self.0, 12 | 13 | 20 | 21)
    }
}

/// The name in lower case with hyphens, `type-N` for types without one here.
impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            1 => "solicit",
            2 => "advertise",
            3 => "request",
            4 => "confirm",
            5 => "renew",
            6 => "rebind",
            7 => "reply",
            8 => "release",
            9 => "decline",
            10 => "reconfigure",
            11 => "information-request",
            12 => "relay-forward",
            13 => "relay-reply",
            14 => "leasequery",
            15 => "leasequery-reply",
            16 => "leasequery-done",
            17 => "leasequery-data",
            18 => "reconfigure-request",
            19 => "reconfigure-reply",
            20 => "dhcpv4-query",
            21 => "dhcpv4-response",
            36 => "addr-reg-inform",
            37 => "addr-reg-reply",
            unnamed => return write!(f, "type-{unnamed}"),
        })
    }
}

/// A transaction-id: three bytes that the client chose, in the order of the wire. Shown as six
/// hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionId(pub [u8; 3]);

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}")
    }
}

/// The first four bytes of a client message: type and transaction-id (RFC 9915, section 8).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct MessageHeader(u32);

impl MessageHeader {
    /// The header with these bytes, in the order of the wire.
    pub const fn from_wire(bytes: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(bytes))
    }

    /// Its type.
    #[inline(always)]
    pub const fn message_type(self) -> MessageType {
        MessageType(self.0.to_ne_bytes()[0])
    }

    /// Its transaction-id.
    #[inline(always)]
    pub const fn transaction_id(self) -> TransactionId {
        let [_, a, b, c] = self.0.to_ne_bytes();
        TransactionId([a, b, c])
    }

    /// Its four bytes as a number.
    #[inline(always)]
    pub(crate) const fn number(self) -> u64 {
        self.0 as u64
    }

    /// The header without its type.
    #[inline(always)]
    pub(crate) const fn without_type(self) -> Self {
        let [_, a, b, c] = self.0.to_ne_bytes();
        Self::from_wire([0, a, b, c])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_send_to_servers_is_filtered_and_nothing_else() {
        // RFC 9915, section 7.3; RFC 9686, section 4.2.
        let filtered: Vec<u8> = (0..=255)
            .filter(|n| MessageType(*n).is_filtered())
            .collect();
        assert_eq!(filtered, [1, 3, 4, 5, 6, 8, 9, 11, 36]);
        assert_eq!(
            MessageType::filtered(),
            filtered.into_iter().map(MessageType).collect::<Vec<_>>()
        );
    }

    #[test]
    fn every_filtered_type_has_a_name_and_a_transaction_id() {
        for message_type in MessageType::filtered() {
            assert!(
                !message_type.to_string().starts_with("type-"),
                "{message_type}"
            );
            assert!(message_type.has_transaction_id(), "{message_type}");
        }
        assert_eq!(MessageType(77).to_string(), "type-77");
    }

    #[test]
    fn a_header_is_read_in_the_order_of_the_wire() {
        let header = MessageHeader::from_wire([3, 0x1b, 0xf7, 0xf8]);
        assert_eq!(header.message_type(), MessageType(3));
        assert_eq!(header.transaction_id().to_string(), "1bf7f8");
        assert_eq!(bytemuck::bytes_of(&header), [3, 0x1b, 0xf7, 0xf8]);
        assert_eq!(
            bytemuck::bytes_of(&header.without_type()),
            [0, 0x1b, 0xf7, 0xf8]
        );
    }
}
