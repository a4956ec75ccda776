//! Two parsers of other people's as oracles: messages that dhcproto wrote, in packets that etherparse
//! wrote, are found where they were put; and etherparse reads the test bed's own frames for what they
//! are meant to be.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::net::Ipv6Addr;

use dhcproto::{
    Decodable as _, Decoder, Encodable, Encoder,
    v6::{self, DhcpOption, IANA, Message, MessageType, OptionCode, RelayMessage, UnknownOption},
};
use etherparse::{
    IpAuthHeader, IpHeaders, IpNumber, Ipv6Extensions, Ipv6Header, Ipv6RawExtHeader,
    Ipv6RoutingExtensions, NetSlice, PacketBuilder, SlicedPacket, TransportSlice, UdpHeader,
    VlanId,
};
use proptest::{prelude::*, sample::select};
use testbed::frame::{ExtensionHeader, Frame, ethertype, next_header, reported_pair};
use xdp_dedup_common::{checksum, datagram, packet::Bytes, relay_forward};

fn encoded(value: &impl Encodable) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.encode(&mut Encoder::new(&mut bytes)).unwrap();
    bytes
}

fn unknown(code: u16, data: Vec<u8>) -> DhcpOption {
    DhcpOption::Unknown(UnknownOption::new(OptionCode::from(code), data))
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..40)
}

prop_compose! {
    fn client_message()(
        number in select(vec![1_u8, 2, 3, 4, 5, 6, 7, 8, 9, 11, 36]),
        id in any::<[u8; 3]>(),
        options in prop::collection::vec(prop_oneof![
            data().prop_map(DhcpOption::ClientId),
            any::<u16>().prop_map(DhcpOption::ElapsedTime),
            Just(DhcpOption::RapidCommit),
            any::<u32>().prop_map(|id| {
                DhcpOption::IANA(IANA { id, t1: 0, t2: 0, opts: v6::DhcpOptions::new() })
            }),
            (200_u16..300, data()).prop_map(|(code, data)| unknown(code, data)),
        ], 0..8),
    ) -> Message {
        let mut message = Message::new_with_id(MessageType::from(number), id);
        options.into_iter().for_each(|option| message.opts_mut().insert(option));
        message
    }
}

/// A relay's envelope: hop-count, link-address, peer-address, options on both sides of the message.
#[derive(Clone, Debug)]
struct Layer {
    header: (u8, [u8; 16], [u8; 16]),
    before: Vec<DhcpOption>,
    after: Vec<DhcpOption>,
}

prop_compose! {
    fn layer()(
        header in any::<(u8, [u8; 16], [u8; 16])>(),
        before in relay_options(),
        after in relay_options(),
    ) -> Layer {
        Layer { header, before, after }
    }
}

fn relay_options() -> impl Strategy<Value = Vec<DhcpOption>> {
    let option = prop_oneof![
        data().prop_map(DhcpOption::InterfaceId),
        (select(vec![17_u16, 37, 38, 79]), data()).prop_map(|(code, data)| unknown(code, data)),
    ];
    prop::collection::vec(option, 0..4)
}

impl Layer {
    /// The envelope around `inner` as dhcproto writes it. Of a whole message it would sort the
    /// options, and in a Relay Message option it knows but further envelopes: so the options are
    /// written one by one.
    fn around(&self, inner: Vec<u8>) -> Vec<u8> {
        let (hop_count, link, peer) = &self.header;
        let header = [&[12, *hop_count], &link[..], &peer[..]].concat();
        let message = RelayMessage::decode(&mut Decoder::new(&header)).unwrap();
        assert_eq!(message.msg_type(), MessageType::RelayForw);
        assert_eq!(message.peer_addr(), Ipv6Addr::from(*peer));
        let mut bytes = encoded(&message);
        let options = self
            .before
            .iter()
            .chain([&unknown(9, inner)])
            .chain(&self.after)
            .map(encoded)
            .collect::<Vec<_>>();
        bytes.extend(options.concat());
        bytes
    }
}

/// A packet to port 547 as etherparse writes it.
fn packet(payload: &[u8], source_port: u16, tags: &[u16], extensions: Ipv6Extensions) -> Vec<u8> {
    let header = Ipv6Header {
        source: [0x20; 16],
        destination: [0xfd; 16],
        hop_limit: 9,
        ..Ipv6Header::default()
    };
    let headers = IpHeaders::Ipv6(header, extensions);
    let tag = |number: u16| VlanId::try_new(number).unwrap();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let builder = match tags {
        [] => builder.ip(headers),
        [one] => builder.single_vlan(tag(*one)).ip(headers),
        [one, two, ..] => builder.double_vlan(tag(*one), tag(*two)).ip(headers),
    }
    .udp(source_port, 547);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, payload).unwrap();
    bytes
}

