//! From the frame to the datagram: Ethernet, tags, IPv6, extension headers, UDP.

use testbed::frame::{
    ExtensionHeader, Frame,
    ethertype::{IEEE_8021AD, IEEE_8021Q, IPV4},
    next_header::{AUTHENTICATION, DESTINATION_OPTIONS, HOP_BY_HOP, ROUTING, TCP},
    reported_pair,
};
use xdp_dedup_common::Reason;

use crate::case::{Case, FIRST, dropped, passes};

const UDP: usize = 14 + 40;

pub fn cases() -> Vec<Case> {
    [
        the_reported_pair(),
        tags(),
        not_for_the_filter(),
        extension_headers(),
        lengths(),
    ]
    .concat()
}

/// Both frames of the reported pair, changed in the same way, are still found and are still copies.
fn copies(name: &str, change: impl Fn(Frame) -> Frame) -> Case {
    let [a, b] = reported_pair().map(change);
    Case::new(name).at(0, &a, FIRST).at(39, &b, dropped(39))
}

/// The first frame of the reported pair, changed, twice: it gets this reason both times.
pub fn never(name: &str, reason: Reason, change: impl Fn(Frame) -> Frame) -> Case {
    let [frame, _] = reported_pair().map(change);
    never_bytes(name, reason, frame.bytes())
}

fn never_bytes(name: &str, reason: Reason, bytes: Vec<u8>) -> Case {
    Case::new(name)
        .bytes_at(0, bytes.clone(), passes(reason))
        .bytes_at(39, bytes, passes(reason))
}

fn the_reported_pair() -> Vec<Case> {
    let [a, b] = reported_pair();
    vec![
        copies(
            "of the reported pair the second frame is dropped",
            |frame| frame,
        ),
        Case::new("of the reported pair the second frame is dropped whichever relay is first")
            .at(0, &b, FIRST)
            .at(39, &a, dropped(39)),
    ]
}

fn tags() -> Vec<Case> {
    let [a, b] = reported_pair();
    let mut cases = vec![
        Case::new("copies are copies whatever tags they carry")
            .at(0, &a.clone().tag(IEEE_8021Q, 100), FIRST)
            .at(1, &b, dropped(1))
            .at(2, &b.clone().tag(IEEE_8021Q, 200), dropped(2))
            .at(3, &b.tag(IEEE_8021AD, 7).tag(IEEE_8021Q, 100), dropped(3)),
        never(
            "behind three tags nothing is looked for",
            Reason::NotDhcp,
            |frame| {
                frame
                    .tag(IEEE_8021AD, 1)
                    .tag(IEEE_8021Q, 2)
                    .tag(IEEE_8021Q, 3)
            },
        ),
        never(
            "tags count also in front of something else",
            Reason::NotDhcp,
            |frame| Frame {
                ethertype: IPV4,
                ..frame.tag(IEEE_8021Q, 1)
            },
        ),
    ];
    for tags in [
        vec![IEEE_8021Q],
        vec![IEEE_8021AD],
        vec![IEEE_8021Q, IEEE_8021Q],
        vec![IEEE_8021AD, IEEE_8021Q],
        vec![IEEE_8021Q, IEEE_8021AD],
        vec![IEEE_8021AD, IEEE_8021AD],
    ] {
        cases.push(copies(
            &format!("copies are found behind tags {tags:04x?}"),
            |frame| {
                tags.iter()
                    .fold(frame, |frame, tag| frame.tag(*tag, 0xe064))
            },
        ));
    }
    let tagged = a.tag(IEEE_8021Q, 100).bytes();
    for length in [14, 15, 16, 17, 18] {
        cases.push(never_bytes(
            &format!("a tagged frame of {length} bytes is nobody's"),
            Reason::NotDhcp,
            tagged[..length].to_vec(),
        ));
    }
    cases
}

