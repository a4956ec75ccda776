//! What `stats` tells: the counters, and how fast they go. The same for JSON, people and the live
//! view.

use std::{
    io::{self, Write},
    time::Duration,
};

use humantime::format_duration;
use serde::Serialize;
use xdp_dedup_common::{
    Reason, Verdict,
    counters::{GAP_BOUNDS, GapHistogram, InterfaceCounters, RelayCounters},
    time::Microseconds,
};

use super::count::Counts;
use crate::{
    metrics::InterfaceStatus,
    output::{self, Time},
};

/// All of it. The fields' order is that of the JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// When the counters were read.
    pub time: Time,
    /// Time between the two readings that the rates come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_seconds: Option<f64>,
    /// Frames by interface, verdict and reason: all that can occur.
    pub counters: Vec<Counter>,
    /// Client messages by relay and verdict.
    pub relays: Vec<RelayCounter>,
    /// How long after the copy that passed another one is dropped.
    pub window_seconds: f64,
    /// Time from the remembered copy of a message to the next one.
    pub gaps: Gaps,
    /// The table.
    pub table: Table,
    /// Frames that `events` was to show, and that found no room in its ring buffer, as
    /// `xdp_dedup_events_lost_total`.
    pub events_lost: u64,
}

/// Frames to UDP port 547 that got this verdict for this reason, as `xdp_dedup_packets_total` and
/// `xdp_dedup_bytes_total`.
#[derive(Clone, Debug, Serialize)]
pub struct Counter {
    /// Where they came in.
    pub interface: String,
    /// Name of the verdict.
    pub verdict: &'static str,
    /// Name of the reason.
    pub reason: &'static str,
    /// Frames.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets_per_second: Option<f64>,
    /// Bytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<f64>,
}

/// Client messages that a relay forwarded, as `xdp_dedup_relay_packets_total`.
#[derive(Clone, Debug, Serialize)]
pub struct RelayCounter {
    /// Its address, or `other`.
    pub relay: String,
    /// Name of the verdict.
    pub verdict: &'static str,
    /// Messages.
    pub packets: u64,
    /// Messages a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets_per_second: Option<f64>,
}

/// The histogram of gaps. All but the sum are known as well as the buckets' bounds are close.
#[derive(Clone, Debug, Serialize)]
pub struct Gaps {
    /// Gaps in all.
    pub packets: u64,
    /// Their sum.
    pub sum_seconds: f64,
    /// Upper bound of the bucket in which the median lies; null if there is none.
    pub median_seconds: Option<f64>,
    /// Upper bound of the bucket in which the 99th percentile lies.
    pub p99_seconds: Option<f64>,
    /// Upper bound of the last bucket that is not empty.
    pub largest_seconds: Option<f64>,
    /// All of them.
    pub buckets: Vec<Bucket>,
}

/// A bucket of the histogram.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Bucket {
    /// Its upper bound; none for the last.
    pub up_to_seconds: Option<f64>,
    /// Frames in it, and not in those before it.
    pub packets: u64,
}

/// The table.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Table {
    /// Transactions in it; null while they are being counted.
    pub entries: Option<usize>,
    /// Transactions that it has room for.
    pub capacity: u32,
}

impl Report {
    /// What these counters say; with an earlier reading also how fast they go.
    pub fn new(now: &Counts, before: Option<&Counts>) -> Self {
        // Another table means other counters, which have begun at zero since the earlier reading.
        let zero = Counts {
            interfaces: Vec::new(),
            relays: Default::default(),
            ..now.clone()
        };
        let interval = before.map(|before| now.instant.duration_since(before.instant));
        let before = before.filter(|before| before.table_id == now.table_id);
        let before = before.unwrap_or(&zero);
        let rate = Rate(interval);

        let mut gaps = InterfaceCounters::default();
        let mut counters = Vec::new();
        for interface in &now.interfaces {
            gaps.add(&interface.counters);
            let same = |other: &&InterfaceStatus| other.name == interface.name;
            let earlier = before.interfaces.iter().find(same);
            let earlier = earlier.map(|earlier| earlier.counters).unwrap_or_default();
            for &reason in &Reason::ALL[..Reason::COUNTED] {
                for &verdict in reason.verdicts() {
                    let traffic = interface.counters.traffic(reason, verdict);
                    let earlier = earlier.traffic(reason, verdict);
                    counters.push(Counter {
                        interface: interface.name.clone(),
                        verdict: verdict.name(),
                        reason: reason.name(),
                        packets: traffic.packets,
                        bytes: traffic.bytes,
                        packets_per_second: rate.of(earlier.packets, traffic.packets),
                        bytes_per_second: rate.of(earlier.bytes, traffic.bytes),
                    });
                }
            }
        }
        Self {
            time: Time(now.time),
            interval_seconds: interval.map(|interval| rounded(interval.as_secs_f64())),
            counters,
            relays: relays(now, before, rate),
            window_seconds: output::seconds(now.window.length()),
            gaps: Gaps::of(&gaps.gaps),
            table: Table {
                entries: now.table_entries,
                capacity: now.table_capacity,
            },
            events_lost: now.events_lost,
        }
    }

