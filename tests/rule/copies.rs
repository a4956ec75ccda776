//! From the client's message to the verdict: identity, bytes, window, transmissions, checksum.

use std::net::Ipv6Addr;

use testbed::frame::{
    Checksum, ClientMessage, Frame, RelayForward, relayed,
    reported::{CLIENT, RELAY_A, RELAY_B, SERVER, TRANSACTION_ID},
    reported_solicit,
};
use xdp_dedup_common::{
    Policy, Reason,
    policy::{EscalateEvery, Window},
    time::Microseconds,
};

use crate::case::{Case, DEFAULT, FIRST, dropped, escalated, passes, retransmission};

pub const MILLISECOND: u64 = 1000;
pub const SECOND: u64 = 1000 * MILLISECOND;
pub const MINUTE: u64 = 60 * SECOND;

pub fn cases() -> Vec<Case> {
    [identity(), bytes(), window(), escalation(), checksums()].concat()
}

pub fn window_of(microseconds: u64) -> Policy {
    DEFAULT.with_window(Window::new(Microseconds(microseconds)).unwrap())
}

pub fn escalating_every(transmissions: u8) -> Policy {
    DEFAULT.with_escalate_every(EscalateEvery::new(transmissions).unwrap())
}

/// The reported Solicit through the first relay, with this elapsed-time.
pub fn a(elapsed_time: u16) -> Frame {
    relayed(RELAY_A, SERVER, CLIENT, &reported_solicit(elapsed_time))
}

/// The same through the second.
pub fn b(elapsed_time: u16) -> Frame {
    relayed(RELAY_B, SERVER, CLIENT, &reported_solicit(elapsed_time))
}

fn identity() -> Vec<Case> {
    let message = reported_solicit(0);
    let of_type = |number| {
        let mut bytes = message.bytes();
        bytes[0] = number;
        Frame::new(
            RELAY_B,
            SERVER,
            RelayForward::new(RELAY_B, CLIENT, &bytes).bytes(),
        )
    };
    let of_transaction = |id: [u8; 3]| {
        let mut bytes = message.bytes();
        bytes[1..4].copy_from_slice(&id);
        Frame::new(
            RELAY_B,
            SERVER,
            RelayForward::new(RELAY_B, CLIENT, &bytes).bytes(),
        )
    };
    let mut others = vec![
        (
            "to another server",
            relayed(RELAY_B, RELAY_A, CLIENT, &message),
        ),
        ("to a server whose address differs in its last bit", {
            let neighbour = Ipv6Addr::from_bits(SERVER.to_bits() ^ 1);
            relayed(RELAY_B, neighbour, CLIENT, &message)
        }),
        (
            "of another client",
            relayed(RELAY_B, SERVER, RELAY_A, &message),
        ),
        ("of another type", of_type(3)),
    ];
    let [x, y, z] = TRANSACTION_ID;
    for (name, id) in [
        ("of a transaction-id with another first byte", [x ^ 1, y, z]),
        (
            "of a transaction-id with another second byte",
            [x, y ^ 0x80, z],
        ),
        ("of a transaction-id with another last byte", [x, y, z ^ 1]),
    ] {
        others.push((name, of_transaction(id)));
    }
    let mut cases: Vec<_> = others
        .into_iter()
        .map(|(name, other)| {
            Case::new(format!("a message {name} is no copy"))
                .at(0, &a(0), FIRST)
                .at(39, &other, FIRST)
                .at(50, &b(0), dropped(50))
                .at(60, &other, dropped(21))
        })
        .collect();
    cases.push(
        Case::new("a repeat by the same relay is a copy like any other")
            .at(0, &a(0), FIRST)
            .at(1, &a(0), dropped(1))
            .at(2, &b(0), dropped(2)),
    );
    cases.push(
        Case::new("one transaction-id for Solicit and Request, as iPXE has it, is two messages")
            .at(0, &a(0), FIRST)
            .at(39, &b(0), dropped(39))
            .at(MILLISECOND, &of_type(3), FIRST)
            .at(MILLISECOND + 39, &of_type(3), dropped(39)),
    );
    cases
}

