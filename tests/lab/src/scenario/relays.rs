//! The site with other relays, with relays behind the pair, and with other ways to the server. What
//! both relays send has to be found in places and wrappings that differ.

use std::collections::BTreeSet;

use anyhow::Result;
use testbed::veth::XdpMode;

use super::exchange::{self, Cast, Setting};
use super::{Row, Scenario};
use crate::dhcp::{Checksum, Message};
use crate::play::{Play, Seen};
use crate::site::{Layout, RELAYS};
use crate::software::relay::Relay;
use crate::tally;

pub const SCENARIO: Scenario = Scenario {
    name: "relays",
    expected: "dhclient, Kea, different relays and ways to the server: two answers to each message; \
               with the filter exactly one",
    at_once: 8,
    packages: &[],
    only_by_name: false,
    rows,
};

/// A row.
#[derive(Clone, Copy, Debug)]
struct Case {
    relays: [Relay; 2],
    setting: Setting,
    /// Where the client's message begins in the UDP payload of each one's copy, in bytes.
    offsets: [usize; 2],
}

const ISC: Relay = Relay::ISC;
const ISC_WITH_ID: Relay = Relay::Dhcrelay { interface_id: true };
const DNSMASQ: Relay = Relay::Dnsmasq;
const WIDE: Relay = Relay::Wide;
const DIBBLER: Relay = Relay::Dibbler;

fn rows(short: bool) -> Vec<Row> {
    let site = Layout::default();
    let levels = |levels: usize| Layout {
        further_relays: levels - 1,
        ..site
    };
    let trunk = Layout {
        trunk: true,
        ..site
    };
    let partial = Layout {
        checksum_offload: true,
        ..site
    };
    let native = |layout| Setting {
        layout,
        ..Setting::default()
    };
    let generic = |layout| Setting {
        layout,
        modes: [XdpMode::Generic; 2],
    };
    let with_id = [ISC, ISC_WITH_ID];
    let mut rows = vec![
        row("Interface-Id by one", with_id, native(site), [38, 46]),
        row("ISC + dnsmasq", [ISC, DNSMASQ], native(site), [38, 50]),
        row("ISC + WIDE", [ISC, WIDE], native(site), [38; 2]),
        row("ISC + dibbler", [ISC, DIBBLER], native(site), [38, 46]),
        row("3 levels", with_id, native(levels(3)), [114, 122]),
        row("VLAN trunk", [ISC; 2], native(trunk), [38; 2]),
        row("partial checksums", [ISC; 2], native(partial), [38; 2]),
        row("generic mode", [ISC; 2], generic(site), [38; 2]),
    ];
    if !short {
        let both_with_id = [ISC_WITH_ID; 2];
        rows.extend([
            row("Interface-Id by both", both_with_id, native(site), [46; 2]),
            row("WIDE + dibbler", [WIDE, DIBBLER], native(site), [38, 46]),
            row("2 levels", [ISC; 2], native(levels(2)), [76; 2]),
            row(
                "generic mode, VLAN trunk",
                [ISC; 2],
                generic(trunk),
                [38; 2],
            ),
            row(
                "generic mode, partial checksums",
                [ISC; 2],
                generic(partial),
                [38; 2],
            ),
        ]);
    }
    rows
}

fn row(name: &str, relays: [Relay; 2], setting: Setting, offsets: [usize; 2]) -> Row {
    let case = Case {
        relays,
        setting,
        offsets,
    };
    Row::new(name, move |play| case.play(play))
}

impl Case {
    fn play(&self, play: &Play<'_>) -> Result<Seen> {
        let cast = Cast {
            relays: self.relays,
            ..Cast::USUAL
        };
        let exchange = exchange::play_at(play, cast, self.setting)?;
        let relayed = exchange.relayed.clone();
        let mut seen = exchange.seen();
        self.judge_copies(&relayed, &mut seen);
        self.judge_frames(&relayed, &mut seen);
        Ok(seen)
    }

    /// Where the copies of each relay of the pair hold the client's messages.
    fn judge_copies(&self, relayed: &[Message], seen: &mut Seen) {
        for ((relay, link), expected) in self.relays.iter().zip(RELAYS).zip(self.offsets) {
            let is_as_expected = |message: &&Message| {
                message.offset == expected
                    && message.envelopes.last().is_some_and(|innermost| {
                        innermost.link == link
                            && innermost.interface_id.is_some() == relay.adds_interface_id()
                    })
            };
            seen.must(
                relayed.iter().filter(is_as_expected).count() == relayed.len() / 2,
                format!("{relay:?} did not make its copies as it was to make them"),
            );
        }
        let offsets: BTreeSet<_> = relayed.iter().map(|message| message.offset).collect();
        let shown: Vec<_> = offsets.iter().map(usize::to_string).collect();
        let gap = tally::gaps(relayed).last().copied().unwrap_or_default();
        let gap = gap.as_secs_f64() * 1000.0;
        seen.say(format!(
            "message at byte {} of the payload, copies up to {gap:.2} ms apart",
            shown.join(" and ")
        ));
        seen.figure("offsets_of_message_in_bytes", Vec::from_iter(offsets));
        seen.figure("longest_gap_between_copies_in_ms", gap);
    }

    /// How the copies are wrapped on their way to the server.
    fn judge_frames(&self, relayed: &[Message], seen: &mut Seen) {
        let Layout {
            further_relays,
            trunk,
            checksum_offload,
            second_nic: _,
        } = self.setting.layout;
        let count = |holds: &dyn Fn(&Message) -> bool| {
            relayed.iter().filter(|message| holds(message)).count()
        };
        let frames = relayed.len();

        let sources: BTreeSet<_> = relayed.iter().map(|message| message.source).collect();
        let is_nested = further_relays > 0;
        if let Some(source) = sources.first().filter(|_| sources.len() == 1) {
            seen.say(format!("all from the last relay, {source}"));
        }
        seen.must(
            sources.len() == if is_nested { 1 } else { 2 }
                && count(&|message| message.envelopes.len() == 1 + further_relays) == frames,
            "the copies did not come by the relays that were to send them",
        );

        let from_546 = count(&|message| message.source_port == 546);
        if from_546 > 0 {
            seen.say(format!("{from_546} of {frames} from port 546"));
        }
        seen.figure("frames_from_port_546", from_546);
        let of_wide = self.relays.iter().filter(|relay| **relay == Relay::Wide);
        seen.must(
            from_546 == of_wide.count() * frames / 2,
            "the source ports are not those of these relays",
        );

        let tagged = count(&|message| message.tags == 1);
        if trunk {
            seen.say(format!("{tagged} of {frames} tagged"));
        }
        seen.figure("frames_tagged", tagged);
        seen.must(
            tagged == if trunk { frames } else { 0 },
            "the frames are not tagged as they were to be",
        );

        let partial = count(&|message| message.checksum == Checksum::Partial);
        let whole = count(&|message| message.checksum == Checksum::Whole);
        if checksum_offload {
            seen.say(format!("{partial} of {frames} checksums partial"));
        }
        seen.figure("frames_with_partial_checksum", partial);
        seen.must(
            (partial, whole)
                == if checksum_offload {
                    (frames, 0)
                } else {
                    (0, frames)
                },
            "the checksums are not as they were to be",
        );
    }
}
