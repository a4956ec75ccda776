//! What the operator can choose, and change while the filter runs.

use testbed::frame::{
    ClientMessage, Frame, RelayForward, relayed,
    reported::{CLIENT, RELAY_A, RELAY_B, SERVER, TRANSACTION_ID},
    reported_solicit,
};
use xdp_dedup_common::{
    Policy, Reason, Verdict,
    digest::DigestKey,
    policy::{IdentityBy, Messages, Untrusted, Window},
    time::Microseconds,
    trusted::Prefix,
};

use crate::{
    case::{Case, DEFAULT, FIRST, Outcome, dropped, escalated, passes, retransmission, would_drop},
    copies::{a, b, escalating_every, window_of},
};

const ALL: Policy = DEFAULT.with_messages(Messages::All);
const XID: Policy = DEFAULT.with_identity(IdentityBy::TransactionId);

pub fn cases() -> Vec<Case> {
    [
        observe(),
        all_messages(),
        by_transaction_id(),
        trusted_relays(),
        changes(),
    ]
    .concat()
}

fn trusted_relays() -> Vec<Case> {
    const UNTRUSTED: Outcome = passes(Reason::UntrustedRelay);
    let dropped_untrusted = UNTRUSTED.but(Verdict::Drop);
    let would_drop_untrusted = UNTRUSTED.but(Verdict::WouldDrop);
    let pass = DEFAULT.with_untrusted(Some(Untrusted::Pass));
    let drop = DEFAULT.with_untrusted(Some(Untrusted::Drop));
    let only_a = [Prefix::new(RELAY_A, 128)];
    let both = [Prefix::new(RELAY_A, 127)];
    let longer_first = [Prefix::new(RELAY_B, 128), Prefix::new(RELAY_A, 64)];
    let nobody = [Prefix::new(CLIENT, 128)];
    let not_relayed = Frame::new(RELAY_B, SERVER, vec![13; 40]);
    let envelope_alone = Frame::new(RELAY_B, SERVER, vec![12; 1]);
    vec![
        Case::new("trusted relays are filtered as all are without any")
            .trusting(drop, &both)
            .at(0, &a(0), FIRST)
            .at(39, &b(0), dropped(39)),
        Case::new("a relay is trusted by any of several prefixes")
            .trusting(drop, &longer_first)
            .at(0, &a(0), FIRST)
            .at(39, &b(0), dropped(39)),
        Case::new("copies from an untrusted relay pass and are not remembered")
            .trusting(pass, &only_a)
            .at(0, &b(0), UNTRUSTED)
            .at(39, &a(0), FIRST)
            .at(78, &b(0), UNTRUSTED)
            .at(99, &a(0), dropped(60)),
        Case::new("or they are dropped, also where they are the first")
            .trusting(drop, &only_a)
            .at(0, &b(0), dropped_untrusted)
            .at(39, &a(0), FIRST)
            .at(78, &b(0), dropped_untrusted),
        Case::new("but not while observing")
            .trusting(drop.with_observe(true), &only_a)
            .at(0, &b(0), would_drop_untrusted)
            .at(39, &a(0), FIRST),
        Case::new("where no relay is trusted that comes by, none touches the table")
            .trusting(drop, &nobody)
            .at(0, &a(0), dropped_untrusted)
            .at(39, &b(0), dropped_untrusted)
            .policy(DEFAULT)
            .at(78, &a(0), FIRST),
        Case::new("an untrusted relay's envelope is not opened, what is none is not its affair")
            .trusting(drop, &only_a)
            .at(0, &envelope_alone, dropped_untrusted)
            .at(1, &not_relayed, passes(Reason::NotRelayForward)),
        Case::new("trust can be given and taken away over what is remembered")
            .at(0, &a(0), FIRST)
            .trusting(pass, &only_a)
            .at(39, &b(0), UNTRUSTED)
            .trusting(pass, &both)
            .at(78, &b(0), dropped(78))
            .trusting(drop, &only_a)
            .at(99, &b(0), dropped_untrusted)
            .policy(DEFAULT)
            .at(120, &b(0), dropped(120)),
    ]
}

