//! A daemon, the frames of two relays, and a Prometheus beside it.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use testbed::{
    binary::binary,
    daemon::{Daemon, Metrics},
    dashboard::{Dashboard, Query, SPAN_SECONDS, folder, value},
    frame::{Checksum, ClientMessage, message_type, relayed, reported},
    namespace::Namespace,
    prometheus::{Prometheus, Series, program},
    sender::Sender,
    veth::{End, join},
};

/// Clients that boot in each round.
const CLIENTS: u8 = 20;

/// Rounds: relays must be seen twice before they have a rate.
const ROUNDS: u8 = 2;

/// Frames that were sent, and what should become of them.
#[derive(Default)]
struct Sent {
    first: f64,
    duplicate: f64,
    retransmission: f64,
    escalated: f64,
    bad_checksum: f64,
}

impl Sent {
    fn messages(&self) -> f64 {
        self.first + self.duplicate + self.retransmission + self.escalated
    }

    fn frames(&self) -> f64 {
        self.messages() + self.bad_checksum
    }
}

pub fn panels_show_what_was_sent() -> Result<()> {
    let (here, there) = (Namespace::new("server")?, Namespace::new("relays")?);
    let end = End::new(&here, "server0", [2, 0, 0, 0, 0, 1]);
    let other = End::new(&there, "relay0", [2, 0, 0, 0, 0, 2]);
    join(&end, &other)?;
    let sender = Sender::new(&other)?;
    // So long that no pause between two copies could matter.
    let daemon = Daemon::start(&binary()?, &here, &["-i", "server0", "--window", "20s"])?;
    let program = program("prometheus").context("no prometheus")?;
    let mut prometheus = Prometheus::start(&program, &here, &folder().join("alerts.yml"))?;

    let mut sent = Sent::default();
    for round in 0..ROUNDS {
        play(&sender, round, &mut sent)?;
        prometheus.until_it_knows("sum(xdp_dedup_packets_total)", sent.frames())?;
    }

    let answers = Dashboard::read()?.ask(&prometheus)?;
    let show = |panel: &str, legend: &str, labels: &[(&str, &str)], expected: f64| {
        let shown = value(&answers, panel, legend, labels)?;
        ensure!(
            (shown - expected).abs() <= expected.abs() * 1e-6,
            "{panel} {labels:?}: {shown}, and not {expected}"
        );
        Ok(())
    };
    let here_at = ("interface", "server0");
    let rate = |frames: f64| frames / SPAN_SECONDS;
    attached_everywhere(&answers)?;
    show("Copies dropped", "", &[], sent.duplicate)?;
    show("Copies that would be dropped", "", &[], 0.0)?;
    show("Escalated copies", "escalated", &[], sent.escalated)?;
    show("Window", "", &[], 20.0)?;
    let share = sent.duplicate / sent.messages();
    show("Share of duplicates", "duplicates", &[], share)?;
    show("Share of duplicates", "{{instance}}", &[], share)?;
    let dropped = [here_at, ("verdict", "drop")];
    show(
        "Duplicates by interface",
        "",
        &dropped,
        rate(sent.duplicate),
    )?;
    for (reason, verdict, frames) in [
        ("first", "pass", sent.first),
        ("duplicate", "drop", sent.duplicate),
        ("retransmission", "pass", sent.retransmission),
        ("escalated", "pass", sent.escalated),
        ("bad_checksum", "pass", sent.bad_checksum),
    ] {
        let labels = [("reason", reason), ("verdict", verdict)];
        show("Verdicts and their reasons", "", &labels, rate(frames))?;
    }
    show(
        "Escalated copies",
        "{{instance}}",
        &[here_at],
        rate(sent.escalated),
    )?;
    show("Retransmissions", "", &[here_at], rate(sent.retransmission))?;
    let damaged = [("reason", "bad_checksum")];
    show(
        "Frames that pass unjudged",
        "",
        &damaged,
        rate(sent.bad_checksum),
    )?;
    show(
        "Frames that pass unjudged",
        "",
        &[("reason", "table_error")],
        0.0,
    )?;
    show("Table", "{{instance}} entries", &[], sent.first)?;
    show("Table", "{{instance}} capacity", &[], 65536.0)?;
    show("Table", "{{instance}} new", &[], sent.first)?;
    show("Table fill", "", &[], sent.first / 65536.0)?;
    show("Gaps against the window", "window", &[], 20.0)?;
    // All of relay A's win: it is always the first.
    let [a, b] = [reported::RELAY_A, reported::RELAY_B].map(|relay| relay.to_string());
    let race = "Share of each relay's messages that lost the race";
    show(race, "", &[("relay", &a)], 0.0)?;
    let lost = value(&answers, race, "", &[("relay", &b)])?;
    ensure!(lost > 0.5 && lost < 1.0, "relay B lost {lost}");
    for (relay, verdict, grows) in [(&a, "pass", true), (&a, "drop", false), (&b, "drop", true)] {
        let labels = [("relay", relay.as_str()), ("verdict", verdict)];
        let shown = value(&answers, "Messages by relay and verdict", "", &labels)?;
        ensure!((shown > 0.0) == grows, "{labels:?}: {shown}");
    }

    let metrics = daemon.metrics()?;
    let [short, long, longer, all] = ["0.01", "0.1", "0.2", "+Inf"].map(|le| up_to(&metrics, le));
    let (short, long, longer, all) = (short?, long?, longer?, all?);
    let gaps = sent.duplicate + sent.retransmission + sent.escalated;
    ensure!(all == gaps, "{all} gaps of {gaps}");
    let parts = "Share of gaps by length";
    show(parts, "up to 10 ms", &[], short / all)?;
    show(parts, "10 to 100 ms", &[], (long - short) / all)?;
    show(parts, "100 to 200 ms", &[], (longer - long) / all)?;
    show(parts, "beyond", &[], 1.0 - longer / all)?;
    show("Events lost", "", &[], 0.0)?;

    let start = Instant::now();
    loop {
        let rules = prometheus.rules()?;
        let wrong: Vec<_> = rules.values().flatten().collect();
        if wrong.is_empty() && rules.len() >= 10 {
            return Ok(());
        }
        ensure!(start.elapsed() < Duration::from_secs(60), "{wrong:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Both panels of this title.
fn attached_everywhere(answers: &[(Query, Vec<Series>)]) -> Result<()> {
    let panels = answers
        .iter()
        .filter(|(query, _)| query.panel == "Attached");
    let values: Vec<f64> = panels
        .flat_map(|(_, series)| series.iter().map(|series| series.value))
        .collect();
    ensure!(values == [1.0, 1.0], "{values:?}");
    Ok(())
}

/// Gaps up to a bound of the histogram.
fn up_to(metrics: &Metrics, bound: &str) -> Result<f64> {
    let bound = format!("le=\"{bound}\"");
    let found = metrics.value("xdp_dedup_duplicate_gap_seconds_bucket", &[&bound]);
    found.with_context(|| format!("no bucket with {bound}"))
}

/// Clients boot; one of them has to ask three times, and one frame is damaged on its way.
fn play(sender: &Sender, round: u8, sent: &mut Sent) -> Result<()> {
    let pair = |message: &ClientMessage| -> Result<()> {
        for relay in [reported::RELAY_A, reported::RELAY_B] {
            let frame = relayed(relay, reported::SERVER, reported::CLIENT, message);
            sender.send(&frame.bytes())?;
        }
        Ok(())
    };
    let solicit = |client| ClientMessage::new(message_type::SOLICIT, [1, round, client]);
    for client in 0..CLIENTS {
        pair(&solicit(client).elapsed_time(0))?;
        sent.first += 1.0;
        sent.duplicate += 1.0;
    }
    pair(&solicit(0).elapsed_time(100))?;
    sent.retransmission += 1.0;
    sent.duplicate += 1.0;
    pair(&solicit(0).elapsed_time(300))?;
    sent.retransmission += 1.0;
    sent.escalated += 1.0;

    let message = solicit(CLIENTS);
    let frame = relayed(
        reported::RELAY_A,
        reported::SERVER,
        reported::CLIENT,
        &message,
    );
    sender.send(&frame.checksum(Checksum::Wrong).bytes())?;
    sent.bad_checksum += 1.0;
    Ok(())
}
