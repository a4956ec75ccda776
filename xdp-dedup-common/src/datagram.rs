//! From a frame to the UDP datagram to port 547 that it carries.

use network_types::{eth::EtherType, ip::IpProto};

use crate::{Packet, Reason};

/// UDP port of DHCPv6 servers and relays (RFC 9915, section 7.2).
pub const SERVER_PORT: u16 = 547;
/// 802.1Q and 802.1ad tags walked before the IPv6 header.
pub const MAX_TAGS: usize = 2;
/// IPv6 extension headers walked before the UDP header.
pub const MAX_EXTENSION_HEADERS: usize = 8;
/// Length of an IPv6 header in bytes (RFC 8200, section 3).
pub const IPV6_HEADER: usize = 40;
/// Length of a UDP header in bytes (RFC 768).
pub const UDP_HEADER: usize = 8;

/// The longest datagram in bytes whose checksum is verified; more than the linear part of a frame
/// holds in native mode on 4 KiB pages.
pub const MAX_DATAGRAM: usize = 4096;

const ETHERTYPE_OFFSET: usize = 12;
/// Length of an Ethernet header in bytes, without tags.
pub const ETHERNET_HEADER: usize = 14;
/// Length of an 802.1Q or 802.1ad tag in bytes.
pub const TAG: usize = 4;

const ETHERTYPE_IPV6: u16 = u16::from_be(EtherType::Ipv6 as u16);
const ETHERTYPE_8021Q: u16 = u16::from_be(EtherType::Ieee8021q as u16);
const ETHERTYPE_8021AD: u16 = u16::from_be(EtherType::Ieee8021ad as u16);

const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
const ROUTING: u8 = IpProto::Ipv6Route as u8;
const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
const AUTHENTICATION: u8 = IpProto::Ah as u8;
const DESTINATION_OPTIONS: u8 = IpProto::Ipv6Opts as u8;
const UDP: u8 = IpProto::Udp as u8;

/// Where a UDP datagram to port 547 lies in its frame. All fields are byte offsets from the start of
/// the frame, and `udp + 8 <= end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The IPv6 header.
    pub ipv6: usize,
    /// The UDP header.
    pub udp: usize,
    /// The first byte behind the datagram, as the UDP length has it; Ethernet may pad behind it.
    pub end: usize,
}

impl Datagram {
    /// Offset of the IPv6 source address: the relay, or the client that sent directly.
    pub const fn source(&self) -> usize {
        self.ipv6 + 8
    }

    /// Offset of the IPv6 destination address.
    pub const fn destination(&self) -> usize {
        self.ipv6 + 24
    }

    /// Offset of the UDP payload.
    pub const fn payload(&self) -> usize {
        self.udp + UDP_HEADER
    }
}

/// Finds the datagram to port 547 in a frame.
///
/// # Errors
///
/// [`Reason::NotDhcp`] for every frame that cannot be shown to be one, [`Reason::Fragment`] for the
/// first fragment of one, [`Reason::Malformed`] where the lengths of IPv6, UDP and the frame
/// contradict each other.
#[inline(always)]
pub fn find<P: Packet>(packet: &P) -> Result<Datagram, Reason> {
    let (ipv6, udp, fragment) = if is_plain(packet)? {
        (ETHERNET_HEADER, ETHERNET_HEADER + IPV6_HEADER, false)
    } else {
        let ipv6 = ipv6_header(packet)?;
        let (udp, fragment) = udp_header(packet, ipv6)?;
        (ipv6, udp, fragment)
    };
    let (ipv6, udp) = (packet.forget_constant(ipv6), packet.forget_constant(udp));
    let header = ipv6_start(packet, ipv6)?;
    // Source port, destination port, length, checksum.
    let ports = u64::from_be(packet.read(udp).ok_or(Reason::NotDhcp)?);
    if (ports >> 32) as u16 != SERVER_PORT {
        return Err(Reason::NotDhcp);
    }
    if fragment {
        return Err(Reason::Fragment);
    }

    let payload = (header >> 16) as u16 as usize;
    let payload_end = ipv6 + IPV6_HEADER + payload;
    let length = (ports >> 16) as u16 as usize;
    let end = udp + length;
    // A payload length of zero would be a jumbogram (RFC 2675), whose length lies elsewhere.
    if payload == 0
        || length < UDP_HEADER
        || end > payload_end
        || !(packet.is_linear(payload_end) || payload_end <= packet.length())
    {
        return Err(Reason::Malformed);
    }
    Ok(Datagram {
        ipv6,
        udp,
        end: P::forget(end),
    })
}