    /// For people: what is not zero.
    ///
    /// # Errors
    ///
    /// Where the output takes no more.
    pub fn write(&self, output: &mut impl Write) -> io::Result<()> {
        let header = ["interface", "verdict", "reason", "packets", "bytes"];
        let mut lines = output::table(header, &[3, 4]);
        for counter in self.counters.iter().filter(|counter| counter.packets > 0) {
            lines.add_row([
                counter.interface.as_str(),
                counter.verdict,
                counter.reason,
                &counter.packets.to_string(),
                &counter.bytes.to_string(),
            ]);
        }
        if lines.is_empty() {
            writeln!(output, "nothing has come to UDP port 547 yet\n")?;
        } else {
            writeln!(output, "{}\n", lines.trim_fmt())?;
        }

        let mut lines = output::table(["relay", "verdict", "packets"], &[2]);
        for counter in self.relays.iter().filter(|counter| counter.packets > 0) {
            lines.add_row([
                counter.relay.as_str(),
                counter.verdict,
                &counter.packets.to_string(),
            ]);
        }
        if !lines.is_empty() {
            writeln!(output, "{}\n", lines.trim_fmt())?;
        }
        let known = match self.gaps.packets {
            0 => "",
            _ => " (bounds of the histogram's buckets)",
        };
        writeln!(output, "gaps   {}{known}", self.gaps.in_words())?;
        writeln!(output, "table  {}", self.table.in_words())?;
        if self.events_lost > 0 {
            let lost = self.events_lost;
            writeln!(
                output,
                "events {lost} were lost before `events` could show them"
            )?;
        }
        Ok(())
    }
}

/// A row for each relay and verdict, and for the relays that are not counted by themselves.
fn relays(now: &Counts, before: &Counts, rate: Rate) -> Vec<RelayCounter> {
    let rows = |relay: String, counters: &RelayCounters, earlier: &RelayCounters| {
        Verdict::ALL.map(|verdict| RelayCounter {
            relay: relay.clone(),
            verdict: verdict.name(),
            packets: counters.packets(verdict),
            packets_per_second: rate.of(earlier.packets(verdict), counters.packets(verdict)),
        })
    };
    let none = RelayCounters::default();
    let named = now.relays.relays.iter().flat_map(|(relay, counters)| {
        let earlier = before.relays.relays.get(relay).unwrap_or(&none);
        rows(relay.to_string(), counters, earlier)
    });
    let others = rows(
        "other".to_owned(),
        &now.relays.others,
        &before.relays.others,
    );
    named.chain(others).collect()
}

/// Turns two readings into a rate, where there are two.
#[derive(Clone, Copy)]
struct Rate(Option<Duration>);

impl Rate {
    fn of(self, before: u64, now: u64) -> Option<f64> {
        let seconds = self.0?.as_secs_f64();
        let more = now.saturating_sub(before) as f64;
        Some(if seconds > 0.0 {
            rounded(more / seconds)
        } else {
            0.0
        })
    }
}

/// To three decimal places: more would be noise.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

impl Gaps {
    fn of(gaps: &GapHistogram) -> Self {
        let packets: u64 = gaps.buckets.iter().sum();
        let bounds = GAP_BOUNDS.iter().copied().map(Some).chain([None]);
        let buckets: Vec<_> = bounds
            .zip(gaps.buckets)
            .map(|(bound, packets)| Bucket {
                up_to_seconds: bound.map(output::seconds),
                packets,
            })
            .collect();
        // The bucket in which the one lies that so many in a hundred do not exceed.
        let bound = |percent: u64| {
            let wanted = (packets * percent).div_ceil(100);
            let mut so_far = 0;
            let reached = |bucket: &&Bucket| {
                so_far += bucket.packets;
                wanted > 0 && so_far >= wanted
            };
            buckets.iter().find(reached)?.up_to_seconds
        };
        Self {
            packets,
            sum_seconds: output::seconds(Microseconds(gaps.sum)),
            median_seconds: bound(50),
            p99_seconds: bound(99),
            largest_seconds: bound(100),
            buckets,
        }
    }

    /// In a line for people.
    pub fn in_words(&self) -> String {
        if self.packets == 0 {
            return "none yet".to_owned();
        }
        let bound = |seconds: Option<f64>| match seconds {
            Some(seconds) => format!("at most {}", span(seconds)),
            None => format!("over {}", span(output::seconds(LAST_BOUND))),
        };
        format!(
            "{}: median {}, 99 % {}, largest {}",
            self.packets,
            bound(self.median_seconds),
            bound(self.p99_seconds),
            bound(self.largest_seconds),
        )
    }
}

/// The bound that the last bucket lies beyond.
const LAST_BOUND: Microseconds = GAP_BOUNDS[GAP_BOUNDS.len() - 1];

/// A span of time as the command line takes it.
pub fn span(seconds: f64) -> String {
    let microseconds = (seconds * 1e6).round() as u64;
    format_duration(Duration::from_micros(microseconds)).to_string()
}

