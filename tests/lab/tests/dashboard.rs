//! The dashboard in a real Prometheus, with two real relays, Kea and perfdhcp behind it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use testbed::binary::binary;
use testbed::dashboard::{Dashboard, SPAN_SECONDS, folder, value};
use testbed::harness::{needs_root, run, trial};
use testbed::prometheus::{Prometheus, program};
use xdp_dedup_lab::Options;
use xdp_dedup_lab::play::Play;
use xdp_dedup_lab::site::{ETH0, Site};
use xdp_dedup_lab::software::kea::Kea;
use xdp_dedup_lab::software::perfdhcp::Load;
use xdp_dedup_lab::software::relay::Relay;
use xdp_dedup_lab::software::server::Lifetimes;

/// What a busy machine of two cores carries.
const LOAD: Load = Load {
    exchanges: 400,
    per_second: 100,
};

fn main() -> ExitCode {
    run(vec![needs_lab(trial(
        "the dashboard shows in a real Prometheus what perfdhcp sent through two relays",
        dashboard,
    ))])
}

/// What the set-up of `cargo xtask lab` made.
fn system() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/setup/lab")
}

/// The trial, ignored without root, without Prometheus, and where the lab's system is not set up.
fn needs_lab(trial: Trial) -> Trial {
    if system().join("packages").is_file() && program("prometheus").is_some() {
        return needs_root(trial);
    }
    eprintln!("skipped: the lab or Prometheus is not set up (`cargo xtask test` does it)");
    trial.with_ignored_flag(true)
}

fn dashboard() -> Result<()> {
    let options = Options {
        system: system(),
        binary: binary()?,
        short: true,
        json: false,
        keep: false,
        pcap: None,
    };
    let play = Play::filtered(&options, "dashboard", "load");
    let site = Site::new(&play)?;
    let kea = Kea {
        logs_leases: false,
        ..Kea::new(Lifetimes::LONG)
    };
    let _server = kea.start(&site.server)?;
    let _relays = Relay::ISC.start_pair(&site)?;
    let filter = play.filter(&site.server, &["-i", ETH0])?;
    let filter = filter.context("a play without the filter")?;
    let program = program("prometheus").context("no prometheus")?;
    let here = &site.server.namespace;
    let mut prometheus = Prometheus::start(&program, here, &folder().join("alerts.yml"))?;

    let perfdhcp = LOAD.run(&site.client)?;

    let messages = perfdhcp.messages() as f64;
    prometheus.until_it_knows("sum(xdp_dedup_packets_total)", 2.0 * messages)?;
    let answers = Dashboard::read()?.ask(&prometheus)?;
    // Where a busy machine tears copies further apart than the window, they pass: then it is for the
    // exporter to say how many.
    let metrics = filter.metrics()?;
    let of = |reason| {
        let reason = format!("reason=\"{reason}\"");
        metrics.value("xdp_dedup_packets_total", &[&reason, "verdict=\"pass\""])
    };
    let late = of("retransmission").context("no counter")?;
    let copies = messages - late;
    for (panel, legend, expected) in [
        ("Copies dropped", "", copies),
        ("Copies that would be dropped", "", 0.0),
        (
            "Share of duplicates",
            "duplicates",
            copies / (2.0 * messages),
        ),
        ("Duplicates by interface", "", copies / SPAN_SECONDS),
        ("Escalated copies", "escalated", 0.0),
        ("Retransmissions", "", late / SPAN_SECONDS),
        ("Table", "{{instance}} entries", messages),
        ("Window", "", 0.2),
    ] {
        let labels: &[(&str, &str)] = match panel {
            "Duplicates by interface" => &[("interface", ETH0), ("verdict", "drop")],
            _ => &[],
        };
        let shown = value(&answers, panel, legend, labels)?;
        ensure!(
            (shown - expected).abs() <= expected * 1e-6,
            "{panel}: {shown}, and not {expected}: {late} late copies"
        );
    }
    Ok(())
}
