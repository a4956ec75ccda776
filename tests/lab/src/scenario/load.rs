//! perfdhcp at a steady rate through both relays, and what tcpdump counts of it.

use std::time::Duration;

use anyhow::Result;
use testbed::daemon::Metrics;

use super::{Row, Scenario};
use crate::play::{Play, Seen};
use crate::site::{ETH0, Site};
use crate::software::kea::Kea;
use crate::software::perfdhcp::{Load, Report};
use crate::software::relay::Relay;
use crate::software::server::Lifetimes;
use crate::software::tcpdump::Capture;
use crate::tally;

pub const SCENARIO: Scenario = Scenario {
    name: "load",
    expected: "perfdhcp through two relays: Kea does all of its work twice; with the filter no exchange \
               is lost, no copy comes through, and Prometheus' numbers are those of tcpdump",
    at_once: 1,
    packages: &[],
    only_by_name: false,
    rows: |short| {
        let load = if short { SHORT } else { LONG };
        let name = format!("{}/s", load.per_second);
        vec![Row::new(name, move |play| play_load(play, load))]
    },
};

/// What a busy machine of two cores carries, each message twice, captures included.
const SHORT: Load = Load {
    exchanges: 1_000,
    per_second: 250,
};
const LONG: Load = Load {
    exchanges: 15_000,
    per_second: 250,
};

/// Most time that tcpdump may take to write what it has.
const PATIENCE: Duration = Duration::from_secs(20);

fn play_load(play: &Play<'_>, load: Load) -> Result<Seen> {
    let site = Site::new(play)?;
    let kea = Kea {
        logs_leases: false,
        ..Kea::new(Lifetimes::LONG)
    };
    let server = kea.start(&site.server)?;
    let relays = Relay::ISC.start_pair(&site)?;
    let filter = play.filter(&site.server, &["-i", ETH0])?;
    let port = &site.server_cable.port;
    let switch = play.machine_on("switch", &port.namespace)?;
    let on_wire = play.tcpdump("wire", &switch, port.name)?;
    let at_server = play.tcpdump("server", &site.server, ETH0)?;

    let perfdhcp = load.run(&site.client)?;

    // Both relays forward each message, and the server answers whatever reaches it.
    let relayed = 2 * perfdhcp.messages();
    let reached = match &filter {
        Some(_) => perfdhcp.messages(),
        None => relayed,
    };
    // Whether all came is judged later.
    let _ = on_wire.until(relayed + reached, PATIENCE);
    let _ = at_server.until(reached + reached, PATIENCE);
    let observed = Observed {
        perfdhcp,
        on_wire: on_wire.finish()?,
        at_server: at_server.finish()?,
        received_by_kea: Kea::statistic(&site.server, "pkt6-received")?,
        metrics: match &filter {
            Some(filter) => Some(filter.metrics()?),
            None => None,
        },
    };
    let mut seen = observed.seen();
    seen.hold((site, server, relays, filter, switch));
    Ok(seen)
}

/// What everyone involved says of it.
struct Observed {
    perfdhcp: Report,
    on_wire: Capture,
    at_server: Capture,
    received_by_kea: u64,
    metrics: Option<Metrics>,
}