/// Whether the UDP header follows an IPv6 header without tags or extension headers.
///
/// # Errors
///
/// [`Reason::NotDhcp`], for nearly all traffic, by three fields at fixed places. That is all that
/// bystanders pay.
#[inline(always)]
pub fn is_plain<P: Packet>(packet: &P) -> Result<bool, Reason> {
    const NEXT_HEADER: usize = ETHERNET_HEADER + 6;
    const DESTINATION_PORT: usize = ETHERNET_HEADER + IPV6_HEADER + 2;
    if !packet.is_linear(ETHERNET_HEADER + IPV6_HEADER + UDP_HEADER) {
        return Err(Reason::NotDhcp);
    }
    match packet.read(ETHERTYPE_OFFSET).map(u16::from_be) {
        Some(ETHERTYPE_IPV6) => match packet.read(NEXT_HEADER) {
            Some(UDP) => match packet.read(DESTINATION_PORT).map(u16::from_be) {
                Some(SERVER_PORT) => Ok(true),
                _ => Err(Reason::NotDhcp),
            },
            Some(HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS) => {
                Ok(false)
            }
            _ => Err(Reason::NotDhcp),
        },
        Some(ETHERTYPE_8021Q | ETHERTYPE_8021AD) => Ok(false),
        _ => Err(Reason::NotDhcp),
    }
}

/// The first eight bytes of an IPv6 header: version, traffic class and flow label; payload length;
/// next header; hop limit.
#[inline(always)]
fn ipv6_start<P: Packet>(packet: &P, ipv6: usize) -> Result<u64, Reason> {
    let start = u64::from_be(packet.read(ipv6).ok_or(Reason::NotDhcp)?);
    if start >> 60 == 6 {
        Ok(start)
    } else {
        Err(Reason::NotDhcp)
    }
}

/// Offset of the IPv6 header behind at most [`MAX_TAGS`] tags.
#[inline(always)]
fn ipv6_header<P: Packet>(packet: &P) -> Result<usize, Reason> {
    let mut offset = ETHERNET_HEADER;
    let mut ethertype = u16::from_be(packet.read(ETHERTYPE_OFFSET).ok_or(Reason::NotDhcp)?);
    for _ in 0..MAX_TAGS {
        if ethertype != ETHERTYPE_8021Q && ethertype != ETHERTYPE_8021AD {
            break;
        }
        ethertype = u16::from_be(packet.read(offset + TAG - 2).ok_or(Reason::NotDhcp)?);
        offset += TAG;
    }
    if ethertype != ETHERTYPE_IPV6 {
        return Err(Reason::NotDhcp);
    }
    Ok(P::forget(offset))
}

/// Offset of the UDP header behind at most [`MAX_EXTENSION_HEADERS`] extension headers, and whether
/// a Fragment header was among them (RFC 8200, section 4).
#[inline(always)]
fn udp_header<P: Packet>(packet: &P, ipv6: usize) -> Result<(usize, bool), Reason> {
    let mut offset = ipv6 + IPV6_HEADER;
    let mut next = (ipv6_start(packet, ipv6)? >> 8) as u8;
    let mut fragment = false;
    for _ in 0..MAX_EXTENSION_HEADERS {
        if next == UDP {
            break;
        }
        let header = packet.read::<[u8; 4]>(offset).ok_or(Reason::NotDhcp)?;
        let length = match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => (header[1] as usize + 1) * 8,
            // RFC 4302, section 2.2: in units of 4 bytes, minus 2.
            AUTHENTICATION => (header[1] as usize + 2) * 4,
            FRAGMENT => {
                // A later fragment has no UDP header: whose it is cannot be told.
                if u16::from_be_bytes([header[2], header[3]]) >> 3 != 0 {
                    return Err(Reason::NotDhcp);
                }
                fragment = true;
                8
            }
            _ => return Err(Reason::NotDhcp),
        };
        next = header[0];
        offset = P::forget(offset + length);
    }
    if next == UDP {
        Ok((offset, fragment))
    } else {
        Err(Reason::NotDhcp)
    }
}
