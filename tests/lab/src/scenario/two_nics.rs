//! The relays reach the server over different NICs: the filter has to know on one what passed on the
//! other, in whatever mode it runs on each.

use std::time::Duration;

use anyhow::Result;
use testbed::veth::XdpMode;

use super::exchange::{self, Cast, Setting};
use super::{Row, Scenario};
use crate::play::{Play, Seen};
use crate::site::{ETH0, ETH1, Layout};

pub const SCENARIO: Scenario = Scenario {
    name: "two-nics",
    expected: "each relay reaches the server by a NIC of its own: two answers to each message; with \
               the filter on both NICs exactly one, whichever mode it has on each",
    at_once: 3,
    packages: &[],
    only_by_name: false,
    rows: |short| {
        let mut rows = vec![
            row("loses on generic", [XdpMode::Native, XdpMode::Generic]),
            row("loses on native", [XdpMode::Generic, XdpMode::Native]),
        ];
        if !short {
            rows.push(row("both native", [XdpMode::Native; 2]));
        }
        rows
    },
};

/// How much longer the way over the second NIC is: its copies come second, also on a busy machine.
const LONGER: Duration = Duration::from_millis(50);

fn row(name: &str, modes: [XdpMode; 2]) -> Row {
    let setting = Setting {
        layout: Layout {
            second_nic: Some(LONGER),
            ..Layout::default()
        },
        modes,
    };
    Row::new(name, move |play| loses_on_the_second(play, setting))
}

fn loses_on_the_second(play: &Play<'_>, setting: Setting) -> Result<Seen> {
    let exchange = exchange::play_at(play, Cast::USUAL, setting)?;
    let (counters, sent) = (exchange.counters.clone(), exchange.client.sent as u64);
    let mut seen = exchange.seen();
    let Some(counters) = counters else {
        return Ok(seen);
    };
    for ((nic, mode), (counters, (first, duplicate))) in [ETH0, ETH1]
        .into_iter()
        .zip(setting.modes)
        .zip(counters.iter().zip([(sent, 0), (0, sent)]))
    {
        let one = std::slice::from_ref(counters);
        let passed = exchange::count(one, "pass", "first");
        let dropped = exchange::count(one, "drop", "duplicate");
        let mode = format!("{mode:?}").to_lowercase();
        seen.say(format!(
            "{nic} ({mode}) passed {passed} and dropped {dropped}"
        ));
        seen.figure(&format!("passed_on_{nic}"), passed);
        seen.figure(&format!("dropped_on_{nic}"), dropped);
        seen.must(
            (passed, dropped) == (first, duplicate),
            format!("{nic} was to pass {first} and to drop {duplicate}"),
        );
    }
    Ok(seen)
}
