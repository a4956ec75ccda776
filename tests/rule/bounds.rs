//! How much is walked, and how much is read: options, lengths, the first buffer.

use testbed::frame::{
    ClientMessage, RelayForward, message_type::ADVERTISE, option, reported::TRANSACTION_ID,
    reported_pair, reported_solicit,
};
use xdp_dedup::kernel::Kernel;
use xdp_dedup_common::Reason;

use crate::{
    case::{Case, FIRST, dropped, passes, retransmission},
    messages::{copies, envelope, frame, nested, never, solicit},
};

pub fn cases() -> Vec<Case> {
    [depth(), sizes()].concat()
}

/// `count` options without meaning, 4 bytes each.
fn fillers(count: usize) -> Vec<u8> {
    option(0x7777, &[]).repeat(count)
}

fn depth() -> Vec<Case> {
    let message = solicit();
    let before = |count| {
        move |message: &[u8]| RelayForward {
            before: fillers(count),
            ..envelope(message)
        }
    };
    let spread = |message: &[u8], outer, inner| {
        nested(2, message, |layer| {
            fillers(if layer == 1 { outer } else { inner })
        })
    };
    let too_deep = |name: &str, payload| never(name, Reason::TooDeep, payload);
    let malformed = |name: &str, payload| never(name, Reason::Malformed, payload);
    let ending = |count, end: &[u8]| {
        RelayForward {
            inner: None,
            before: [&fillers(count), end].concat(),
            ..envelope(&[])
        }
        .bytes()
    };
    vec![
        copies(
            "a message in the 64th option is found",
            before(63)(&message).bytes(),
            envelope(&message).bytes(),
        ),
        too_deep(
            "a message in the 65th option is too deep",
            before(64)(&message).bytes(),
        ),
        too_deep("an unfiltered message in the 65th option is too deep", {
            before(64)(&ClientMessage::new(ADVERTISE, TRANSACTION_ID).bytes()).bytes()
        }),
        copies(
            "options are counted over all layers: 64 are walked",
            spread(&message, 30, 32),
            spread(&message, 62, 0),
        ),
        too_deep("options are counted over all layers: 65 are too many", {
            spread(&message, 31, 32)
        }),
        too_deep(
            "65 layers are too deep",
            nested(65, &message, |_| Vec::new()),
        ),
        too_deep("65 options without a message are too deep", ending(65, &[])),
        malformed(
            "64 options without a message are malformed",
            ending(64, &[]),
        ),
        malformed("where the 65th option runs past its layer, that is told", {
            ending(64, &[0, 9, 0, 1])
        }),
        malformed(
            "where the 65th option is cut off, that is told",
            ending(64, &[0, 9, 0]),
        ),
        too_deep(
            "what the 66th option is, nobody looks",
            ending(65, &[0, 9, 0, 1]),
        ),
        malformed("where the 64th option runs past its layer, that is told", {
            ending(63, &[0, 9, 0, 1])
        }),
    ]
}

fn sizes() -> Vec<Case> {
    let sized = |length| reported_solicit(0).padded_to(length).bytes();
    // Message and envelope, brought to this length by an option behind the message.
    let long = |length: usize| {
        let short = envelope(&solicit()).bytes().len() + 4;
        let rest = length - (14 + 40 + 8) - short;
        frame(envelope(&solicit()).after(17, &vec![0; rest]).bytes()).bytes()
    };
    let linear = Kernel::linear_part_of_test_run();
    let mut cases = vec![
        copies(
            "a message of 1500 bytes is verified",
            envelope(&sized(1500)).bytes(),
            envelope(&sized(1500)).before(18, b"eth0").bytes(),
        ),
        never(
            "a message of 1501 bytes is not verified",
            Reason::Unverifiable,
            envelope(&sized(1501)).bytes(),
        ),
        never(
            "a message in a second buffer is not verified",
            Reason::Unverifiable,
            envelope(&solicit()).before(17, &vec![0; 3700]).bytes(),
        ),
        never(
            "a message of another type needs no verification",
            Reason::OtherType,
            {
                let mut message = sized(1501);
                message[0] = ADVERTISE;
                envelope(&message).bytes()
            },
        ),
        Case::new("a datagram that fills the first buffer is verified")
            .bytes_at(0, long(linear), FIRST)
            .at(39, &reported_pair()[1], dropped(39)),
        Case::new("of a datagram that needs a second buffer nothing is verified")
            .bytes_at(0, long(linear + 1), passes(Reason::Unverifiable))
            .bytes_at(39, long(linear + 1), passes(Reason::Unverifiable))
            .at(40, &reported_pair()[1], FIRST)
            .bytes_at(41, long(linear + 1), passes(Reason::Unverifiable)),
        Case::new("a short datagram in a frame of two buffers is verified")
            .bytes_at(
                0,
                [reported_pair()[0].bytes(), vec![0; linear]].concat(),
                FIRST,
            )
            .at(39, &reported_pair()[1], dropped(39)),
    ];
    // All that a word-wise reader could get wrong at the end of a message.
    for length in (115..=155).chain([1491, 1492, 1493, 1499]) {
        let mut other = sized(length);
        if let Some(last) = other.last_mut() {
            *last ^= 1;
        }
        cases.push(
            Case::new(format!("the last of {length} bytes counts"))
                .at(0, &frame(envelope(&sized(length)).bytes()), FIRST)
                .at(1, &frame(envelope(&sized(length)).bytes()), dropped(1))
                .at(2, &frame(envelope(&other).bytes()), retransmission(2)),
        );
    }
    cases
}
