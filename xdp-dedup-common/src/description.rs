//! What a frame is, for people who read of it: which message, whose, through which relay. And what
//! an entry of the table says. It decides nothing; `replay` prints the one beside the verdict, `seen`
//! the other.

use core::net::Ipv6Addr;

use crate::{
    Identity, Packet, Sighting,
    datagram::{self, Datagram},
    decision::outermost_type,
    identity::Address,
    message::{MessageType, TransactionId},
    policy::Window,
    relay_forward::{self, ClientMessage},
    time::{Microseconds, Timestamp},
};

/// What can be told of a frame; `None` is what does not apply to it or cannot be read.
///
/// Nothing can be told of a frame that is not a whole datagram to port 547. Of a Relay-forward
/// without a readable client message inside only the relay is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Type of the message that the client sent; of a message sent without a relay, its type.
    pub message: Option<MessageType>,
    /// That message's transaction-id, where its type has one.
    pub transaction_id: Option<TransactionId>,
    /// The client: the innermost peer-address, or the IPv6 source of a message sent without a relay;
    /// not of a Relay-reply.
    pub peer: Option<Ipv6Addr>,
    /// The relay nearest to the server: the IPv6 source of a Relay-forward.
    pub relay: Option<Ipv6Addr>,
    /// Relay-forward layers around the message; 0 for a message sent without a relay.
    pub layers: Option<u8>,
}

impl Description {
    /// What `packet` is.
    pub fn of<P: Packet>(packet: &P) -> Self {
        let Ok(datagram) = datagram::find(packet) else {
            return Self::default();
        };
        match outermost_type(packet, &datagram) {
            Ok(Some(MessageType::RELAY_FORWARD)) => Self::of_relay_forward(packet, &datagram),
            Ok(Some(message_type)) => Self::of_direct_message(packet, &datagram, message_type),
            Ok(None) | Err(_) => Self::default(),
        }
    }

    fn of_relay_forward<P: Packet>(packet: &P, datagram: &Datagram) -> Self {
        let relay = address(packet, datagram.source());
        match relay_forward::client_message(packet, datagram) {
            Ok(message) => Self {
                message: Some(message.header.message_type()),
                transaction_id: transaction_id(&message),
                peer: address(packet, message.peer),
                relay,
                layers: Some(message.layers),
            },
            Err(_) => Self {
                relay,
                ..Self::default()
            },
        }
    }

    fn of_direct_message<P: Packet>(
        packet: &P,
        datagram: &Datagram,
        message_type: MessageType,
    ) -> Self {
        Self {
            message: Some(message_type),
            transaction_id: relay_forward::direct_message(packet, datagram)
                .ok()
                .as_ref()
                .and_then(transaction_id),
            peer: (message_type != MessageType::RELAY_REPLY)
                .then(|| address(packet, datagram.source()))
                .flatten(),
            relay: None,
            layers: Some(0),
        }
    }
}

fn transaction_id(message: &ClientMessage) -> Option<TransactionId> {
    let header = message.header;
    header
        .message_type()
        .has_transaction_id()
        .then(|| header.transaction_id())
}

fn address<P: Packet>(packet: &P, offset: usize) -> Option<Ipv6Addr> {
    packet.read::<Address>(offset).map(Ipv6Addr::from)
}

/// A transaction that the table remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    identity: Identity,
    at: Timestamp,
    transmissions: u8,
}

impl Remembered {
    /// What an entry of the table says, read now; `None` for one that no longer counts.
    pub fn of(identity: Identity, sighting: Sighting, now: Timestamp) -> Option<Self> {
        Some(Self {
            identity,
            at: sighting.at(now)?,
            transmissions: sighting.transmission(),
        })
    }

    /// The key of the entry: no two transactions have the same.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When the last copy passed that others are compared with.
    pub const fn at(&self) -> Timestamp {
        self.at
    }

    /// The server's address that the client's message went to; `None` if it was remembered by its
    /// transaction-id alone.
    pub fn destination(&self) -> Option<Ipv6Addr> {
        self.message().map(|_| self.identity.destination.into())
    }

    /// The client; `None` as for [`destination`](Self::destination).
    pub fn peer(&self) -> Option<Ipv6Addr> {
        self.message().map(|_| self.identity.peer.into())
    }

    /// Type of the client's message; `None` as for [`destination`](Self::destination).
    pub fn message(&self) -> Option<MessageType> {
        // No message is of type 0 (RFC 9915, section 24.2).
        const NONE: MessageType = MessageType(0);
        Some(self.identity.message.message_type()).filter(|of| *of != NONE)
    }

