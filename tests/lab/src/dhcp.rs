//! What a captured frame says in DHCPv6, read by other people's parsers (etherparse, dhcproto), so
//! that the lab does not judge the filter by the filter's own reading.

use std::net::Ipv6Addr;
use std::time::Duration;

use dhcproto::v6::{self, DhcpOption, DhcpOptions, OptionCode, Status};
use dhcproto::{Decodable as _, Decoder};
use etherparse::checksum::Sum16BitWords;
use etherparse::{IpNumber, Ipv6Slice, NetSlice, SlicedPacket, TransportSlice, UdpSlice};

pub use dhcproto::v6::MessageType;

/// Ports of DHCPv6.
const PORTS: [u16; 2] = [546, 547];

/// The header of a relay's envelope: type, hop-count, link-address, peer-address.
const ENVELOPE: usize = 2 + 16 + 16;

/// A message of DHCPv6 in a captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// When it was captured, since 1970.
    pub time: Duration,
    /// Whether the captured interface sent it.
    pub outgoing: bool,
    /// Length of the frame, in bytes.
    pub length: usize,
    /// VLAN tags on the frame.
    pub tags: usize,
    /// Where the packet came from: of a relayed message, the last relay.
    pub source: Ipv6Addr,
    /// The port that it came from.
    pub source_port: u16,
    /// Where it went to.
    pub destination: Ipv6Addr,
    /// What its UDP checksum is of.
    pub checksum: Checksum,
    /// The envelopes around it, from the outside in.
    pub envelopes: Vec<Envelope>,
    /// Type of the message within: solicit, advertise ...
    pub kind: MessageType,
    /// Its transaction-id.
    pub transaction_id: [u8; 3],
    /// The message within, byte for byte.
    pub bytes: Vec<u8>,
    /// Where the message within begins in the UDP payload, in bytes.
    pub offset: usize,
    /// Its elapsed-time, in hundredths of a second.
    pub elapsed_time: Option<u16>,
    /// Addresses that it offers, grants, asks for or gives back.
    pub addresses: Vec<Ipv6Addr>,
    /// Status codes in it other than success.
    pub complaints: Vec<Status>,
}

/// What a UDP checksum is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// All that it has to be of.
    Whole,
    /// The pseudo-header alone: a NIC was to add the rest.
    Partial,
    /// Neither.
    Wrong,
}

/// A relay's envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Relay-forward, or else Relay-reply.
    pub forward: bool,
    /// Whose message is in it.
    pub peer: Ipv6Addr,
    /// The link that it came from.
    pub link: Ipv6Addr,
    /// Option 18.
    pub interface_id: Option<Vec<u8>>,
}

impl Message {
    /// Reads a frame; none if it is no DHCPv6.
    pub fn read(time: Duration, outgoing: bool, frame: &[u8]) -> Option<Self> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let Some(NetSlice::Ipv6(ip)) = &packet.net else {
            return None;
        };
        let Some(TransportSlice::Udp(udp)) = &packet.transport else {
            return None;
        };
        if !PORTS.contains(&udp.destination_port()) {
            return None;
        }
        let payload = udp.payload();
        let mut within = payload;
        let mut envelopes = Vec::new();
        while let Some((envelope, inner)) = open(within) {
            envelopes.push(envelope);
            within = inner;
        }
        let message = v6::Message::decode(&mut Decoder::new(within)).ok()?;
        let mut read = Self {
            time,
            outgoing,
            length: frame.len(),
            tags: packet.link_exts.len(),
            source: ip.header().source_addr(),
            source_port: udp.source_port(),
            destination: ip.header().destination_addr(),
            checksum: checksum(ip, udp),
            envelopes,
            kind: message.msg_type(),
            transaction_id: message.xid(),
            bytes: within.to_vec(),
            offset: within.as_ptr().addr() - payload.as_ptr().addr(),
            elapsed_time: match message.opts().get(OptionCode::ElapsedTime) {
                Some(DhcpOption::ElapsedTime(hundredths)) => Some(*hundredths),
                _ => None,
            },
            addresses: Vec::new(),
            complaints: Vec::new(),
        };
        read.take(message.opts());
        Some(read)
    }

    /// Collects what the options and those within them say.
    fn take(&mut self, options: &DhcpOptions) {
        for option in options.iter() {
            match option {
                DhcpOption::IANA(association) => self.take(&association.opts),
                DhcpOption::IATA(association) => self.take(&association.opts),
                DhcpOption::IAAddr(address) => {
                    self.addresses.push(address.addr);
                    self.take(&address.opts);
                }
                DhcpOption::StatusCode(status) if status.status != Status::Success => {
                    self.complaints.push(status.status);
                }
                _ => {}
            }
        }
    }

    /// Whether a relay sent it towards a server.
    pub fn is_relay_forward(&self) -> bool {
        self.envelopes
            .first()
            .is_some_and(|envelope| envelope.forward)
    }

    /// Whether the message within is a client's.
    pub fn is_of_client(&self) -> bool {
        !matches!(
            self.kind,
            MessageType::Advertise | MessageType::Reply | MessageType::Reconfigure
        )
    }

    /// Who the client is, to its relay.
    pub fn peer(&self) -> Option<Ipv6Addr> {
        self.envelopes.last().map(|envelope| envelope.peer)
    }

    /// Its name, as the RFC has it.
    pub fn name(&self) -> String {
        name(self.kind)
    }
}

fn checksum(ip: &Ipv6Slice<'_>, udp: &UdpSlice<'_>) -> Checksum {
    let (source, destination) = (ip.header().source(), ip.header().destination());
    let whole = udp
        .to_header()
        .calc_checksum_ipv6_raw(source, destination, udp.payload());
    // RFC 8200, section 8.1.
    let pseudo_header = Sum16BitWords::new()
        .add_16bytes(source)
        .add_16bytes(destination)
        .add_4bytes(u32::from(udp.length()).to_be_bytes())
        .add_2bytes([0, IpNumber::UDP.0]);
    let partial = !pseudo_header.ones_complement().to_be();
    if whole == Ok(udp.checksum()) {
        Checksum::Whole
    } else if udp.checksum() == partial {
        Checksum::Partial
    } else {
        Checksum::Wrong
    }
}

/// The name of a type of message, as the RFC has it.
pub fn name(kind: MessageType) -> String {
    format!("{kind:?}")
}

/// Takes an envelope off; none where there is none. dhcproto cannot: it takes whatever is in a Relay
/// Message option for another envelope.
fn open(message: &[u8]) -> Option<(Envelope, &[u8])> {
    let forward = match MessageType::from(*message.first()?) {
        MessageType::RelayForw => true,
        MessageType::RelayRepl => false,
        _ => return None,
    };
    let (header, mut options) = message.split_at_checked(ENVELOPE)?;
    let address = |at: usize| {
        let bytes: [u8; 16] = header.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(bytes))
    };
    let (link, peer) = (address(2)?, address(18)?);
    let (mut inner, mut interface_id) = (None, None);
    while let Some((&[a, b, c, d], rest)) = options.split_first_chunk() {
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([c, d])))?;
        match OptionCode::from(u16::from_be_bytes([a, b])) {
            OptionCode::RelayMsg => inner = inner.or(Some(value)),
            OptionCode::InterfaceId => interface_id = Some(value.to_vec()),
            _ => {}
        }
        options = rest;
    }
    let envelope = Envelope {
        forward,
        peer,
        link,
        interface_id,
    };
    Some((envelope, inner?))
}
