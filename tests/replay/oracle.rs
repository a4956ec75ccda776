//! What a frame is according to others: etherparse for everything up to UDP, dhcproto for the client
//! message. Only the relays' envelopes are opened here, which dhcproto cannot.

use std::net::Ipv6Addr;

use dhcproto::{
    Decodable as _, Decoder,
    v6::{Message, MessageType},
};
use etherparse::{Ipv6ExtensionSlice, NetSlice, SlicedPacket, TransportSlice};
use serde_json::{Value, json};

/// A DHCPv6 message in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// IPv6 source.
    pub source: Ipv6Addr,
    /// IPv6 destination.
    pub destination: Ipv6Addr,
    /// The innermost message.
    pub message: MessageType,
    /// Its transaction-id; relays' envelopes have none.
    pub transaction_id: Option<[u8; 3]>,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Innermost peer-address; the source where no relay is.
    pub peer: Ipv6Addr,
    /// Relay-forward layers.
    pub layers: u8,
}

impl Told {
    /// What the frame is, if it is a whole DHCPv6 datagram to port 547.
    pub fn of(frame: &[u8]) -> Option<Self> {
        const RELAY_FORWARD: u8 = 12;
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let (Some(NetSlice::Ipv6(ipv6)), Some(TransportSlice::Udp(udp))) =
            (&packet.net, &packet.transport)
        else {
            return None;
        };
        // Stated limits: two tags, and no fragments, though an atomic one is whole to etherparse.
        let is_fragment = |header| matches!(header, Ipv6ExtensionSlice::Fragment(_));
        if packet.vlan_ids().len() > 2
            || ipv6.extensions().clone().into_iter().any(is_fragment)
            || udp.destination_port() != 547
        {
            return None;
        }
        let source = ipv6.header().source_addr();
        let mut peer = source;
        let mut layers = 0;
        let mut message = udp.payload();
        while message.first() == Some(&RELAY_FORWARD) {
            layers += 1;
            peer = Ipv6Addr::from(<[u8; 16]>::try_from(message.get(18..34)?).ok()?);
            message = relay_message(message.get(34..)?)?;
        }
        let message_type = MessageType::from(*message.first()?);
        let transaction_id = match message_type {
            MessageType::RelayRepl => None,
            _ => Some(Message::decode(&mut Decoder::new(message)).ok()?.xid()),
        };
        Some(Self {
            source,
            destination: ipv6.header().destination_addr(),
            message: message_type,
            transaction_id,
            bytes: message.to_vec(),
            peer,
            layers,
        })
    }

    /// What `replay` has to say of it.
    pub fn json(&self) -> Value {
        json!({
            "message": name(self.message),
            "xid": self.transaction_id.map(|[a, b, c]| format!("{a:02x}{b:02x}{c:02x}")),
            // A Relay-reply comes from the server.
            "peer": (self.message != MessageType::RelayRepl).then_some(self.peer),
            "relay": (self.layers > 0).then_some(self.source),
            "layers": self.layers,
        })
    }
}

/// What `replay` has to say where nothing can be told.
pub fn nothing() -> Value {
    json!({"message": null, "xid": null, "peer": null, "relay": null, "layers": null})
}

/// Data of the first Relay Message option (9).
fn relay_message(mut options: &[u8]) -> Option<&[u8]> {
    loop {
        let [code_high, code, high, low, rest @ ..] = options else {
            return None;
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if (*code_high, *code) == (0, 9) {
            return rest.get(..length);
        }
        options = rest.get(length..)?;
    }
}

/// The message's name in RFC 9915, as `replay` writes names.
fn name(message: MessageType) -> &'static str {
    match message {
        MessageType::Solicit => "solicit",
        MessageType::Advertise => "advertise",
        MessageType::Request => "request",
        MessageType::Confirm => "confirm",
        MessageType::Renew => "renew",
        MessageType::Rebind => "rebind",
        MessageType::Reply => "reply",
        MessageType::Release => "release",
        MessageType::Decline => "decline",
        MessageType::InformationRequest => "information-request",
        MessageType::RelayRepl => "relay-reply",
        _ => "none that the captures hold",
    }
}
