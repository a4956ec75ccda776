//! Frames as relays and clients send them, built by hand from the inside out: [`ClientMessage`],
//! [`RelayForward`], [`Frame`]. Wrong ones too: every length and checksum can be set to something
//! else.

use std::net::Ipv6Addr;

/// DHCPv6 message types (RFC 9915, section 7.3).
pub mod message_type {
    #![expect(missing_docs, reason = "the names are the RFC's")]
    pub const SOLICIT: u8 = 1;
    pub const ADVERTISE: u8 = 2;
    pub const REQUEST: u8 = 3;
    pub const REPLY: u8 = 7;
    pub const RELAY_FORWARD: u8 = 12;
    pub const RELAY_REPLY: u8 = 13;
}

/// DHCPv6 option codes (RFC 9915, section 21).
pub mod option_code {
    #![expect(missing_docs, reason = "the names are the RFC's")]
    pub const CLIENT_ID: u16 = 1;
    pub const IA_NA: u16 = 3;
    pub const OPTION_REQUEST: u16 = 6;
    pub const ELAPSED_TIME: u16 = 8;
    pub const RELAY_MESSAGE: u16 = 9;
    pub const VENDOR_CLASS: u16 = 16;
    pub const INTERFACE_ID: u16 = 18;
    /// RFC 5970.
    pub const CLIENT_ARCHITECTURE: u16 = 61;
    /// RFC 5970.
    pub const NETWORK_INTERFACE: u16 = 62;
    /// RFC 6939.
    pub const CLIENT_LINK_LAYER_ADDRESS: u16 = 79;
}

/// Values of the Next Header field (RFC 8200, section 4; RFC 4302).
pub mod next_header {
    #![expect(missing_docs, reason = "the names are the RFCs'")]
    pub const HOP_BY_HOP: u8 = 0;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const AUTHENTICATION: u8 = 51;
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// EtherTypes: a frame's and those of its tags.
pub mod ethertype {
    #![expect(missing_docs, reason = "the names are the IEEE's")]
    pub const IEEE_8021Q: u16 = 0x8100;
    pub const IEEE_8021AD: u16 = 0x88a8;
    pub const IPV4: u16 = 0x0800;
    pub const IPV6: u16 = 0x86dd;
}

/// Length of a UDP header in bytes.
const UDP_HEADER: usize = 8;

/// One option as it lies in a message: code, length, data.
pub fn option(code: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = code.to_be_bytes().to_vec();
    bytes.extend(field(data.len()).to_be_bytes());
    bytes.extend(data);
    bytes
}

/// A message by a client: type, transaction-id, options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientMessage(Vec<u8>);

impl ClientMessage {
    /// A message without options.
    pub fn new(message_type: u8, transaction_id: [u8; 3]) -> Self {
        let [a, b, c] = transaction_id;
        Self(vec![message_type, a, b, c])
    }

    /// Appends an option.
    pub fn option(mut self, code: u16, data: &[u8]) -> Self {
        self.0.extend(option(code, data));
        self
    }

    /// Appends a Client Identifier.
    pub fn client_id(self, duid: &[u8]) -> Self {
        self.option(option_code::CLIENT_ID, duid)
    }

    /// Appends an Elapsed Time, in hundredths of a second.
    pub fn elapsed_time(self, hundredths: u16) -> Self {
        self.option(option_code::ELAPSED_TIME, &hundredths.to_be_bytes())
    }

    /// Appends an option without meaning, so that the message is `length` bytes long; 4 more than it
    /// was at the least.
    pub fn padded_to(self, length: usize) -> Self {
        let rest = length.saturating_sub(self.0.len() + 4);
        self.option(0xfffe, &vec![0xa5; rest])
    }

    /// As it goes into a datagram or a Relay Message option.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.clone()
    }
}

/// A Relay-forward message around another message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayForward {
    /// Relays that the inner message came through before.
    pub hop_count: u8,
    /// An address on the client's link.
    pub link: Ipv6Addr,
    /// Whom the relay had the inner message from.
    pub peer: Ipv6Addr,
    /// Raw options before the Relay Message option.
    pub before: Vec<u8>,
    /// Data of the Relay Message option; without one if `None`.
    pub inner: Option<Vec<u8>>,
    /// Raw options behind the Relay Message option.
    pub after: Vec<u8>,
}

