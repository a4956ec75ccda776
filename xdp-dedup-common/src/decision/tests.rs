//! What only a race shows: the table changes between two looks at it.

use std::cell::{Cell, RefCell};

use etherparse::PacketBuilder;

use super::*;
use crate::{digest::DigestKey, packet::Bytes, policy::EscalateEvery};

const NOW: Timestamp = Timestamp(1 << 50);
const POLICY: Policy = Policy::new(DigestKey::FIXED).with_messages(Messages::All);

/// A Solicit that the client sent itself.
fn frame() -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv6([0xfe; 16], [0x20; 16], 1)
        .udp(546, 547)
        .write(&mut frame, b"\x01\x1b\xf7\xf8\0\x08\0\x02\0\0")
        .unwrap();
    frame
}

fn digest() -> Digest {
    let frame = frame();
    let packet = Bytes::new(&frame);
    let datagram = datagram::find(&packet).unwrap();
    let message = relay_forward::direct_message(&packet, &datagram).unwrap();
    let identity = Identity {
        destination: packet.read(datagram.destination()).unwrap(),
        peer: packet.read(message.peer).unwrap(),
        message: message.header,
    };
    Digest::of(&packet, &message, &identity, POLICY.digest_key()).unwrap()
}

fn other_digest() -> Digest {
    Digest(!digest().0)
}

/// The `transmission`-th, stamped so long ago.
fn sighting(digest: Digest, transmission: u8, ago: u64) -> Sighting {
    let stamp = Timestamp(NOW.0 - ago);
    (1..transmission).fold(Sighting::first(digest, stamp), |sighting, _| {
        sighting.next(digest, stamp, EscalateEvery::DEFAULT)
    })
}

/// A table in which another CPU is always first: what is found there at each look, in turn.
struct Contested {
    policy: Option<Policy>,
    finds: RefCell<Vec<Option<Sighting>>>,
    refuses: Option<Refused>,
    wins: bool,
    written: Cell<Option<Sighting>>,
}

struct ContestedEntry<'a>(&'a Contested, Cell<Option<Sighting>>);

impl<'a> Surroundings for &'a Contested {
    type Entry = ContestedEntry<'a>;

    fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    fn is_trusted(&self, _: Address) -> bool {
        true
    }

    fn counts_relays(&self) -> bool {
        false
    }

    fn count_relay(&self, _: Address, _: &Decision) {}

    fn now(&self) -> Timestamp {
        NOW
    }

    fn recall(&self, _: &Identity) -> Option<Self::Entry> {
        let found = self.finds.borrow_mut().remove(0)?;
        Some(ContestedEntry(self, Cell::new(Some(found))))
    }

    fn remember(&self, _: &Identity, sighting: Sighting) -> Result<(), Refused> {
        self.refuses.map_or_else(
            || {
                self.written.set(Some(sighting));
                Ok(())
            },
            Err,
        )
    }
}

impl Entry for ContestedEntry<'_> {
    fn load(&self) -> Sighting {
        // The first load sees what was found, a later one what there is by then.
        self.1.take().unwrap_or_else(|| {
            let next = self.0.finds.borrow_mut().remove(0);
            next.expect("the entry is still there")
        })
    }

    fn replace(&self, _: Sighting, new: Sighting) -> bool {
        if self.0.wins {
            self.0.written.set(Some(new));
        }
        self.0.wins
    }
}

fn contested(finds: &[Option<Sighting>]) -> Contested {
    Contested {
        policy: Some(POLICY),
        finds: RefCell::new(finds.to_vec()),
        refuses: Some(Refused::Exists),
        wins: false,
        written: Cell::new(None),
    }
}

fn decided(contested: &Contested) -> (Verdict, Reason, Option<u64>) {
    let decision = decide(&Bytes::new(&frame()), &contested);
    assert!(contested.finds.borrow().is_empty(), "not all was looked at");
    (
        decision.verdict(),
        decision.reason(),
        decision.gap().map(|gap| gap.0),
    )
}

