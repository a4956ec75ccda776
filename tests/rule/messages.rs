//! From the datagram to the client's message: layers, options, types, bounds.

use testbed::frame::{
    ClientMessage, Frame, RelayForward,
    message_type::{RELAY_FORWARD, RELAY_REPLY, SOLICIT},
    option, option_code,
    reported::{CLIENT, RELAY_A, RELAY_B, SERVER, TRANSACTION_ID},
    reported_solicit,
};
use xdp_dedup_common::Reason;

use crate::case::{Case, FIRST, dropped, passes};

/// RFC 9915, section 7.3, and RFC 9686: what clients send to servers.
const FILTERED: [u8; 9] = [1, 3, 4, 5, 6, 8, 9, 11, 36];

pub fn cases() -> Vec<Case> {
    [types(), option_order(), layers(), malformed()].concat()
}

pub fn envelope(inner: &[u8]) -> RelayForward {
    RelayForward::new(RELAY_A, CLIENT, inner)
}

pub fn frame(payload: Vec<u8>) -> Frame {
    Frame::new(RELAY_A, SERVER, payload)
}

/// Two envelopes in which the same message is found.
pub fn copies(name: impl Into<String>, a: Vec<u8>, b: Vec<u8>) -> Case {
    Case::new(name)
        .at(0, &frame(a), FIRST)
        .at(39, &Frame::new(RELAY_B, SERVER, b), dropped(39))
}

/// A payload that gets this reason, however often it comes.
pub fn never(name: impl Into<String>, reason: Reason, payload: Vec<u8>) -> Case {
    Case::new(name)
        .at(0, &frame(payload.clone()), passes(reason))
        .at(39, &frame(payload), passes(reason))
}

pub fn solicit() -> Vec<u8> {
    reported_solicit(0).bytes()
}

/// A message inside `layers` envelopes; `options(layer)` stand before the Relay Message option of
/// that layer, 1 being the outermost.
pub fn nested(layers: usize, message: &[u8], options: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    (1..=layers).rev().fold(message.to_vec(), |inner, layer| {
        // The relay nearest to the client saw the client's address, the others their neighbour's.
        let peer = if layer == layers { CLIENT } else { RELAY_B };
        let mut envelope =
            RelayForward::new(RELAY_A, peer, &inner).hop_count((layers - layer) as u8);
        envelope.before = options(layer);
        envelope.bytes()
    })
}

fn types() -> Vec<Case> {
    let mut direct = Case::new("what no relay forwarded passes whatever its type");
    let mut others = Case::new("client messages of all other types pass");
    for number in 0..=255 {
        let message = ClientMessage::new(number, TRANSACTION_ID)
            .padded_to(60)
            .bytes();
        if number != RELAY_FORWARD {
            for time in [0, 39] {
                let reason = passes(Reason::NotRelayForward);
                direct = direct.at(time, &frame(message.clone()), reason);
            }
            if !FILTERED.contains(&number) {
                for time in [0, 39] {
                    let relayed = frame(envelope(&message).bytes());
                    others = others.at(time, &relayed, passes(Reason::OtherType));
                }
            }
        }
    }
    let mut cases = vec![
        direct,
        others,
        never(
            "a Relay-reply is no Relay-forward",
            Reason::NotRelayForward,
            {
                let mut reply = envelope(&solicit()).bytes();
                reply[0] = RELAY_REPLY;
                reply
            },
        ),
        never(
            "a Relay-reply inside a Relay-forward is of another type",
            Reason::OtherType,
            {
                let mut reply = envelope(&solicit()).bytes();
                reply[0] = RELAY_REPLY;
                envelope(&reply).bytes()
            },
        ),
    ];
    for number in FILTERED {
        let message = ClientMessage::new(number, TRANSACTION_ID)
            .elapsed_time(0)
            .bytes();
        cases.push(copies(
            format!("of client messages of type {number} the second copy is dropped"),
            envelope(&message).bytes(),
            envelope(&message).bytes(),
        ));
    }
    cases
}

fn option_order() -> Vec<Case> {
    use option_code::{CLIENT_LINK_LAYER_ADDRESS, INTERFACE_ID};
    let message = solicit();
    let first = || envelope(&message).after(INTERFACE_ID, b"eth0").bytes();
    let last = || {
        envelope(&message)
            .before(
                CLIENT_LINK_LAYER_ADDRESS,
                &[0, 1, 0, 0x25, 0x90, 0xfc, 0xd3, 0x8c],
            )
            .before(17, &[0, 0, 0x11, 0x8b, 0, 1, 0, 0])
            .bytes()
    };
    let between = || {
        envelope(&message)
            .before(INTERFACE_ID, b"ge-0/0/1.0:100")
            .after(17, &[])
            .bytes()
    };
    let other = ClientMessage::new(SOLICIT, [9, 9, 9])
        .elapsed_time(0)
        .bytes();
    vec![
        copies(
            "the Relay Message option is found in first place",
            first(),
            first(),
        ),
        copies(
            "the Relay Message option is found in last place",
            last(),
            last(),
        ),
        copies(
            "the Relay Message option is found between others",
            between(),
            between(),
        ),
        copies(
            "two relays may put the message in different places",
            first(),
            last(),
        ),
        copies(
            "an option's odd length leaves the message unaligned",
            between(),
            envelope(&message).before(INTERFACE_ID, b"e").bytes(),
        ),
        copies(
            "of two Relay Message options the first leads on",
            envelope(&message)
                .after(option_code::RELAY_MESSAGE, &other)
                .bytes(),
            envelope(&message).bytes(),
        ),
        copies(
            "of two Relay Message options the first leads on also past an envelope",
            envelope(&message)
                .after(option_code::RELAY_MESSAGE, &envelope(&other).bytes())
                .bytes(),
            envelope(&message).bytes(),
        ),
        copies(
            "an option behind the message is not looked at, even if it runs past its layer",
            {
                let mut envelope = envelope(&message);
                envelope.after = vec![0, 18, 0xff, 0xff, 1];
                envelope.bytes()
            },
            envelope(&message).bytes(),
        ),
    ]
}