    /// The client's transaction-id.
    pub const fn transaction_id(&self) -> TransactionId {
        self.identity.message.transaction_id()
    }

    /// How many times the client has sent the message, as far as the filter knows; past 63 only the
    /// remainder by `escalate-every` is kept.
    pub const fn transmissions(&self) -> u8 {
        self.transmissions
    }

    /// How long ago the copy passed.
    pub const fn age(&self, now: Timestamp) -> Microseconds {
        Microseconds(now.0.saturating_sub(self.at.0))
    }

    /// Whether a copy that came now would lie within the window.
    pub fn is_within(&self, window: Window, now: Timestamp) -> bool {
        self.age(now) < window.length()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        digest::Digest, message::MessageHeader, policy::EscalateEvery, sighting::FORGOTTEN,
    };

    const NOW: Timestamp = Timestamp(1 << 50);

    fn ago(microseconds: u64) -> Timestamp {
        Timestamp(NOW.0 - microseconds)
    }

    fn identity() -> Identity {
        Identity {
            destination: "2001:db8::b007".parse::<Ipv6Addr>().unwrap().into(),
            peer: "fe80::1".parse::<Ipv6Addr>().unwrap().into(),
            message: MessageHeader::from_wire([3, 0x1b, 0xf7, 0xf8]),
        }
    }

    #[test]
    fn an_entry_says_whose_message_it_was_and_how_often_it_was_sent() {
        let first = Sighting::first(Digest(0xffff), ago(5_000_000));
        let second = first.next(Digest(7), ago(1_250_000), EscalateEvery::DEFAULT);
        for (sighting, transmissions, age) in [(first, 1, 5_000_000), (second, 2, 1_250_000)] {
            let remembered = Remembered::of(identity(), sighting, NOW).unwrap();
            assert_eq!(remembered.message(), Some(MessageType(3)));
            assert_eq!(remembered.transaction_id().to_string(), "1bf7f8");
            let address = |text: &str| Some(text.parse::<Ipv6Addr>().unwrap());
            assert_eq!(remembered.destination(), address("2001:db8::b007"));
            assert_eq!(remembered.peer(), address("fe80::1"));
            assert_eq!(remembered.transmissions(), transmissions);
            assert_eq!(remembered.at(), ago(age));
            assert_eq!(remembered.age(NOW), Microseconds(age));
            assert_eq!(remembered.identity(), &identity());
        }
    }

    #[test]
    fn by_transaction_id_alone_nothing_else_is_told() {
        let identity = Identity::of_transaction_id(identity().message);
        let sighting = Sighting::first(Digest(1), NOW);
        let remembered = Remembered::of(identity, sighting, NOW).unwrap();
        assert_eq!(remembered.transaction_id().to_string(), "1bf7f8");
        assert_eq!(
            (
                remembered.message(),
                remembered.destination(),
                remembered.peer()
            ),
            (None, None, None)
        );
    }

    #[test]
    fn what_is_older_than_seventy_minutes_is_not_remembered() {
        for (age, is_remembered) in [
            (0, true),
            (FORGOTTEN.0 - 1, true),
            (FORGOTTEN.0, false),
            (FORGOTTEN.0 * 5, false),
        ] {
            let sighting = Sighting::first(Digest(1), ago(age));
            assert_eq!(
                Remembered::of(identity(), sighting, NOW).is_some(),
                is_remembered,
                "after {age} us"
            );
        }
    }

    #[test]
    fn a_copy_is_within_the_window_until_the_window_is_over() {
        let window = Window::DEFAULT.length().0;
        for (age, is_within) in [
            (0, true),
            (window - 1, true),
            (window, false),
            (window + 1, false),
        ] {
            let sighting = Sighting::first(Digest(1), ago(age));
            let remembered = Remembered::of(identity(), sighting, NOW).unwrap();
            assert_eq!(
                remembered.is_within(Window::DEFAULT, NOW),
                is_within,
                "after {age} us"
            );
        }
    }

    #[test]
    fn what_another_cpu_has_stamped_a_moment_later_is_no_time_old() {
        let sighting = Sighting::first(Digest(1), Timestamp(NOW.0 + 40));
        let remembered = Remembered::of(identity(), sighting, NOW).unwrap();
        assert_eq!(remembered.age(NOW), Microseconds(0));
        assert!(remembered.is_within(Window::SHORTEST, NOW));
    }
}