fn observe() -> Vec<Case> {
    let observe = DEFAULT.with_observe(true);
    vec![
        Case::new("to observe is to do everything but drop")
            .policy(observe)
            .at(0, &a(0), FIRST)
            .at(39, &b(0), would_drop(39))
            .at(199_999, &b(0), would_drop(199_999))
            .at(200_000, &b(0), retransmission(200_000))
            .at(400_000, &b(1), retransmission(200_000))
            .at(400_001, &a(1), escalated(1)),
        Case::new("observing can be switched on and off over what is remembered")
            .at(0, &a(0), FIRST)
            .at(1, &b(0), dropped(1))
            .policy(observe)
            .at(2, &b(0), would_drop(2))
            .policy(DEFAULT)
            .at(3, &b(0), dropped(3)),
    ]
}

fn direct(source: std::net::Ipv6Addr, message: &[u8]) -> Frame {
    Frame::new(source, SERVER, message.to_vec())
}

fn all_messages() -> Vec<Case> {
    let message = reported_solicit(0).bytes();
    let from_client = direct(CLIENT, &message);
    let from_other = direct(RELAY_A, &message);
    let never = |name: &str, reason, message: &[u8]| {
        Case::new(name)
            .policy(ALL)
            .at(0, &direct(CLIENT, message), passes(reason))
            .at(39, &direct(CLIENT, message), passes(reason))
    };
    let mut unfiltered = Case::new("what clients do not send is not filtered directly").policy(ALL);
    for number in (0..=255).filter(|number| ![1, 3, 4, 5, 6, 8, 9, 11, 12, 36].contains(number)) {
        let message = ClientMessage::new(number, TRANSACTION_ID).elapsed_time(0);
        for time in [0, 39] {
            let reason = passes(Reason::NotRelayForward);
            unfiltered = unfiltered.at(time, &direct(CLIENT, &message.bytes()), reason);
        }
    }
    vec![
        unfiltered,
        Case::new("with all messages the direct copy is dropped")
            .policy(ALL)
            .at(0, &from_client, FIRST)
            .at(39, &from_client, dropped(39)),
        Case::new("with all messages the source address is the client's")
            .policy(ALL)
            .at(0, &from_client, FIRST)
            .at(39, &from_other, FIRST)
            .at(40, &from_client, dropped(40)),
        Case::new("with all messages relayed ones are filtered as ever")
            .policy(ALL)
            .at(0, &a(0), FIRST)
            .at(39, &b(0), dropped(39)),
        Case::new("what a client multicasts and what a relay sends on are no copies")
            .policy(ALL)
            .at(0, &a(0), FIRST)
            .at(
                39,
                &Frame {
                    destination: "ff02::1:2".parse().unwrap(),
                    ..from_client.clone()
                },
                FIRST,
            ),
        Case::new("a direct message of 1501 bytes is not verified")
            .policy(ALL)
            .at(
                0,
                &direct(CLIENT, &reported_solicit(0).padded_to(1501).bytes()),
                passes(Reason::Unverifiable),
            ),
        never(
            "an empty datagram is no client message",
            Reason::NotRelayForward,
            &[],
        ),
        never(
            "a direct Solicit of one byte is malformed",
            Reason::Malformed,
            &[1],
        ),
        never(
            "a direct Solicit of three bytes is malformed",
            Reason::Malformed,
            &[1, 2, 3],
        ),
        never(
            "a direct Advertise of one byte is none of ours",
            Reason::NotRelayForward,
            &[2],
        ),
        Case::new("a direct Solicit of four bytes is a message")
            .policy(ALL)
            .at(0, &direct(CLIENT, &[1, 2, 3, 4]), FIRST)
            .at(39, &direct(CLIENT, &[1, 2, 3, 4]), dropped(39)),
        Case::new("direct messages pass as soon as they are no longer filtered")
            .policy(ALL)
            .at(0, &from_client, FIRST)
            .policy(DEFAULT)
            .at(39, &from_client, passes(Reason::NotRelayForward))
            .policy(ALL)
            .at(78, &from_client, dropped(78)),
    ]
}