impl RelayForward {
    /// A relay's envelope around `inner`, with no further option.
    pub fn new(link: Ipv6Addr, peer: Ipv6Addr, inner: &[u8]) -> Self {
        Self {
            hop_count: 0,
            link,
            peer,
            before: Vec::new(),
            inner: Some(inner.to_vec()),
            after: Vec::new(),
        }
    }

    /// With this hop-count.
    pub fn hop_count(self, hop_count: u8) -> Self {
        Self { hop_count, ..self }
    }

    /// With this option put before the Relay Message option, behind those already there.
    pub fn before(mut self, code: u16, data: &[u8]) -> Self {
        self.before.extend(option(code, data));
        self
    }

    /// With this option put behind all others.
    pub fn after(mut self, code: u16, data: &[u8]) -> Self {
        self.after.extend(option(code, data));
        self
    }

    /// As it goes into a datagram or a Relay Message option.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![message_type::RELAY_FORWARD, self.hop_count];
        bytes.extend(self.link.octets());
        bytes.extend(self.peer.octets());
        bytes.extend(&self.before);
        if let Some(inner) = &self.inner {
            bytes.extend(option(option_code::RELAY_MESSAGE, inner));
        }
        bytes.extend(&self.after);
        bytes
    }
}

/// What the UDP checksum field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The checksum.
    Complete,
    /// The folded sum of the pseudo-header, not complemented: what a sender on the same host leaves
    /// for its NIC to complete (`CHECKSUM_PARTIAL`).
    Partial,
    /// One bit off the checksum, and neither zero nor the partial form.
    Wrong,
    /// Zero: "no checksum", which IPv6 forbids.
    Zero,
    /// This.
    Exactly(u16),
}

/// An extension header: its number and its bytes. The first byte, which says what follows, is filled
/// in by [`Frame::bytes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtensionHeader {
    number: u8,
    bytes: Vec<u8>,
}

impl ExtensionHeader {
    /// Any header.
    pub fn raw(number: u8, bytes: Vec<u8>) -> Self {
        Self { number, bytes }
    }

    /// A Hop-by-Hop, Routing or Destination Options header of `8 + 8 * units` bytes, filled with
    /// zeros.
    pub fn of_units(number: u8, units: u8) -> Self {
        let mut bytes = vec![0; 8 + 8 * usize::from(units)];
        bytes[1] = units;
        Self::raw(number, bytes)
    }

    /// An Authentication header of `8 + 4 * units` bytes; its length field says `units`.
    pub fn authentication(units: u8) -> Self {
        let mut bytes = vec![0; 8 + 4 * usize::from(units)];
        bytes[1] = units;
        Self::raw(next_header::AUTHENTICATION, bytes)
    }

    /// A Fragment header; `offset` in units of 8 bytes.
    pub fn fragment(offset: u16, more: bool) -> Self {
        let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
        Self::raw(
            next_header::FRAGMENT,
            vec![0, 0, high, low, 0xca, 0xfe, 0xba, 0xbe],
        )
    }
}

/// An Ethernet frame with a UDP datagram over IPv6. All fields are public: start from
/// [`new`](Self::new) and set what differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Destination MAC address.
    pub destination_mac: [u8; 6],
    /// Source MAC address.
    pub source_mac: [u8; 6],
    /// Tags from the outermost on: EtherType and tag control information.
    pub tags: Vec<(u16, u16)>,
    /// What the frame says that it carries.
    pub ethertype: u16,
    /// IP version.
    pub version: u8,
    /// IPv6 payload length; the right one if `None`.
    pub payload_length: Option<u16>,
    /// IPv6 source address.
    pub source: Ipv6Addr,
    /// IPv6 destination address.
    pub destination: Ipv6Addr,
    /// Extension headers in their order.
    pub extension_headers: Vec<ExtensionHeader>,
    /// What follows the last extension header.
    pub transport: u8,
    /// UDP source port.
    pub source_port: u16,
    /// UDP destination port.
    pub destination_port: u16,
    /// UDP length; the right one if `None`.
    pub udp_length: Option<u16>,
    /// What the checksum field holds.
    pub checksum: Checksum,
    /// UDP payload.
    pub payload: Vec<u8>,
    /// Bytes behind the IPv6 packet.
    pub padding: Vec<u8>,
}