fn not_for_the_filter() -> Vec<Case> {
    let [a, _] = reported_pair();
    let bytes = a.bytes();
    let mut cases = vec![
        never(
            "what is not IPv6 is not looked at",
            Reason::NotDhcp,
            |frame| Frame {
                ethertype: IPV4,
                ..frame
            },
        ),
        never(
            "a frame that says IPv6 but holds version 4 is not looked at",
            Reason::NotDhcp,
            |f| Frame { version: 4, ..f },
        ),
        never(
            "a frame that says IPv6 but holds version 7 is not looked at",
            Reason::NotDhcp,
            |f| Frame { version: 7, ..f },
        ),
        never(
            "TCP to port 547 is not looked at",
            Reason::NotDhcp,
            |frame| Frame {
                transport: TCP,
                ..frame
            },
        ),
        never(
            "UDP to port 546 is not looked at",
            Reason::NotDhcp,
            |frame| Frame {
                destination_port: 546,
                ..frame
            },
        ),
        never(
            "UDP to port 803, whose low byte is 547's, is not looked at",
            Reason::NotDhcp,
            |f| Frame {
                destination_port: 0x323,
                ..f
            },
        ),
    ];
    for port in [546, 547, 1, 65_535] {
        cases.push(copies(
            &format!("copies are found from source port {port}"),
            |frame| Frame {
                source_port: port,
                ..frame
            },
        ));
    }
    for length in [14, 15, 20, 21, 53, 54, 57, 58, 59, 60, 61] {
        cases.push(never_bytes(
            &format!("a frame of {length} bytes holds no UDP header"),
            Reason::NotDhcp,
            bytes[..length].to_vec(),
        ));
    }
    cases
}

fn extension_headers() -> Vec<Case> {
    let mut cases = vec![
        never(
            "an extension header of another kind ends the walk",
            Reason::NotDhcp,
            |frame| {
                // Mobility (RFC 6275).
                frame.extension_header(ExtensionHeader::of_units(135, 0))
            },
        ),
        never(
            "behind ESP nothing is looked for",
            Reason::NotDhcp,
            |frame| {
                frame
                    .extension_header(ExtensionHeader::of_units(DESTINATION_OPTIONS, 0))
                    .extension_header(ExtensionHeader::of_units(50, 0))
            },
        ),
        copies(
            "copies are found behind one extension header of each kind",
            |frame| {
                frame
                    .extension_header(ExtensionHeader::of_units(HOP_BY_HOP, 1))
                    .extension_header(ExtensionHeader::of_units(ROUTING, 2))
                    .extension_header(ExtensionHeader::authentication(4))
                    .extension_header(ExtensionHeader::of_units(DESTINATION_OPTIONS, 3))
            },
        ),
        copies(
            "copies are found behind a tag and an extension header",
            |frame| {
                frame
                    .tag(IEEE_8021Q, 100)
                    .extension_header(ExtensionHeader::of_units(HOP_BY_HOP, 0))
            },
        ),
        never(
            "an extension header that runs past the frame hides the datagram",
            Reason::NotDhcp,
            {
                |frame| {
                    let mut bytes = vec![0; 8];
                    bytes[1] = 255;
                    frame.extension_header(ExtensionHeader::raw(HOP_BY_HOP, bytes))
                }
            },
        ),
        {
            let [a, b] = reported_pair();
            Case::new("copies are copies whatever extension headers they carry")
                .at(0, &a, FIRST)
                .at(
                    5,
                    &b.extension_header(ExtensionHeader::of_units(ROUTING, 0)),
                    dropped(5),
                )
        },
    ];
    for (name, number) in [
        ("hop-by-hop", HOP_BY_HOP),
        ("routing", ROUTING),
        ("destination options", DESTINATION_OPTIONS),
    ] {
        for units in [0, 1, 32, 255] {
            cases.push(copies(
                &format!("copies are found behind a {name} header of {units} units"),
                |frame| frame.extension_header(ExtensionHeader::of_units(number, units)),
            ));
        }
        for count in [8, 9] {
            let change = |frame| {
                (0..count).fold(frame, |frame: Frame, _| {
                    frame.extension_header(ExtensionHeader::of_units(number, 0))
                })
            };
            cases.push(if count == 8 {
                copies(&format!("copies are found behind 8 {name} headers"), change)
            } else {
                never(
                    &format!("behind 9 {name} headers nothing is looked for"),
                    Reason::NotDhcp,
                    change,
                )
            });
        }
    }
    // Its length is in units of 4 bytes, minus 2 (RFC 4302, section 2.2).
    for units in [0, 1, 4, 255] {
        cases.push(copies(
            &format!("copies are found behind an authentication header of {units} units"),
            |frame| frame.extension_header(ExtensionHeader::authentication(units)),
        ));
    }
    // Whatever is read first of the chain, nothing but the port says whose the datagram is.
    for number in [HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, AUTHENTICATION] {
        cases.push(never(
            &format!("UDP to another port behind a header {number} is not looked at"),
            Reason::NotDhcp,
            |frame| Frame {
                destination_port: 53,
                ..frame.extension_header(ExtensionHeader::of_units(number, 0))
            },
        ));
    }
    cases
}

