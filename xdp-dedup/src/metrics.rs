//! What the maps hold, in Prometheus' text format, read at scrape time. Names and labels are public
//! interface; they come from `Reason` and `Verdict`.

use anyhow::{Context as _, Result};
use prometheus::{
    Encoder as _, TextEncoder,
    proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType},
};
use xdp_dedup_common::{
    Reason, Verdict,
    counters::{GAP_BOUNDS, GapHistogram, InterfaceCounters, Traffic},
    policy::Window,
};

use crate::{attachment::Mode, maps::RelayTally};

/// Content-Type of the text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

const MICROSECONDS_PER_SECOND: f64 = 1e6;

/// What one interface has to tell.
#[derive(Clone, Debug)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// The mode that the program runs in.
    pub mode: Mode,
    /// Whether the program is on it still.
    pub attached: bool,
    /// Id of the program there.
    pub program_id: u32,
    /// Tag of the program.
    pub program_tag: u64,
    /// What it has counted.
    pub counters: InterfaceCounters,
}

/// All that one scrape tells.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The interfaces, in the order of the command line.
    pub interfaces: Vec<InterfaceStatus>,
    /// Client messages by relay.
    pub relays: RelayTally,
    /// Transactions in the table.
    pub table_entries: usize,
    /// Transactions that the table has room for.
    pub table_capacity: u32,
    /// How long after the copy that passed another one is dropped, by the policy in force.
    pub window: Window,
    /// Frames that `events` wanted, and that found no room in its ring buffer.
    pub events_lost: u64,
}

impl Snapshot {
    /// The snapshot in Prometheus' text format.
    ///
    /// # Errors
    ///
    /// Where the encoder refuses, which it has no reason to.
    pub fn encode(&self) -> Result<String> {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.families(), &mut text)
            .context("cannot encode the metrics")?;
        String::from_utf8(text).context("cannot encode the metrics")
    }

    fn families(&self) -> Vec<MetricFamily> {
        let interfaces = || self.interfaces.iter();
        let mut gaps = InterfaceCounters::default();
        for interface in interfaces() {
            gaps.add(&interface.counters);
        }
        let program_info = interfaces().map(|interface| {
            let labels = [
                ("interface", interface.name.clone()),
                ("id", interface.program_id.to_string()),
                ("tag", format!("{:016x}", interface.program_tag)),
            ];
            gauge(&labels, 1.0)
        });
        let attached = interfaces().map(|interface| {
            let labels = [
                ("interface", interface.name.clone()),
                ("mode", interface.mode.to_string()),
            ];
            gauge(&labels, f64::from(u8::from(interface.attached)))
        });
        let window = self.window.length().0 as f64 / MICROSECONDS_PER_SECOND;
        let build_info = gauge(&[("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0);
        vec![
            family(
                "xdp_dedup_packets_total",
                "Frames to UDP port 547, by verdict and its reason.",
                MetricType::COUNTER,
                self.outcomes(|traffic| traffic.packets),
            ),
            family(
                "xdp_dedup_bytes_total",
                "Bytes of frames to UDP port 547, by verdict and its reason.",
                MetricType::COUNTER,
                self.outcomes(|traffic| traffic.bytes),
            ),
            family(
                "xdp_dedup_duplicate_gap_seconds",
                "Time from the remembered copy of a message to the next one, dropped or not.",
                MetricType::HISTOGRAM,
                vec![histogram(&gaps.gaps)],
            ),
            family(
                "xdp_dedup_window_seconds",
                "How long after the copy that passed another one is dropped.",
                MetricType::GAUGE,
                vec![gauge(&[], window)],
            ),
            family(
                "xdp_dedup_relay_packets_total",
                "Client messages by relay: who wins the race, and who loses.",
                MetricType::COUNTER,
                self.by_relay(),
            ),
            family(
                "xdp_dedup_table_entries",
                "Transactions in the table; old ones stay until their place is needed.",
                MetricType::GAUGE,
                vec![gauge(&[], self.table_entries as f64)],
            ),
            family(
                "xdp_dedup_table_capacity",
                "Transactions that the table has room for.",
                MetricType::GAUGE,
                vec![gauge(&[], f64::from(self.table_capacity))],
            ),
            family(
                "xdp_dedup_events_lost_total",
                "Frames that `events` was to show, and that found no room in its ring buffer.",
                MetricType::COUNTER,
                vec![counter(&[], self.events_lost)],
            ),
            family(
                "xdp_dedup_attached",
                "Whether the filter is on the interface.",
                MetricType::GAUGE,
                attached.collect(),
            ),
            family(
                "xdp_dedup_program_info",
                "The kernel program on the interface.",
                MetricType::GAUGE,
                program_info.collect(),
            ),
            family(
                "xdp_dedup_build_info",
                "This exporter.",
                MetricType::GAUGE,
                vec![build_info],
            ),
        ]
    }

    /// A counter for each interface, reason and verdict that can occur.
    fn outcomes(&self, count: impl Fn(Traffic) -> u64) -> Vec<Metric> {
        let mut metrics = Vec::new();
        for interface in &self.interfaces {
            for &reason in Reason::ALL
                .iter()
                .filter(|&&reason| reason != Reason::NotDhcp)
            {
                for &verdict in reason.verdicts() {
                    let labels = [
                        ("interface", interface.name.clone()),
                        ("verdict", verdict.name().to_owned()),
                        ("reason", reason.name().to_owned()),
                    ];
                    let value = count(interface.counters.traffic(reason, verdict));
                    metrics.push(counter(&labels, value));
                }
            }
        }
        metrics
    }

    /// A counter for each relay and verdict, and for the relays that have none of their own.
    fn by_relay(&self) -> Vec<Metric> {
        let relays = self.relays.relays.iter();
        let named = relays.map(|(relay, counters)| (relay.to_string(), counters));
        let others = [("other".to_owned(), &self.relays.others)];
        named
            .chain(others)
            .flat_map(|(relay, counters)| {
                Verdict::ALL.map(|verdict| {
                    let labels = [
                        ("relay", relay.clone()),
                        ("verdict", verdict.name().to_owned()),
                    ];
                    counter(&labels, counters.packets(verdict))
                })
            })
            .collect()
    }
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn counter(labels: &[(&str, String)], value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::from_label(pairs(labels));
    metric.set_counter(counter);
    metric
}

fn gauge(labels: &[(&str, String)], value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(pairs(labels));
    metric.set_gauge(gauge);
    metric
}

fn histogram(gaps: &GapHistogram) -> Metric {
    let mut cumulative = 0;
    let mut buckets = Vec::new();
    for (bound, frames) in GAP_BOUNDS.iter().zip(gaps.buckets) {
        cumulative += frames;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound.0 as f64 / MICROSECONDS_PER_SECOND);
        bucket.set_cumulative_count(cumulative);
        buckets.push(bucket);
    }
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(gaps.buckets.iter().sum());
    histogram.set_sample_sum(gaps.sum as f64 / MICROSECONDS_PER_SECOND);
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    metric
}

fn pairs(labels: &[(&str, String)]) -> Vec<LabelPair> {
    labels
        .iter()
        .map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value(value.clone());
            pair
        })
        .collect()
}