impl Frame {
    /// An untagged frame from port 547 to port 547, right in all its lengths and its checksum.
    pub fn new(source: Ipv6Addr, destination: Ipv6Addr, payload: Vec<u8>) -> Self {
        let [.., high, low] = source.octets();
        Self {
            destination_mac: [0x02, 0, 0, 0, 0xb0, 0x07],
            source_mac: [0x02, 0, 0, 0, high, low],
            tags: Vec::new(),
            ethertype: ethertype::IPV6,
            version: 6,
            payload_length: None,
            source,
            destination,
            extension_headers: Vec::new(),
            transport: next_header::UDP,
            source_port: 547,
            destination_port: 547,
            udp_length: None,
            checksum: Checksum::Complete,
            payload,
            padding: Vec::new(),
        }
    }

    /// With one more tag inside those already there.
    pub fn tag(mut self, ethertype: u16, vlan: u16) -> Self {
        self.tags.push((ethertype, vlan));
        self
    }

    /// With one more extension header behind those already there.
    pub fn extension_header(mut self, header: ExtensionHeader) -> Self {
        self.extension_headers.push(header);
        self
    }

    /// With this in its checksum field.
    pub fn checksum(self, checksum: Checksum) -> Self {
        Self { checksum, ..self }
    }

    /// The frame, from its destination MAC address on.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.destination_mac, self.source_mac].concat();
        for (ethertype, control) in &self.tags {
            bytes.extend(ethertype.to_be_bytes());
            bytes.extend(control.to_be_bytes());
        }
        bytes.extend(self.ethertype.to_be_bytes());

        let udp = self.udp();
        let headers: usize = self.extension_headers.iter().map(|h| h.bytes.len()).sum();
        let numbers: Vec<u8> = self
            .extension_headers
            .iter()
            .map(|header| header.number)
            .chain([self.transport])
            .collect();
        bytes.extend([self.version << 4, 0, 0, 0]);
        let payload_length = self.payload_length.unwrap_or(field(headers + udp.len()));
        bytes.extend(payload_length.to_be_bytes());
        bytes.extend([numbers[0], 64]);
        bytes.extend(self.source.octets());
        bytes.extend(self.destination.octets());
        for (header, next) in self.extension_headers.iter().zip(&numbers[1..]) {
            let start = bytes.len();
            bytes.extend(&header.bytes);
            if let Some(first) = bytes.get_mut(start) {
                *first = *next;
            }
        }
        bytes.extend(udp);
        bytes.extend(&self.padding);
        bytes
    }

    /// The UDP header and what follows it in the IPv6 packet.
    fn udp(&self) -> Vec<u8> {
        let length = self
            .udp_length
            .unwrap_or(field(UDP_HEADER + self.payload.len()));
        let mut udp = Vec::with_capacity(UDP_HEADER + self.payload.len());
        for word in [self.source_port, self.destination_port, length, 0] {
            udp.extend(word.to_be_bytes());
        }
        udp.extend(&self.payload);

        let partial = fold(sum(&self.pseudo_header(length)));
        let covered = &udp[..udp.len().min(usize::from(length))];
        let complete = match !fold(u64::from(partial) + sum(covered)) {
            // RFC 768: a checksum that comes out as zero is sent as all ones.
            0 => 0xffff,
            checksum => checksum,
        };
        let checksum = match self.checksum {
            Checksum::Complete => complete,
            Checksum::Partial => partial,
            Checksum::Zero => 0,
            Checksum::Exactly(value) => value,
            Checksum::Wrong => (0..16)
                .map(|bit| complete ^ 1 << bit)
                .find(|wrong| ![0, partial].contains(wrong))
                .unwrap_or(complete),
        };
        udp[6..8].copy_from_slice(&checksum.to_be_bytes());
        udp
    }

    /// RFC 8200, section 8.1.
    fn pseudo_header(&self, udp_length: u16) -> Vec<u8> {
        let mut bytes = [self.source.octets(), self.destination.octets()].concat();
        bytes.extend(u32::from(udp_length).to_be_bytes());
        bytes.extend([0, 0, 0, next_header::UDP]);
        bytes
    }
}