/// A Relay-reply with this for its UDP length.
fn wrong_for_others(udp_length: u16) -> Case {
    let name = format!("a UDP length of {udp_length} is malformed whatever the message is");
    never(&name, Reason::Malformed, |frame| Frame {
        udp_length: Some(udp_length),
        payload: [&[13], &frame.payload[1..]].concat(),
        ..frame
    })
}

fn lengths() -> Vec<Case> {
    let [a, _] = reported_pair();
    let right = a.payload.len() as u16 + 8;
    let malformed = |name: &str, change: fn(Frame, u16) -> Frame| {
        never(name, Reason::Malformed, move |frame| change(frame, right))
    };
    let mut cut = a.bytes();
    cut.pop();
    vec![
        malformed("an IPv6 payload length of zero is malformed", |frame, _| {
            Frame {
                payload_length: Some(0),
                ..frame
            }
        }),
        malformed(
            "an IPv6 payload one byte beyond the frame is malformed",
            |frame, right| Frame {
                payload_length: Some(right + 1),
                ..frame
            },
        ),
        malformed(
            "an IPv6 payload far beyond the frame is malformed",
            |frame, _| Frame {
                payload_length: Some(65_535),
                ..frame
            },
        ),
        never_bytes(
            "a frame that ends one byte early is malformed",
            Reason::Malformed,
            cut,
        ),
        malformed("a UDP length of 0 is malformed", |frame, _| Frame {
            udp_length: Some(0),
            ..frame
        }),
        malformed("a UDP length of 7 is malformed", |frame, _| Frame {
            udp_length: Some(7),
            ..frame
        }),
        malformed(
            "a UDP length beyond the IPv6 payload is malformed",
            |frame, right| Frame {
                udp_length: Some(right + 1),
                padding: vec![0; 64],
                ..frame
            },
        ),
        malformed(
            "a UDP length beyond a payload that leaves no UDP header is malformed",
            {
                |frame, _| Frame {
                    payload_length: Some(7),
                    ..frame
                }
            },
        ),
        malformed(
            "extension headers count in the IPv6 payload",
            |frame, right| Frame {
                payload_length: Some(right + 7),
                ..frame.extension_header(ExtensionHeader::of_units(HOP_BY_HOP, 0))
            },
        ),
        malformed(
            "what the UDP length leaves out is not read",
            |frame, right| Frame {
                udp_length: Some(right - 1),
                ..frame
            },
        ),
        wrong_for_others(right + 1),
        wrong_for_others(7),
        never(
            "a UDP length of 8 is an empty datagram",
            Reason::NotRelayForward,
            |frame| Frame {
                udp_length: Some(8),
                ..frame
            },
        ),
        never(
            "a datagram that ends the frame behind its header is empty",
            Reason::NotRelayForward,
            |frame| Frame {
                payload: Vec::new(),
                ..frame
            },
        ),
        copies(
            "copies are found in frames with Ethernet padding",
            |frame| {
                let padding = vec![frame.source_mac[5]; 46];
                Frame { padding, ..frame }
            },
        ),
        {
            let [a, b] = reported_pair();
            let right = a.bytes()[UDP + 5];
            // Bytes behind the datagram, but in the IPv6 packet: an option there is none of its.
            let longer = |frame: Frame, rest: &[u8]| Frame {
                payload: [&frame.payload, rest].concat(),
                udp_length: Some(right.into()),
                ..frame
            };
            Case::new("what lies behind the datagram counts for nothing")
                .at(0, &longer(a, &[0, 9, 0, 4, 1, 2, 3, 4]), FIRST)
                .at(9, &longer(b, &[0xff; 3]), dropped(9))
        },
    ]
}
