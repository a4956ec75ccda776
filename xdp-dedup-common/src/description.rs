//! What a frame is, for people who read of it: which message, whose, through which relay. It decides
//! nothing; `replay` prints it beside the verdict.

use core::net::Ipv6Addr;

use crate::{
    Packet,
    datagram::{self, Datagram},
    decision::outermost_type,
    identity::Address,
    message::{MessageType, TransactionId},
    relay_forward::{self, ClientMessage},
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