/// Sum of 16-bit words, the last filled up with a zero (RFC 1071).
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|word| u64::from(word[0]) << 8 | word.get(1).copied().map_or(0, u64::from))
        .sum()
}

/// Folds a one's complement sum to 16 bits.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A length as its two-byte field has it; what does not fit is cut, as a careless sender would.
fn field(length: usize) -> u16 {
    length as u16
}

/// Addresses of the fault as it was reported.
pub mod reported {
    use std::net::Ipv6Addr;

    /// The server.
    pub const SERVER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xb007);
    /// The relay whose copy came first.
    pub const RELAY_A: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xfffe);
    /// The relay whose copy came 39 microseconds later.
    pub const RELAY_B: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xffff);
    /// The client: firmware that boots over the network.
    pub const CLIENT: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x225, 0x90ff, 0xfefc, 0xd38c);
    /// The transaction-id.
    pub const TRANSACTION_ID: [u8; 3] = [0x1b, 0xf7, 0xf8];
}

/// The Solicit of the fault as it was reported, 111 bytes, with this Elapsed Time in hundredths of a
/// second.
pub fn reported_solicit(elapsed_time: u16) -> ClientMessage {
    const ENTERPRISE_INTEL: [u8; 4] = 343_u32.to_be_bytes();
    const CLASS: &[u8] = b"PXEClient:Arch:00007:UNDI:003000";
    // DUID-UUID (RFC 6355), its node the client's MAC address.
    let mut duid = vec![0, 4];
    duid.extend(*b"\0\0\0\0\0\0\x40\0\x80\0\0\x25\x90\xfc\xd3\x8c");
    let mut class = ENTERPRISE_INTEL.to_vec();
    class.extend(field(CLASS.len()).to_be_bytes());
    class.extend(CLASS);
    ClientMessage::new(message_type::SOLICIT, reported::TRANSACTION_ID)
        .elapsed_time(elapsed_time)
        .client_id(&duid)
        .option(option_code::IA_NA, b"\x90\xfc\xd3\x8c\0\0\0\0\0\0\0\0")
        // Boot file URL and boot file parameters (RFC 5970).
        .option(option_code::OPTION_REQUEST, &[0, 59, 0, 60])
        .option(option_code::VENDOR_CLASS, &class)
        .option(option_code::CLIENT_ARCHITECTURE, &[0, 7])
        .option(option_code::NETWORK_INTERFACE, &[1, 3, 0])
}

/// What a relay makes of a client's message: a Relay-forward with no option but the message, its
/// link-address the relay's own.
pub fn relayed(
    relay: Ipv6Addr,
    server: Ipv6Addr,
    client: Ipv6Addr,
    message: &ClientMessage,
) -> Frame {
    let envelope = RelayForward::new(relay, client, &message.bytes());
    Frame::new(relay, server, envelope.bytes())
}

/// The two frames of the fault as it was reported: one Solicit, through two relays.
pub fn reported_pair() -> [Frame; 2] {
    use reported::{CLIENT, RELAY_A, RELAY_B, SERVER};
    let message = reported_solicit(0);
    [RELAY_A, RELAY_B].map(|relay| relayed(relay, SERVER, CLIENT, &message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reported_frames_have_the_reported_lengths() {
        assert_eq!(reported_solicit(0).bytes().len(), 111);
        for frame in reported_pair() {
            let bytes = frame.bytes();
            assert_eq!(bytes.len(), 14 + 40 + 157);
            assert_eq!(bytes[58..60], [0, 157], "UDP length");
            assert_eq!(bytes[100..104], [1, 0x1b, 0xf7, 0xf8]);
        }
    }
}