impl Observed {
    fn seen(self) -> Seen {
        let mut seen = Seen::default();
        let wire = Forwards::of(&self.on_wire);
        let server = Forwards::of(&self.at_server);
        let perfdhcp = &self.perfdhcp;
        let (begun, messages) = (perfdhcp.solicits.sent, perfdhcp.messages());
        let answers = self.at_server.messages.iter();
        let answers = answers.filter(|message| !message.is_of_client()).count();

        seen.say(format!(
            "{} of {begun} four-way exchanges completed",
            perfdhcp.completed()
        ));
        seen.say(format!(
            "{} relay-forwards on the wire, {} reach Kea; {} second answers at perfdhcp",
            wire.frames,
            self.received_by_kea,
            perfdhcp.orphans()
        ));
        seen.figure("exchanges_completed", perfdhcp.completed());
        seen.figure("messages_not_answered", perfdhcp.drops());
        seen.figure("second_answers", perfdhcp.orphans());
        seen.figure("frames_relayed", wire.frames);
        seen.figure("frames_at_server", server.frames);
        seen.figure("frames_received_by_kea", self.received_by_kea);
        seen.figure("answers_of_kea", answers);
        seen.must(
            perfdhcp.completed() == begun && perfdhcp.drops() == 0,
            format!("exchanges were lost: {perfdhcp:?}"),
        );
        seen.must(
            self.on_wire.lost == 0 && self.at_server.lost == 0,
            format!(
                "tcpdump missed {} frames on the wire and {} at the server",
                self.on_wire.lost, self.at_server.lost
            ),
        );
        seen.must(
            wire.transmissions == messages && wire.frames == 2 * messages,
            "the relays did not both send a copy of each message",
        );
        // Before the filter and behind it, sockets that nobody reads in time lose what comes.
        let lost = [
            (2 * messages).saturating_sub(wire.frames),
            server.frames.saturating_sub(self.received_by_kea as usize),
        ];
        if lost != [0, 0] {
            let [by_relays, by_kea] = lost;
            seen.excuse(format!(
                "the relays lost {by_relays} frames and Kea {by_kea}"
            ));
        }
        seen.must(
            self.received_by_kea == server.frames as u64 && answers == server.frames,
            format!(
                "{} frames reached the server, but Kea received {} and answered {answers}",
                server.frames, self.received_by_kea
            ),
        );
        seen.excuse_if_busy(&self.on_wire.messages);
        let gaps = tally::gaps(&self.on_wire.messages);
        let [usual, late] = [50, 99].map(|percent| tally::percentile(&gaps, percent));
        seen.say(format!(
            "copies {usual:.0?} apart, 99 of 100 within {late:.0?}"
        ));
        seen.figure("gap_p50_seconds", usual.as_secs_f64());
        seen.figure("gap_p99_seconds", late.as_secs_f64());
        let Some(metrics) = &self.metrics else {
            seen.must(
                server.frames == wire.frames && perfdhcp.orphans() == messages,
                "the fault did not show: not a second answer to each message",
            );
            return seen;
        };
        seen.must(
            server.transmissions == messages && server.frames == messages,
            "not every message reached the server exactly once",
        );
        seen.must(
            perfdhcp.orphans() == 0,
            format!("second answers came: {perfdhcp:?}"),
        );
        Self::compare(metrics, &wire, &server, &mut seen);
        seen
    }

    /// Tells the exporter's numbers, and demands that they are tcpdump's.
    fn compare(metrics: &Metrics, wire: &Forwards, server: &Forwards, seen: &mut Seen) {
        const PASSED: &[&str] = &["interface=\"eth0\"", "verdict=\"pass\"", "reason=\"first\""];
        const DROPPED: &[&str] = &[
            "interface=\"eth0\"",
            "verdict=\"drop\"",
            "reason=\"duplicate\"",
        ];
        let copies = wire.frames.saturating_sub(server.frames);
        let bytes_of_copies = wire.bytes.saturating_sub(server.bytes);
        let by_tcpdump = [
            ("xdp_dedup_packets_total", PASSED, server.frames),
            ("xdp_dedup_packets_total", DROPPED, copies),
            ("xdp_dedup_bytes_total", PASSED, server.bytes),
            ("xdp_dedup_bytes_total", DROPPED, bytes_of_copies),
            ("xdp_dedup_duplicate_gap_seconds_count", &[], copies),
        ];
        let by_exporter =
            by_tcpdump.map(|(name, labels, _)| metrics.value(name, labels).unwrap_or(f64::NAN));
        let [passed, dropped, bytes_passed, bytes_dropped, _] = by_exporter;
        seen.say(format!(
            "Prometheus: {passed} passed and {dropped} dropped, {bytes_passed} and {bytes_dropped} bytes"
        ));
        seen.figure("first_copies_passed", passed as u64);
        seen.figure("duplicates_dropped", dropped as u64);
        seen.figure("bytes_passed", bytes_passed as u64);
        seen.figure("bytes_dropped", bytes_dropped as u64);
        for ((name, labels, tcpdump), exporter) in by_tcpdump.into_iter().zip(by_exporter) {
            seen.must(
                exporter == tcpdump as f64,
                format!("{name}{labels:?} is {exporter}, but {tcpdump} by tcpdump"),
            );
        }
        let counters = metrics.packets(ETH0);
        seen.must(
            counters.len() == 2,
            format!("the exporter counts more than that: {counters:?}"),
        );
    }
}

/// Frames towards the server in a capture.
struct Forwards {
    frames: usize,
    bytes: usize,
    /// How many there are but for copies.
    transmissions: usize,
}

impl Forwards {
    fn of(capture: &Capture) -> Self {
        let forwards = || {
            let messages = capture.messages.iter();
            messages.filter(|message| message.is_relay_forward())
        };
        Self {
            frames: forwards().count(),
            bytes: forwards().map(|message| message.length).sum(),
            transmissions: tally::copies(&capture.messages).len(),
        }
    }
}
