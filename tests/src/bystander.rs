//! Frames that are none of the filter's business, and have to arrive whatever it does.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::frame::{Frame, ethertype};

/// Internet protocol numbers.
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// RFC 4443, section 4.1.
const ECHO_REQUEST: u8 = 128;

const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;

/// From whom to whom: MAC addresses as a frame begins with them.
#[derive(Clone, Copy, Debug)]
pub struct Macs {
    /// Whom the frame is for.
    pub destination: [u8; 6],
    /// Who sends it.
    pub source: [u8; 6],
}

/// A UDP datagram over IPv6 to any port.
pub fn udp_over_ipv6(
    macs: Macs,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    port: u16,
    payload: &[u8],
) -> Vec<u8> {
    let mut frame = Frame::new(source, destination, payload.to_vec());
    frame.destination_mac = macs.destination;
    frame.source_mac = macs.source;
    frame.destination_port = port;
    frame.bytes()
}

/// A UDP datagram over IPv4, without a UDP checksum, which IPv4 allows (RFC 768).
pub fn udp_over_ipv4(
    macs: Macs,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    port: u16,
    payload: &[u8],
) -> Vec<u8> {
    let udp_length = UDP_HEADER + payload.len();
    let [high, low] = length(IPV4_HEADER + udp_length);
    let mut header = vec![0x45, 0, high, low, 0, 0, 0, 0, 64, UDP, 0, 0];
    header.extend(source.octets());
    header.extend(destination.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);

    let mut frame = ethernet(macs, ethertype::IPV4);
    frame.extend(header);
    frame.extend(port.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend(length(udp_length));
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

/// An ICMPv6 echo request, as `ping` sends it.
pub fn echo_request(
    macs: Macs,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    payload: &[u8],
) -> Vec<u8> {
    // Type, code, checksum, identifier, sequence number.
    let mut message = vec![ECHO_REQUEST, 0, 0, 0, 0, 1, 0, 1];
    message.extend(payload);
    let addresses = [source.octets(), destination.octets()].concat();
    // RFC 8200, section 8.1; the upper half of the length is zero for any frame.
    let mut covered = addresses.clone();
    covered.extend([[0, 0], length(message.len()), [0, 0], [0, ICMPV6]].concat());
    covered.extend(&message);
    let sum = checksum(&covered);
    message[2..4].copy_from_slice(&sum);

    let mut frame = ethernet(macs, ethertype::IPV6);
    frame.extend([0x60, 0, 0, 0]);
    frame.extend(length(message.len()));
    frame.extend([ICMPV6, 64]);
    frame.extend(addresses);
    frame.extend(message);
    frame
}

fn ethernet(macs: Macs, ethertype: u16) -> Vec<u8> {
    let mut bytes = [macs.destination, macs.source].concat();
    bytes.extend(ethertype.to_be_bytes());
    bytes
}

fn length(bytes: usize) -> [u8; 2] {
    (bytes as u16).to_be_bytes()
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