fn bytes() -> Vec<Case> {
    let with = |relay, code: u16, data: &[u8]| {
        relayed(
            relay,
            SERVER,
            CLIENT,
            &reported_solicit(0).option(code, data),
        )
    };
    vec![
        Case::new("other bytes within the window are a retransmission")
            .at(0, &a(0), FIRST)
            .at(39, &b(100), retransmission(39))
            .at(78, &a(100), dropped(39)),
        Case::new("bytes from before the latest transmission are another one")
            .at(0, &a(0), FIRST)
            .at(10, &a(1), retransmission(10))
            .at(20, &b(0), retransmission(10))
            .at(30, &b(1), retransmission(10)),
        Case::new("a longer message is another one")
            .at(0, &a(0), FIRST)
            .at(1, &with(RELAY_B, 14, &[]), retransmission(1))
            .at(2, &with(RELAY_A, 14, &[0]), retransmission(1)),
        Case::new("zeros at the end of a message count")
            .at(0, &with(RELAY_A, 0, &[0]), FIRST)
            .at(1, &with(RELAY_B, 0, &[0, 0]), retransmission(1))
            .at(2, &with(RELAY_B, 0, &[0, 0]), dropped(1)),
        Case::new("a message of four bytes and one that goes on are two")
            .at(0, &short(&[]), FIRST)
            .at(1, &short(&[0]), retransmission(1))
            .at(2, &short(&[0]), dropped(1)),
    ]
}

fn short(rest: &[u8]) -> Frame {
    let message = [
        ClientMessage::new(1, TRANSACTION_ID).bytes().as_slice(),
        rest,
    ]
    .concat();
    Frame::new(
        RELAY_A,
        SERVER,
        RelayForward::new(RELAY_A, CLIENT, &message).bytes(),
    )
}

fn window() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, policy, length) in [
        ("the default window of 200 ms", DEFAULT, 200 * MILLISECOND),
        (
            "the shortest window, 1 ms",
            window_of(MILLISECOND),
            MILLISECOND,
        ),
        ("the longest window, 60 s", window_of(MINUTE), MINUTE),
    ] {
        cases.push(
            Case::new(format!("{name} ends exactly there"))
                .policy(policy)
                .at(7, &a(0), FIRST)
                .at(7 + length - 1, &b(0), dropped(length - 1))
                .at(7 + length, &b(0), retransmission(length)),
        );
        cases.push(
            Case::new(format!(
                "{name} runs from the copy that passed, not from dropped ones"
            ))
            .policy(policy)
            .at(0, &a(0), FIRST)
            .at(length / 2, &b(0), dropped(length / 2))
            .at(length - 1, &b(0), dropped(length - 1))
            .at(length, &a(0), retransmission(length))
            .at(length + 1, &b(0), dropped(1))
            .at(2 * length - 1, &b(0), dropped(length - 1))
            .at(2 * length, &b(0), retransmission(length)),
        );
        cases.push(
            Case::new(format!("{name} starts anew with other bytes"))
                .policy(policy)
                .at(0, &a(0), FIRST)
                .at(length - 1, &a(1), retransmission(length - 1))
                .at(2 * length - 2, &b(1), dropped(length - 1))
                .at(2 * length - 1, &b(1), retransmission(length)),
        );
    }
    cases.push(
        Case::new("iPXE's retransmissions all pass though their bytes are the same")
            .policy(escalating_every(0))
            .at(0, &a(0), FIRST)
            .at(250 * MILLISECOND, &a(0), retransmission(250 * MILLISECOND))
            .at(750 * MILLISECOND, &a(0), retransmission(500 * MILLISECOND))
            .at(1750 * MILLISECOND, &a(0), retransmission(SECOND))
            .at(3750 * MILLISECOND, &a(0), retransmission(2 * SECOND)),
    );
    let mut gaps = Case::new("each bound of the histogram belongs to the bucket below it")
        .policy(window_of(MINUTE).with_escalate_every(EscalateEvery::new(0).unwrap()))
        .at(0, &a(0), FIRST);
    for bound in [
        10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 1_000_000, 20_000_000,
    ] {
        for gap in [bound - 1, bound, bound + 1] {
            gaps = gaps.at(gap, &b(0), dropped(gap));
        }
    }
    cases.push(gaps);
    cases
}

