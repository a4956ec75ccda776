//! Long silence, clocks that disagree between CPUs, and the turn of a stamp's 42 bits.

use crate::{
    case::{Case, FIRST, dropped, escalated, retransmission},
    copies::{MINUTE, SECOND, a, b},
};

/// Where the bits of a stamp start over.
const TURN: u64 = 1 << 42;

pub fn cases() -> Vec<Case> {
    [idle(), clocks()].concat()
}

fn idle() -> Vec<Case> {
    const FORGOTTEN: u64 = 70 * MINUTE;
    vec![
        Case::new("after 70 idle minutes the count of transmissions restarts")
            .at(5, &a(0), FIRST)
            .at(SECOND, &a(1), retransmission(SECOND - 5))
            .at(SECOND + FORGOTTEN, &a(2), FIRST)
            .at(SECOND + FORGOTTEN + 1, &b(2), dropped(1))
            .at(2 * SECOND + FORGOTTEN, &a(3), retransmission(SECOND))
            .at(2 * SECOND + FORGOTTEN + 1, &b(3), dropped(1))
            .at(3 * SECOND + FORGOTTEN, &a(4), retransmission(SECOND))
            .at(3 * SECOND + FORGOTTEN + 1, &b(4), escalated(1)),
        Case::new("a microsecond before 70 idle minutes the count goes on")
            .at(5, &a(0), FIRST)
            .at(SECOND, &a(1), retransmission(SECOND - 5))
            .at(SECOND + FORGOTTEN - 1, &a(2), retransmission(FORGOTTEN - 1))
            .at(SECOND + FORGOTTEN, &b(2), escalated(1)),
        Case::new("dropped copies do not keep an entry from being idle")
            .at(0, &a(0), FIRST)
            .at(199_999, &b(0), dropped(199_999))
            .at(FORGOTTEN, &a(0), FIRST),
        Case::new("Solicits 66 minutes apart are one client's transmissions")
            .at(0, &a(0), FIRST)
            .at(66 * MINUTE, &a(1), retransmission(66 * MINUTE))
            .at(132 * MINUTE, &a(2), retransmission(66 * MINUTE))
            .at(132 * MINUTE + 1, &b(2), escalated(1)),
    ]
}

fn clocks() -> Vec<Case> {
    let ahead = |name: &str, stamp: u64| {
        Case::new(name)
            .at(stamp, &a(0), FIRST)
            .at(stamp - 1, &b(0), dropped(0))
            .at(stamp - SECOND, &b(0), dropped(0))
            // Nothing of that moved the window.
            .at(stamp + 199_999, &b(0), dropped(199_999))
            .at(stamp + 200_000, &b(0), retransmission(200_000))
    };
    let whole_turn = |name: &str, later: u64| {
        Case::new(name)
            .at(SECOND, &a(0), FIRST)
            .at(SECOND + TURN + later, &b(0), retransmission(later))
            .at(SECOND + TURN + later + 1, &b(0), dropped(1))
    };
    vec![
        ahead(
            "a copy stamped up to a second ahead is within the window",
            10 * SECOND,
        ),
        ahead("a stamp is ahead also across the turn of time", TURN + 39),
        Case::new("a copy stamped more than a second ahead counts as none")
            .at(10 * SECOND, &a(0), FIRST)
            .at(9 * SECOND - 1, &b(0), FIRST)
            .at(9 * SECOND, &a(0), dropped(1))
            .at(10 * SECOND, &a(0), retransmission(SECOND + 1)),
        Case::new("a clock set back an hour makes everything a first")
            .at(90 * MINUTE, &a(0), FIRST)
            .at(30 * MINUTE, &b(0), FIRST)
            .at(30 * MINUTE + 1, &a(0), dropped(1)),
        Case::new("other bytes stamped ahead are a retransmission")
            .at(10 * SECOND, &a(0), FIRST)
            .at(9 * SECOND, &b(1), retransmission(0))
            .at(9 * SECOND + 1, &a(1), dropped(1)),
        Case::new("the window runs on across the turn of time")
            .at(TURN - 10, &a(0), FIRST)
            .at(TURN + 29, &b(0), dropped(39))
            .at(TURN - 10 + 199_999, &b(0), dropped(199_999))
            .at(TURN - 10 + 200_000, &b(0), retransmission(200_000)),
        whole_turn("the same bytes a whole turn of time later are not fresh", 0),
        whole_turn(
            "the same bytes a whole turn and 39 us later are not fresh",
            39,
        ),
        Case::new("the same bytes a whole turn earlier are not fresh")
            .at(SECOND + TURN, &a(0), FIRST)
            .at(SECOND + 39, &b(0), retransmission(39)),
        Case::new("many turns of time change nothing")
            .at(1000 * TURN - 1, &a(0), FIRST)
            .at(1000 * TURN + 38, &b(0), dropped(39)),
    ]
}