fn by_transaction_id() -> Vec<Case> {
    let with = |number, transaction_id| {
        let message = ClientMessage::new(number, transaction_id).elapsed_time(77);
        relayed(RELAY_B, RELAY_A, RELAY_A, &message)
    };
    let [x, y, z] = TRANSACTION_ID;
    vec![
        Case::new("by transaction-id alone, everything with that one is a copy")
            .policy(XID)
            .at(0, &a(0), FIRST)
            .at(1, &b(1), dropped(1))
            .at(2, &with(1, TRANSACTION_ID), dropped(2))
            .at(3, &with(3, TRANSACTION_ID), dropped(3))
            .at(4, &with(1, [x, y, z ^ 1]), FIRST)
            .at(5, &with(1, [x ^ 1, y, z]), FIRST)
            .at(6, &with(6, [x, y, z ^ 1]), dropped(2)),
        Case::new("by transaction-id alone, other types still pass")
            .policy(XID)
            .at(0, &a(0), FIRST)
            .at(1, &with(2, TRANSACTION_ID), passes(Reason::OtherType)),
        Case::new("by transaction-id alone and for 15 s: as others did it before")
            .policy(
                escalating_every(0)
                    .with_window(Window::new(Microseconds::from_seconds(15)).unwrap())
                    .with_identity(IdentityBy::TransactionId),
            )
            .at(0, &a(0), FIRST)
            .at(14_999_999, &with(3, TRANSACTION_ID), dropped(14_999_999))
            .at(15_000_000, &b(9), retransmission(15_000_000)),
        Case::new("by transaction-id alone, escalation goes on")
            .policy(XID)
            .at(0, &a(0), FIRST)
            .at(1_000_000, &a(100), retransmission(1_000_000))
            .at(2_000_000, &a(200), retransmission(1_000_000))
            .at(2_000_001, &b(300), escalated(1)),
        Case::new("by transaction-id alone, a damaged first copy is not learned")
            .policy(XID)
            .at(
                0,
                &a(0).checksum(testbed::frame::Checksum::Wrong),
                passes(Reason::BadChecksum),
            )
            .at(39, &b(0), FIRST),
        Case::new("another identity finds nothing of the first, and it is still there after")
            .at(0, &a(0), FIRST)
            .policy(XID)
            .at(1, &b(0), FIRST)
            .at(2, &b(0), dropped(1))
            .policy(DEFAULT)
            .at(3, &b(0), dropped(3)),
    ]
}

fn changes() -> Vec<Case> {
    vec![
        Case::new("a shorter window also judges what is remembered")
            .at(0, &a(0), FIRST)
            .at(999, &b(0), dropped(999))
            .policy(window_of(1000))
            .at(999, &b(0), dropped(999))
            .at(1000, &b(0), retransmission(1000)),
        Case::new("a longer window also judges what is remembered")
            .at(0, &a(0), FIRST)
            .policy(window_of(60_000_000))
            .at(200_000, &b(0), dropped(200_000))
            .at(59_999_999, &b(0), dropped(59_999_999))
            .at(60_000_000, &b(0), retransmission(60_000_000)),
        Case::new("another escalation also judges what is remembered")
            .at(0, &a(0), FIRST)
            .at(1_000_000, &a(1), retransmission(1_000_000))
            .at(1_000_001, &b(1), dropped(1))
            .policy(escalating_every(2))
            .at(1_000_002, &b(1), escalated(2))
            .policy(escalating_every(0))
            .at(1_000_003, &b(1), dropped(3))
            .policy(escalating_every(1))
            .at(1_000_004, &b(1), escalated(4)),
        Case::new("under another secret no remembered message is a copy")
            .at(0, &a(0), FIRST)
            .policy(Policy::new(DigestKey::new(std::array::from_fn(|i| {
                547 << i
            }))))
            .at(1, &b(0), retransmission(1))
            .at(2, &a(0), dropped(1)),
        Case::new("the filter knows no relay: envelopes make no difference to what is copied")
            .at(0, &a(0), FIRST)
            .at(
                1,
                &Frame::new(
                    RELAY_B,
                    SERVER,
                    RelayForward::new(RELAY_A, CLIENT, &reported_solicit(0).bytes())
                        .hop_count(3)
                        .before(18, b"other")
                        .bytes(),
                ),
                dropped(1),
            ),
    ]
}