/// `count` transmissions a second apart, each through both relays.
fn transmissions(name: &str, policy: Policy, count: u64, is_escalated: fn(u64) -> bool) -> Case {
    (1..=count).fold(Case::new(name).policy(policy), |case, transmission| {
        let time = transmission * SECOND;
        let elapsed = transmission as u16;
        let passing = if transmission == 1 {
            FIRST
        } else {
            retransmission(SECOND)
        };
        let copy = if is_escalated(transmission) {
            escalated
        } else {
            dropped
        };
        case.at(time, &a(elapsed), passing)
            .at(time + 39, &b(elapsed), copy(39))
            .at(time + 200, &b(elapsed), copy(200))
    })
}

fn escalation() -> Vec<Case> {
    vec![
        transmissions(
            "all copies of the 3rd, 6th and 9th transmission pass",
            DEFAULT,
            10,
            |n| [3, 6, 9].contains(&n),
        ),
        transmissions(
            "no transmission escalates where that is off",
            escalating_every(0),
            70,
            |_| false,
        ),
        transmissions(
            "every transmission can escalate",
            escalating_every(1),
            70,
            |_| true,
        ),
        transmissions("every second can escalate", escalating_every(2), 200, |n| {
            n % 2 == 0
        }),
        transmissions(
            "every third escalates also past the count of 63",
            DEFAULT,
            200,
            |n| n % 3 == 0,
        ),
        transmissions(
            "every 5th escalates also past the count",
            escalating_every(5),
            200,
            |n| n % 5 == 0,
        ),
        transmissions(
            "every 62nd escalates also past the count",
            escalating_every(62),
            200,
            |n| n % 62 == 0,
        ),
        transmissions(
            "the most that escalates is every 63rd",
            escalating_every(63),
            200,
            |n| n % 63 == 0,
        ),
        Case::new("dropped and escalated copies are no transmissions")
            .at(0, &a(0), FIRST)
            .at(1, &b(0), dropped(1))
            .at(2, &b(0), dropped(2))
            .at(3, &a(0), dropped(3))
            .at(SECOND, &a(1), retransmission(SECOND))
            .at(SECOND + 1, &b(1), dropped(1))
            .at(2 * SECOND, &a(2), retransmission(SECOND))
            .at(2 * SECOND + 1, &b(2), escalated(1))
            .at(2 * SECOND + 2, &b(2), escalated(2))
            .at(3 * SECOND, &a(3), retransmission(SECOND))
            .at(3 * SECOND + 1, &b(3), dropped(1)),
        Case::new("an escalated copy does not extend the window")
            .policy(escalating_every(1))
            .at(0, &a(0), FIRST)
            .at(199_999, &b(0), escalated(199_999))
            .at(200_000, &b(0), retransmission(200_000)),
        Case::new("the same bytes count as a transmission when the window is over")
            .at(0, &a(0), FIRST)
            .at(SECOND, &a(0), retransmission(SECOND))
            .at(2 * SECOND, &a(0), retransmission(SECOND))
            .at(2 * SECOND + 9, &b(0), escalated(9)),
        Case::new("other bytes within the window count as a transmission")
            .at(0, &a(0), FIRST)
            .at(1, &a(1), retransmission(1))
            .at(2, &a(2), retransmission(1))
            .at(3, &b(2), escalated(1)),
    ]
}

