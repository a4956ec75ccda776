//! What `stats` answers, once, in lines and as JSON.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _},
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    Test,
    bed::{Bed, bed_with_three, has_line, solicit},
};

const FAILED: i32 = 1;

pub const TESTS: &[(&str, Test)] = &[
    ("stats counts what the exporter counts", stats),
    (
        "stats --watch --json tells what came each second, in a line each, until SIGTERM",
        watch_in_lines,
    ),
    (
        "stats --watch --json ends with a line on standard error when the filter is gone",
        watch_to_the_end,
    ),
];

fn stats() -> Result<()> {
    let bed = bed_with_three()?;
    let stats = bed.json_object(&["stats"])?;
    let series = |list: &str, labels: &[&str], value: &str| -> BTreeMap<String, u64> {
        let rows = stats[list].as_array().unwrap().iter();
        rows.map(|row| {
            let label = |name: &&str| format!("{name}={}", row[*name]);
            let labels: Vec<_> = labels.iter().map(label).collect();
            (
                format!("{{{}}}", labels.join(",")),
                row[value].as_u64().unwrap(),
            )
        })
        .collect()
    };
    for (metric, list, labels, value) in [
        (
            "xdp_dedup_packets_total",
            "counters",
            &["interface", "verdict", "reason"][..],
            "packets",
        ),
        (
            "xdp_dedup_bytes_total",
            "counters",
            &["interface", "verdict", "reason"],
            "bytes",
        ),
        (
            "xdp_dedup_relay_packets_total",
            "relays",
            &["relay", "verdict"],
            "packets",
        ),
    ] {
        let (exported, told) = (exported(&bed, metric)?, series(list, labels, value));
        ensure!(exported == told, "{metric}: {exported:#?} is not {told:#?}");
        ensure!(
            told.values().sum::<u64>() > 0,
            "{metric}: nothing was counted"
        );
    }
    ensure!(
        stats["table"] == json!({"entries": 3, "capacity": 65536}),
        "{stats:#}"
    );
    ensure!(stats["window_seconds"] == 60.0, "{stats:#}");
    let gaps = &stats["gaps"];
    ensure!(gaps["packets"] == 3, "{gaps:#}");
    let buckets = gaps["buckets"].as_array().context("no buckets")?;
    let in_buckets: u64 = buckets
        .iter()
        .map(|it| it["packets"].as_u64().unwrap())
        .sum();
    ensure!(in_buckets == 3 && buckets.len() == 22, "{gaps:#}");
    let median = gaps["median_seconds"].as_f64().context("no median")?;
    ensure!(gaps["largest_seconds"].as_f64() >= Some(median), "{gaps:#}");

    let text = bed.ask(&["stats"])?.stdout;
    let bytes = |reason: &str| {
        let rows = stats["counters"].as_array().unwrap().iter();
        let mut rows = rows.filter(|row| row["reason"] == reason && row["packets"] == 3);
        rows.next().unwrap()["bytes"].to_string()
    };
    for line in [
        &["interface", "verdict", "reason", "packets", "bytes"][..],
        &["server0", "pass", "first", "3", &bytes("first")],
        &["server0", "drop", "duplicate", "3", &bytes("duplicate")],
        &["relay", "verdict", "packets"],
        &["2001:db8:1::fffe", "pass", "3"],
        &["2001:db8:1::ffff", "drop", "3"],
        &["table", "3", "of", "65536", "entries"],
    ] {
        ensure!(has_line(&text, line), "no {line:?} in {text}");
    }
    ensure!(text.contains("gaps   3: median at most "), "{text}");
    ensure!(
        text.contains("(bounds of the histogram's buckets)"),
        "{text}"
    );
    ensure!(
        !text.contains("malformed") && !text.contains("other"),
        "more than counted: {text}"
    );
    Ok(())
}

fn watch_in_lines() -> Result<()> {
    let bed = Bed::new(&["--window", "60s"])?;
    let mut command = bed.command(&["stats", "--watch", "--json"])?;
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    let mut next = || -> Result<Value> {
        let line = lines.next().context("no more lines")??;
        Ok(serde_json::from_str(&line)?)
    };
    let counter = |line: &Value| -> Value {
        let mut rows = line["counters"].as_array().unwrap().iter();
        rows.find(|row| row["reason"] == "duplicate" && row["verdict"] == "drop")
            .unwrap()
            .clone()
    };
    let quiet = next()?;
    ensure!(counter(&quiet)["packets_per_second"] == 0.0, "{quiet:#}");
    for number in 1..=3 {
        bed.send(&solicit(number))?;
    }
    // Whatever part of the three each line tells of, they make up all of them.
    let (mut sum, mut packets) = (0.0, 0);
    while packets < 3 {
        let line = next()?;
        let interval = line["interval_seconds"].as_f64().context("no interval")?;
        let rate = counter(&line)["packets_per_second"]
            .as_f64()
            .context("no rate")?;
        sum += rate * interval;
        packets = counter(&line)["packets"].as_u64().context("no packets")?;
        let relay = &line["relays"][0]["packets_per_second"];
        ensure!(relay.is_number(), "no rate of relays: {line:#}");
    }
    ensure!(
        (sum - 3.0).abs() < 0.1,
        "{sum} packets by their rates, not 3"
    );
    ensure!(
        counter(&next()?)["packets_per_second"] == 0.0,
        "nothing came any more"
    );
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
    let status = child.wait()?;
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .context("no stderr")?
        .read_to_string(&mut stderr)?;
    ensure!(status.success() && stderr.is_empty(), "{status}: {stderr}");
    Ok(())
}

fn watch_to_the_end() -> Result<()> {
    let bed = Bed::new(&[])?;
    let mut command = bed.command(&["stats", "--watch", "--json"])?;
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    lines.next().context("no line")??;
    bed.daemon.signal(Signal::SIGTERM)?;
    let mut stderr = String::new();
    let mut errors = child.stderr.take().context("no stderr")?;
    errors.read_to_string(&mut stderr)?;
    let status = child.wait()?;
    ensure!(status.code() == Some(FAILED), "{status}: {stderr}");
    ensure!(
        stderr == "xdp-dedup: nothing is attached in this network namespace\n",
        "{stderr}"
    );
    Ok(())
}

/// Series of the exporter as `{interface="server0",...} 3`, and the same of the JSON.
fn exported(bed: &Bed, metric: &str) -> Result<BTreeMap<String, u64>> {
    let metrics = bed.daemon.metrics()?;
    let series = metrics.lines(metric).map(|line| {
        let (labels, value) = line[metric.len()..].split_once(' ').context("no value")?;
        Ok((labels.to_owned(), value.parse()?))
    });
    series.collect()
}
