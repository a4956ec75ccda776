//! Whose message it is: the key of the table.

use core::net::Ipv6Addr;

use bytemuck::{Pod, Zeroable};

use crate::message::MessageHeader;

/// An IPv6 address as it lies in a frame. Two words, because the kernel program copies it a word at a
/// time; packed, so that an [`Identity`] has no padding.
#[repr(C, packed(4))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct Address([u64; 2]);

impl From<Ipv6Addr> for Address {
    fn from(address: Ipv6Addr) -> Self {
        bytemuck::cast(address.octets())
    }
}

impl From<Address> for Ipv6Addr {
    fn from(address: Address) -> Self {
        bytemuck::cast::<_, [u8; 16]>(address).into()
    }
}

/// Identity of a client message, compared whole: 36 bytes without padding, since the kernel's hash
/// map compares bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct Identity {
    /// Outer IPv6 destination: a host that forwards to several servers must not take the copy for
    /// one as a copy of the other's.
    pub destination: Address,
    /// Innermost peer-address: the client's address.
    pub peer: Address,
    /// Innermost message type and transaction-id.
    pub message: MessageHeader,
}

impl Identity {
    /// All of it in one word: other identities seldom have the same.
    #[inline(always)]
    pub(crate) const fn folded(&self) -> u64 {
        let ([a, b], [c, d]) = (self.destination.0, self.peer.0);
        a.wrapping_add(b)
            .wrapping_add(c)
            .wrapping_add(d)
            .wrapping_add(self.message.number())
    }

    /// The identity under `--identity xid`: the transaction-id alone.
    #[inline(always)]
    pub fn of_transaction_id(header: MessageHeader) -> Self {
        Self {
            destination: Address::default(),
            peer: Address::default(),
            message: header.without_type(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_lies_in_the_map_as_it_lies_on_the_wire() {
        let destination: Ipv6Addr = "2001:db8::b007".parse().unwrap();
        let peer: Ipv6Addr = "fe80::225:90ff:fefc:d38c".parse().unwrap();
        let identity = Identity {
            destination: destination.into(),
            peer: peer.into(),
            message: MessageHeader::from_wire([1, 2, 3, 4]),
        };
        let wire = [&destination.octets()[..], &peer.octets()[..], &[1, 2, 3, 4]].concat();
        assert_eq!(bytemuck::bytes_of(&identity), wire);
        assert_eq!(size_of::<Identity>(), 36);
        assert_eq!(Ipv6Addr::from(identity.peer), peer);
    }

    #[test]
    fn of_a_transaction_id_nothing_else_remains() {
        let [a, b] = [1, 3].map(|number| MessageHeader::from_wire([number, 7, 8, 9]));
        assert_eq!(
            Identity::of_transaction_id(a),
            Identity::of_transaction_id(b)
        );
        let bytes = [&[0; 33][..], &[7, 8, 9]].concat();
        assert_eq!(bytemuck::bytes_of(&Identity::of_transaction_id(a)), bytes);
    }
}