fn checksums() -> Vec<Case> {
    let with = |frame: Frame, checksum| frame.checksum(checksum);
    let bad = passes(Reason::BadChecksum);
    let corrupt = |frame: Frame, offset: usize| {
        let mut bytes = frame.bytes();
        bytes[offset] ^= 0x10;
        bytes
    };
    let all_ones = (0..=u16::MAX)
        .map(a)
        .find(|frame| frame.bytes()[60..62] == [0xff, 0xff])
        .unwrap();
    let mut cases = vec![
        Case::new("a datagram that its sender's NIC was to complete is valid")
            .at(0, &with(a(0), Checksum::Partial), FIRST)
            .at(1, &with(b(0), Checksum::Partial), dropped(1)),
        Case::new("a checksum that comes out as zero is sent as all ones, and valid")
            .at(0, &all_ones, FIRST)
            .at(1, &all_ones, dropped(1)),
        Case::new("a complemented pseudo-header sum is no valid checksum").at(
            0,
            &with(a(0), {
                let partial = with(a(0), Checksum::Partial).bytes();
                Checksum::Exactly(!u16::from_be_bytes([partial[60], partial[61]]))
            }),
            bad,
        ),
        Case::new("a duplicate is dropped whatever its checksum")
            .at(0, &a(0), FIRST)
            .at(1, &with(b(0), Checksum::Wrong), dropped(1))
            .at(2, &with(b(0), Checksum::Zero), dropped(2))
            .at(3, &with(b(0), Checksum::Partial), dropped(3)),
        Case::new("an escalated copy passes whatever its checksum")
            .policy(escalating_every(1))
            .at(0, &a(0), FIRST)
            .at(1, &with(b(0), Checksum::Wrong), escalated(1)),
        Case::new("a damaged retransmission neither counts nor restarts the window")
            .at(0, &a(0), FIRST)
            .at(SECOND, &with(a(0), Checksum::Wrong), bad)
            .at(SECOND + 39, &b(0), retransmission(SECOND + 39))
            .at(2 * SECOND, &with(a(1), Checksum::Wrong), bad)
            .at(2 * SECOND, &a(1), retransmission(SECOND - 39))
            .at(2 * SECOND + 1, &b(1), escalated(1)),
        Case::new("damaged bytes within the window are no retransmission")
            .at(0, &a(0), FIRST)
            .bytes_at(10, corrupt(b(0), 130), bad)
            .at(20, &b(0), dropped(20)),
        Case::new("a damaged message after 70 idle minutes is not learned")
            .at(0, &a(0), FIRST)
            .at(70 * MINUTE, &with(a(0), Checksum::Zero), bad)
            .at(70 * MINUTE + 39, &b(0), FIRST),
        Case::new("the checksum of a message that is not filtered is not consulted").at(
            0,
            &relayed(
                RELAY_A,
                SERVER,
                CLIENT,
                &ClientMessage::new(2, TRANSACTION_ID),
            )
            .checksum(Checksum::Wrong),
            passes(Reason::OtherType),
        ),
    ];
    for (name, checksum) in [("wrong", Checksum::Wrong), ("zero", Checksum::Zero)] {
        cases.push(
            Case::new(format!(
                "a first copy whose checksum is {name} is not learned"
            ))
            .at(0, &with(a(0), checksum), bad)
            .at(39, &b(0), FIRST)
            .at(40, &a(0), dropped(1)),
        );
    }
    // Addresses, ports, length, envelope, message: the checksum covers all of them.
    for (name, offset) in [
        ("the source address", 30),
        ("the source port", 54),
        ("the hop-count", 63),
        ("the link-address", 70),
        ("the client's options", 150),
        ("its last byte", 210),
    ] {
        cases.push(
            Case::new(format!(
                "a first copy damaged in {name} does not kill the good second"
            ))
            .bytes_at(0, corrupt(a(0), offset), bad)
            .at(39, &b(0), FIRST)
            .at(40, &a(0), dropped(1)),
        );
    }
    cases
}