const HOUR: u64 = 3_600_000_000;

#[test]
fn who_loses_a_race_is_judged_by_who_won_it() {
    use Reason::{Duplicate, Escalated, Retransmission};
    let (same, other) = (digest(), other_digest());
    let expired = Some(sighting(same, 1, 300_000));
    let forgotten = Some(sighting(same, 1, 2 * HOUR));
    let cases = [
        (
            "a copy made the entry",
            vec![None, Some(sighting(same, 1, 0))],
            Duplicate,
            Some(0),
        ),
        (
            "a copy renewed the entry",
            vec![expired, Some(sighting(same, 2, 5))],
            Duplicate,
            Some(5),
        ),
        (
            "a copy renewed the entry after 70 minutes",
            vec![forgotten, Some(sighting(same, 1, 5))],
            Duplicate,
            Some(5),
        ),
        (
            "a copy renewed the entry, for the third time",
            vec![expired, Some(sighting(same, 3, 5))],
            Escalated,
            Some(5),
        ),
        (
            "another message made the entry",
            vec![None, Some(sighting(other, 1, 5))],
            Retransmission,
            Some(5),
        ),
        (
            "another message renewed the entry",
            vec![expired, Some(sighting(other, 2, 5))],
            Retransmission,
            Some(5),
        ),
        (
            "the entry went to another identity, whose time is long over",
            vec![expired, forgotten],
            Retransmission,
            None,
        ),
        (
            "the entry came and went",
            vec![None, None],
            Retransmission,
            None,
        ),
    ];
    for (name, finds, reason, gap) in cases {
        let table = contested(&finds);
        let verdict = if reason == Duplicate {
            Verdict::Drop
        } else {
            Verdict::Pass
        };
        assert_eq!(decided(&table), (verdict, reason, gap), "{name}");
        assert_eq!(table.written.get(), None, "{name}");
    }
}

#[test]
fn who_loses_a_race_while_observing_would_be_dropped() {
    let table = Contested {
        policy: Some(POLICY.with_observe(true)),
        ..contested(&[None, Some(sighting(digest(), 1, 0))])
    };
    assert_eq!(
        decided(&table),
        (Verdict::WouldDrop, Reason::Duplicate, Some(0))
    );
}

#[test]
fn who_wins_leaves_its_own_word() {
    let expired = sighting(other_digest(), 4, 300_000);
    let forgotten = sighting(digest(), 4, 2 * HOUR);
    let cases = [
        (None, Reason::First, None, sighting(digest(), 1, 0)),
        (
            Some(expired),
            Reason::Retransmission,
            Some(300_000),
            sighting(digest(), 5, 0),
        ),
        (
            Some(forgotten),
            Reason::First,
            None,
            sighting(digest(), 1, 0),
        ),
    ];
    for (found, reason, gap, written) in cases {
        let table = Contested {
            refuses: None,
            wins: true,
            ..contested(&[found])
        };
        assert_eq!(decided(&table), (Verdict::Pass, reason, gap));
        assert_eq!(table.written.get(), Some(written), "{reason:?}");
    }
}

#[test]
fn what_the_table_refuses_passes() {
    let table = Contested {
        refuses: Some(Refused::Failed),
        ..contested(&[None])
    };
    assert_eq!(decided(&table), (Verdict::Pass, Reason::TableError, None));
}

#[test]
fn without_a_policy_everything_passes() {
    let table = Contested {
        policy: None,
        ..contested(&[])
    };
    assert_eq!(decided(&table), (Verdict::Pass, Reason::TableError, None));
}

#[test]
fn a_damaged_message_leaves_no_word_and_races_for_none() {
    for found in [None, Some(sighting(other_digest(), 1, 5))] {
        let table = contested(&[found]);
        let mut frame = frame();
        frame[70] ^= 1;
        let decision = decide(&Bytes::new(&frame), &&table);
        assert_eq!(decision, Decision::pass(Reason::BadChecksum));
        assert_eq!(table.written.get(), None);
    }
}