impl Table {
    /// In a line for people.
    pub fn in_words(&self) -> String {
        match self.entries {
            Some(entries) => format!("{entries} of {} entries", self.capacity),
            None => format!("{} entries at most, being counted", self.capacity),
        }
    }

    /// The part of it that is taken, from 0 to 1.
    pub fn fill(&self) -> f64 {
        let entries = self.entries.unwrap_or(0) as f64;
        (entries / f64::from(self.capacity.max(1))).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::stats::count::sample::counts;

    fn counter(report: &Report, reason: Reason) -> &Counter {
        let mut found = report.counters.iter();
        found
            .find(|counter| counter.reason == reason.name())
            .unwrap()
    }

    #[test]
    fn without_an_earlier_reading_nothing_is_said_of_rates() {
        let report = Report::new(&counts(Instant::now(), 0, 7, [40, 46]), None);
        let first = counter(&report, Reason::First);
        assert_eq!((first.packets, first.bytes), (40, 8000));
        let json = serde_json::to_string(&report).unwrap();
        assert!(
            !json.contains("per_second") && !json.contains("interval"),
            "{json}"
        );
    }

    #[test]
    fn all_that_can_occur_is_told_from_zero_and_nothing_else() {
        let report = Report::new(&counts(Instant::now(), 0, 7, [0, 0]), None);
        let told: Vec<_> = report
            .counters
            .iter()
            .map(|c| (c.reason, c.verdict))
            .collect();
        let valid = Reason::ALL[..Reason::COUNTED].iter();
        let valid: Vec<_> = valid
            .flat_map(|reason| reason.verdicts().iter().map(|v| (reason.name(), v.name())))
            .collect();
        assert_eq!(told, valid);
        let relays: Vec<_> = report.relays.iter().map(|c| c.relay.as_str()).collect();
        assert_eq!(
            relays,
            [
                "2001:db8::1",
                "2001:db8::1",
                "2001:db8::1",
                "other",
                "other",
                "other"
            ]
        );
    }

    #[test]
    fn rates_are_what_came_since_the_earlier_reading_of_the_same_table() {
        let start = Instant::now();
        let before = counts(start, 0, 7, [40, 46]);
        for (table_id, milliseconds, now, rates) in [
            (7, 1000, [50, 66], [10.0, 20.0]),
            (7, 2000, [50, 66], [5.0, 10.0]),
            (7, 500, [40, 46], [0.0, 0.0]),
            // Another filter took the place of the one before: its counters began at zero.
            (8, 1000, [50, 66], [50.0, 66.0]),
            (8, 1000, [3, 2], [3.0, 2.0]),
            // Never; no rate runs backwards all the same.
            (7, 1000, [3, 2], [0.0, 0.0]),
            (7, 0, [50, 66], [0.0, 0.0]),
        ] {
            let report = Report::new(&counts(start, milliseconds, table_id, now), Some(&before));
            let case = format!("table {table_id}, {now:?} after {milliseconds} ms");
            for (reason, rate) in [Reason::First, Reason::Duplicate].into_iter().zip(rates) {
                let counter = counter(&report, reason);
                assert_eq!(counter.packets_per_second, Some(rate), "{case}");
                assert_eq!(counter.bytes_per_second, Some(rate * 200.0), "{case}");
            }
            let relays = report.relays.iter().take(2).map(|c| c.packets_per_second);
            assert!(relays.eq(rates.map(Some)), "{case}");
        }
    }

    #[test]
    fn of_gaps_the_bounds_of_their_buckets_are_told() {
        let beyond = GAP_BOUNDS.len();
        for (buckets, [median, p99, largest], words) in [
            (vec![], [None, None, None], "none yet"),
            (
                vec![(0, 1)],
                [Some(0.000_01); 3],
                "1: median at most 10us, 99 % at most 10us, largest at most 10us",
            ),
            // 50 of 100 are the lower half.
            (
                vec![(2, 50), (6, 49), (13, 1)],
                [Some(0.000_05), Some(0.001), Some(0.2)],
                "100: median at most 50us, 99 % at most 1ms, largest at most 200ms",
            ),
            (
                vec![(2, 49), (6, 49), (13, 2)],
                [Some(0.001), Some(0.2), Some(0.2)],
                "100: median at most 1ms, 99 % at most 200ms, largest at most 200ms",
            ),
            (
                vec![(20, 3), (beyond, 1)],
                [Some(60.0), None, None],
                "4: median at most 1m, 99 % over 1m, largest over 1m",
            ),
        ] {
            let mut histogram = InterfaceCounters::default().gaps;
            for (bucket, packets) in &buckets {
                histogram.buckets[*bucket] = *packets;
            }
            let gaps = Gaps::of(&histogram);
            assert_eq!(
                [gaps.median_seconds, gaps.p99_seconds, gaps.largest_seconds],
                [median, p99, largest],
                "{buckets:?}"
            );
            assert_eq!(gaps.in_words(), words);
            assert_eq!(gaps.buckets.len(), GAP_BOUNDS.len() + 1);
        }
    }
}