fn layers() -> Vec<Case> {
    let message = solicit();
    let mut cases = vec![
        copies(
            "copies through relays in different numbers are copies",
            nested(1, &message, |_| Vec::new()),
            nested(3, &message, |layer| option(18, &vec![0; layer])),
        ),
        Case::new("the innermost peer-address is the client's, not the outer ones'").pair_of(
            nested(2, &message, |_| Vec::new()),
            {
                // The same outer peer-address, another client.
                let other = RelayForward::new(RELAY_A, RELAY_A, &message).bytes();
                RelayForward::new(RELAY_A, RELAY_B, &other).bytes()
            },
        ),
        copies(
            "another outer peer-address makes no other message",
            RelayForward::new(RELAY_A, RELAY_A, &envelope(&message).bytes()).bytes(),
            RelayForward::new(RELAY_B, RELAY_B, &envelope(&message).bytes()).bytes(),
        ),
        copies(
            "hop-count and link-address make no other message",
            envelope(&message).hop_count(0).bytes(),
            RelayForward::new(RELAY_B, CLIENT, &message)
                .hop_count(31)
                .bytes(),
        ),
    ];
    for count in [2, 3, 9, 32, 64] {
        cases.push(copies(
            format!("copies are found in {count} layers"),
            nested(count, &message, |_| Vec::new()),
            nested(count, &message, |_| Vec::new()),
        ));
    }
    for count in [2, 3, 9] {
        cases.push(copies(
            format!("copies are found in {count} layers with options before the message"),
            nested(count, &message, |layer| option(18, &vec![0x5a; layer])),
            nested(count, &message, |_| option(79, &[0; 8])),
        ));
    }
    cases
}

impl Case {
    /// Two payloads that have nothing to do with each other: each is a first.
    fn pair_of(self, a: Vec<u8>, b: Vec<u8>) -> Self {
        self.at(0, &frame(a.clone()), FIRST)
            .at(39, &frame(b.clone()), FIRST)
            .at(40, &frame(a), dropped(40))
            .at(41, &frame(b), dropped(2))
    }
}

fn malformed() -> Vec<Case> {
    let message = solicit();
    let malformed = |name: String, payload| never(name, Reason::Malformed, payload);
    let mut cases = vec![
        malformed("an envelope without options is malformed".into(), {
            RelayForward {
                inner: None,
                ..envelope(&[])
            }
            .bytes()
        }),
        malformed(
            "an envelope without a Relay Message option is malformed".into(),
            {
                RelayForward {
                    inner: None,
                    ..envelope(&[]).before(18, b"eth0").after(17, &[])
                }
                .bytes()
            },
        ),
        malformed(
            "an inner envelope without a Relay Message option is malformed".into(),
            {
                let inner = RelayForward {
                    inner: None,
                    ..envelope(&[]).before(18, b"eth0")
                };
                envelope(&inner.bytes()).after(9, &message).bytes()
            },
        ),
        malformed(
            "a Relay Message option inside another option is none".into(),
            {
                RelayForward {
                    inner: None,
                    ..envelope(&[]).before(18, &option(9, &message))
                }
                .bytes()
            },
        ),
    ];
    for length in [1, 2, 17, 33] {
        let mut short = envelope(&message).bytes();
        short.truncate(length);
        cases.push(malformed(
            format!("an envelope of {length} bytes is malformed"),
            short.clone(),
        ));
        cases.push(malformed(
            format!("an inner envelope of {length} bytes is malformed"),
            // What follows would make it whole, if one read past its layer.
            envelope(&short).after(9, &message).bytes(),
        ));
    }
    for length in 0..4 {
        cases.push(malformed(
            format!("a client message of {length} bytes is malformed"),
            envelope(&message[..length]).after(9, &message).bytes(),
        ));
    }
    cases.push(copies(
        "a client message of 4 bytes is one",
        envelope(&message[..4]).bytes(),
        envelope(&message[..4]).bytes(),
    ));
    for length in 1..4 {
        cases.push(malformed(
            format!("{length} bytes of an option are malformed"),
            RelayForward {
                inner: None,
                after: vec![0; length],
                ..envelope(&[]).before(18, b"eth0")
            }
            .bytes(),
        ));
    }
    for level in 1..=3 {
        // The option that leads on says one byte more than its layer has; outer layers have more.
        let past = |code: u16| {
            let mut payload = message.clone();
            for layer in (1..=3).rev() {
                let mut relay = option(9, &payload);
                if layer == level {
                    let length = payload.len() as u16 + 1;
                    relay[..2].copy_from_slice(&code.to_be_bytes());
                    relay[2..4].copy_from_slice(&length.to_be_bytes());
                }
                let tail = if layer < level {
                    vec![0, 18, 0, 4, 1, 2, 3, 4]
                } else {
                    vec![]
                };
                let envelope = RelayForward {
                    inner: None,
                    before: [relay, tail].concat(),
                    ..envelope(&[])
                };
                payload = envelope.bytes();
            }
            payload
        };
        for code in [9, 18] {
            cases.push(malformed(
                format!("an option {code} that runs past layer {level} is malformed"),
                past(code),
            ));
        }
    }
    cases
}
