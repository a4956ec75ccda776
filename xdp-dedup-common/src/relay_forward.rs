//! From a Relay-forward message to the client message inside: RFC 9915, sections 9 and 21.10.

use crate::{
    Packet, Reason,
    datagram::Datagram,
    message::{MessageHeader, MessageType},
};

/// Options walked in all layers together before the message counts as too deep.
pub const MAX_OPTIONS: usize = 64;
/// Relay-forward up to its options: type, hop-count, link-address, peer-address (section 9).
pub const RELAY_HEADER: usize = 34;

const PEER_ADDRESS: usize = 18;
const OPTION_HEADER: usize = 4;
const OPTION_RELAY_MSG: u16 = 9;

/// Where the client's own message lies in the frame, offsets and lengths in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientMessage {
    /// Its type and transaction-id.
    pub header: MessageHeader,
    /// Offset of its first byte, the type.
    pub offset: usize,
    /// Its length, at least 4.
    pub length: usize,
    /// Offset of the client's address: the innermost peer-address, or the IPv6 source of a message
    /// that the client sent directly.
    pub peer: usize,
    /// Relay-forward layers around it; 0 for a message that the client sent directly.
    pub layers: u8,
}

/// Walks from the outermost Relay-forward of `datagram` to the message that the client sent.
///
/// In each layer the first Relay Message option (9) leads on; relays put it first, last or between
/// others.
///
/// # Errors
///
/// [`Reason::Malformed`] where an option or header runs past its layer, a layer has no Relay Message
/// option, or the client message is shorter than type and transaction-id; [`Reason::TooDeep`] behind
/// [`MAX_OPTIONS`] options; [`Reason::Unverifiable`] where the walk leaves the linear part.
#[inline(always)]
pub fn client_message<P: Packet>(packet: &P, datagram: &Datagram) -> Result<ClientMessage, Reason> {
    let mut layer = datagram.payload();
    let mut end = datagram.end;
    let mut layers = 1;
    if layer + RELAY_HEADER > end {
        return Err(Reason::Malformed);
    }
    let mut offset = layer + RELAY_HEADER;
    for walked in 0..MAX_OPTIONS + 1 {
        offset = P::forget(offset);
        let data = offset + OPTION_HEADER;
        if data > end {
            return Err(Reason::Malformed);
        }
        let option = u32::from_be(packet.read(offset).ok_or(Reason::Unverifiable)?);
        let length = option as u16 as usize;
        let next = data + length;
        if next > end {
            return Err(Reason::Malformed);
        }
        if walked == MAX_OPTIONS {
            break;
        }
        if (option >> 16) as u16 != OPTION_RELAY_MSG {
            offset = next;
            continue;
        }
        if length < size_of::<MessageHeader>() {
            return Err(Reason::Malformed);
        }
        let header: MessageHeader = packet.read(data).ok_or(Reason::Unverifiable)?;
        if header.message_type() != MessageType::RELAY_FORWARD {
            let peer = layer + PEER_ADDRESS;
            return Ok(ClientMessage {
                header,
                offset: data,
                length,
                peer,
                layers,
            });
        }
        if length < RELAY_HEADER {
            return Err(Reason::Malformed);
        }
        layer = data;
        end = next;
        layers += 1;
        offset = layer + RELAY_HEADER;
    }
    Err(Reason::TooDeep)
}

/// The message of a client that sent `datagram` itself, without a relay.
///
/// # Errors
///
/// [`Reason::Malformed`] where it is shorter than type and transaction-id, [`Reason::Unverifiable`]
/// where it lies outside the linear part.
#[inline(always)]
pub fn direct_message<P: Packet>(packet: &P, datagram: &Datagram) -> Result<ClientMessage, Reason> {
    let offset = datagram.payload();
    let length = datagram.end - offset;
    if length < size_of::<MessageHeader>() {
        return Err(Reason::Malformed);
    }
    let header = packet.read(offset).ok_or(Reason::Unverifiable)?;
    Ok(ClientMessage {
        header,
        offset,
        length,
        peer: datagram.source(),
        layers: 0,
    })
}