fn extensions() -> impl Strategy<Value = Ipv6Extensions> {
    let raw = || {
        prop::option::of((0..5_usize).prop_map(|units| {
            Ipv6RawExtHeader::new_raw(IpNumber::UDP, &vec![0; 6 + 8 * units]).unwrap()
        }))
    };
    let auth =
        prop::option::of((0..6_usize).prop_map(|words| {
            IpAuthHeader::new(IpNumber::UDP, 1, 2, &vec![0; 4 * words]).unwrap()
        }));
    (raw(), raw(), raw(), raw(), auth).prop_map(|(hop_by_hop, destination, routing, last, auth)| {
        Ipv6Extensions {
            hop_by_hop_options: hop_by_hop,
            destination_options: destination,
            routing: routing.map(|routing| Ipv6RoutingExtensions {
                routing,
                final_destination_options: last,
            }),
            fragment: None,
            auth,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_dhcproto_and_etherparse_wrote_is_found(
        message in client_message(),
        layers in prop::collection::vec(layer(), 1..8),
        source_port in any::<u16>(),
        tags in prop::collection::vec(0..4095_u16, 0..3),
        extensions in extensions(),
    ) {
        let inner = encoded(&message);
        // The first layer is the relay nearest to the client.
        let payload = layers.iter().fold(inner.clone(), |inner, layer| layer.around(inner));
        let bytes = packet(&payload, source_port, &tags, extensions);
        let frame = Bytes::new(&bytes);

        let datagram = datagram::find(&frame).unwrap();
        prop_assert_eq!(&bytes[datagram.payload()..datagram.end], &payload);
        prop_assert_eq!(&bytes[datagram.source()..][..16], &[0x20; 16]);
        prop_assert_eq!(&bytes[datagram.destination()..][..16], &[0xfd; 16]);
        prop_assert_eq!(checksum::is_valid(&frame, &datagram), Some(true));

        let found = relay_forward::client_message(&frame, &datagram).unwrap();
        let found_bytes = &bytes[found.offset..][..found.length];
        prop_assert_eq!(found_bytes, &inner);
        prop_assert_eq!(found.header.message_type().0, u8::from(message.msg_type()));
        prop_assert_eq!(found.header.transaction_id().0, message.xid());
        prop_assert_eq!(&bytes[found.peer..][..16], &layers[0].header.2);
        prop_assert_eq!(usize::from(found.layers), layers.len());
        // And what was found is the message that dhcproto reads.
        let read = Message::decode(&mut Decoder::new(found_bytes)).unwrap();
        prop_assert_eq!(read, message);
    }

    #[test]
    fn etherparse_reads_the_test_beds_frames_for_what_they_are(
        payload in prop::collection::vec(any::<u8>(), 0..300),
        addresses in any::<[[u8; 16]; 2]>(),
        ports in any::<[u16; 2]>(),
        tags in prop::collection::vec(0..4095_u16, 0..3),
        headers in (prop::option::of(0..4_u8), prop::option::of(0..4_u8), prop::option::of(1..4_u8)),
    ) {
        let [source, destination] = addresses.map(Ipv6Addr::from);
        let (hop_by_hop, destination_options, authentication) = headers;
        let extension_headers = [
            hop_by_hop.map(|units| ExtensionHeader::of_units(next_header::HOP_BY_HOP, units)),
            destination_options
                .map(|units| ExtensionHeader::of_units(next_header::DESTINATION_OPTIONS, units)),
            authentication.map(ExtensionHeader::authentication),
        ];
        let frame = Frame {
            tags: tags.iter().map(|tag| (ethertype::IEEE_8021Q, *tag)).collect(),
            extension_headers: extension_headers.into_iter().flatten().collect(),
            source_port: ports[0],
            destination_port: ports[1],
            ..Frame::new(source, destination, payload.clone())
        };
        let bytes = frame.bytes();

        let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
        let read_tags: Vec<_> = packet.vlan_ids().iter().map(|tag| tag.value()).collect();
        prop_assert_eq!(read_tags, tags);
        let Some(NetSlice::Ipv6(ipv6)) = &packet.net else {
            panic!("no IPv6: {packet:?}");
        };
        prop_assert_eq!(ipv6.header().source_addr(), source);
        prop_assert_eq!(ipv6.header().destination_addr(), destination);
        let Some(TransportSlice::Udp(udp)) = &packet.transport else {
            panic!("no UDP: {packet:?}");
        };
        prop_assert_eq!([udp.source_port(), udp.destination_port()], ports);
        prop_assert_eq!(udp.payload(), &payload);
        let checksum = UdpHeader { checksum: 0, ..udp.to_header() }
            .calc_checksum_ipv6_raw(source.octets(), destination.octets(), &payload)
            .unwrap();
        prop_assert_eq!(udp.checksum(), checksum);
    }
}

#[test]
fn dhcproto_reads_the_reported_message_for_what_it_is() {
    for frame in reported_pair() {
        let bytes = frame.bytes();
        let packet = Bytes::new(&bytes);
        let datagram = datagram::find(&packet).unwrap();
        let found = relay_forward::client_message(&packet, &datagram).unwrap();
        let inner = &bytes[found.offset..][..found.length];
        let message = Message::decode(&mut Decoder::new(inner)).unwrap();
        assert_eq!(message.msg_type(), MessageType::Solicit);
        assert_eq!(message.xid(), [0x1b, 0xf7, 0xf8]);
        assert_eq!(message.opts().iter().count(), 7);
        assert_eq!((inner.len(), found.layers), (111, 1));
    }
}
