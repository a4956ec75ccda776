//! The dashboard and the alert rules in `xdp-dedup/monitoring`: by themselves, by promtool, and in a
//! real Prometheus that scrapes a daemon with traffic.

#![expect(clippy::unwrap_used, reason = "what is missing fails the test")]

mod live;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use testbed::{
    dashboard::{Dashboard, folder},
    harness::{needs_root, run, trial},
    prometheus::program,
};
use xdp_dedup::{
    attachment::Mode,
    maps::RelayTally,
    metrics::{InterfaceStatus, Snapshot},
};
use xdp_dedup_common::{Reason, Verdict, counters::InterfaceCounters, policy::Window};

fn main() -> ExitCode {
    let trials = vec![
        trial(
            "each panel of the dashboard has a place, a unit and advice",
            panels_are_whole,
        ),
        trial(
            "dashboard and alerts name only metrics, reasons and verdicts that there are",
            names_exist,
        ),
        trial(
            "each alert says how bad it is and what to do",
            alerts_are_whole,
        ),
        trial(
            "each alert is tried where it fires and where it keeps quiet",
            alerts_are_tried,
        ),
        trial(
            "the operators' guide has a row for each alert, in the order of the file",
            alerts_are_documented,
        ),
        with(
            "promtool",
            trial("promtool finds the alerts as they should be", promtool),
        ),
        with(
            "prometheus",
            needs_root(trial(
                "each panel shows in a real Prometheus what was sent",
                live::panels_show_what_was_sent,
            )),
        ),
    ];
    run(trials)
}

/// The trial, ignored where there is no such program.
fn with(name: &str, trial: Trial) -> Trial {
    if program(name).is_some() {
        return trial;
    }
    eprintln!("the test with {name} is skipped: there is no {name}");
    trial.with_ignored_flag(true)
}

fn read(file: &str) -> Result<String> {
    let path = folder().join(file);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn yaml(file: &str) -> Result<Value> {
    Ok(serde_norway::from_str(&read(file)?)?)
}

fn panels_are_whole() -> Result<()> {
    let dashboard = Dashboard::read()?;
    let mut taken: BTreeMap<(u64, u64), String> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard.panels() {
        let title = panel["title"].as_str().context("a panel without title")?;
        ensure!(
            ids.insert(panel["id"].as_u64()),
            "{title}: its id is another's"
        );
        let advice = panel["description"].as_str().unwrap_or_default();
        ensure!(advice.len() > 40, "{title}: no advice: {advice:?}");
        let unit = &panel["fieldConfig"]["defaults"]["unit"];
        ensure!(
            unit.is_string() || panel["type"] == "heatmap",
            "{title}: no unit"
        );
        let place = |name| panel["gridPos"][name].as_u64().context("no place");
        let (x, y, width, height) = (place("x")?, place("y")?, place("w")?, place("h")?);
        ensure!(x + width <= 24, "{title}: beyond the right edge");
        for cell in (x..x + width).flat_map(|x| (y..y + height).map(move |y| (x, y))) {
            let other = taken.insert(cell, title.to_owned());
            ensure!(other.is_none(), "{title} lies over {other:?}");
        }
        let from = std::iter::once(panel).chain(panel["targets"].as_array().unwrap());
        for from in from {
            let source = &from["datasource"]["uid"];
            ensure!(*source == "${datasource}", "{title}: from {source}");
        }
    }
    ensure!(dashboard.0["id"].is_null(), "an id is of one Grafana alone");
    Ok(())
}

/// What the exporter serves, for one interface.
fn exposition() -> Result<String> {
    let interface = InterfaceStatus {
        name: "eth0".to_owned(),
        mode: Mode::Native,
        attached: true,
        program_id: 1,
        program_tag: 1,
        counters: InterfaceCounters::default(),
    };
    let snapshot = Snapshot {
        interfaces: vec![interface],
        relays: RelayTally::default(),
        table_entries: 0,
        table_capacity: 1024,
        events_lost: 0,
        window: Window::DEFAULT,
    };
    snapshot.encode()
}

fn names_exist() -> Result<()> {
    let exposition = exposition()?;
    let exists = |metric: &str| {
        exposition.lines().any(|line| {
            line.strip_prefix(metric)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        })
    };
    let mut used = BTreeSet::new();
    for file in ["dashboard.json", "alerts.yml", "alerts_test.yml"] {
        // In JSON each quote has a backslash before it.
        let text = read(file)?.replace('\\', "");
        let metrics = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        for metric in metrics.filter(|word| word.starts_with("xdp_dedup_")) {
            ensure!(exists(metric), "{file}: the exporter has no {metric}");
            let metric = metric
                .trim_end_matches("_bucket")
                .trim_end_matches("_count");
            used.insert(metric.to_owned());
        }
        let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        let verdicts = Verdict::ALL.map(Verdict::name);
        for (label, known) in [("reason", &reasons[..]), ("verdict", &verdicts[..])] {
            for value in values_of(&text, label) {
                ensure!(
                    known.contains(&value),
                    "{file}: there is no {label} {value:?}"
                );
            }
        }
    }
    let all: BTreeSet<_> = exposition
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .map(str::to_owned)
        .collect();
    ensure!(used == all, "not shown: {:?}", all.difference(&used));
    Ok(())
}

/// The values that selectors of this label name, one or several with `|` between them.
fn values_of<'a>(text: &'a str, label: &str) -> Vec<&'a str> {
    let matchers = ["=~\"", "!~\"", "!=\"", "=\""];
    text.match_indices(label)
        .filter_map(|(at, _)| {
            let rest = &text[at + label.len()..];
            let rest = matchers
                .iter()
                .find_map(|matcher| rest.strip_prefix(matcher))?;
            rest.split_once('"').map(|(values, _)| values)
        })
        .flat_map(|values| values.split('|'))
        .collect()
}

/// The alerts by name, in the order of the file.
fn alerts() -> Result<Vec<(String, Value)>> {
    let file = yaml("alerts.yml")?;
    let groups = file["groups"].as_array().context("no groups")?;
    let rules = groups.iter().filter_map(|group| group["rules"].as_array());
    let alerts = rules
        .flatten()
        .filter_map(|rule| Some((rule["alert"].as_str()?.to_owned(), rule.clone())));
    Ok(alerts.collect())
}

fn alerts_are_whole() -> Result<()> {
    let alerts = alerts()?;
    ensure!(alerts.len() >= 8, "{alerts:?}");
    for (name, alert) in alerts {
        let severity = alert["labels"]["severity"].as_str().unwrap_or_default();
        ensure!(
            ["critical", "warning", "info"].contains(&severity),
            "{name}: {severity:?}"
        );
        for (annotation, least) in [("summary", 20), ("description", 100)] {
            let text = alert["annotations"][annotation].as_str();
            let length = text.unwrap_or_default().len();
            ensure!(
                length >= least,
                "{name}: the {annotation} says little: {text:?}"
            );
        }
    }
    Ok(())
}

fn alerts_are_documented() -> Result<()> {
    let guide = fs::read_to_string(folder().join("../OPERATING.md"))?;
    let (_, table) = guide.split_once("<!-- alerts -->").context("no table")?;
    let (table, _) = table.split_once("<!-- end -->").context("no end")?;
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let documented: Vec<_> = rows
        .map(|row| {
            let mut cells = row.split('|').map(str::trim).skip(1);
            let name = cells.next().unwrap_or_default().trim_matches('`');
            (name.to_owned(), cells.next().unwrap_or_default().to_owned())
        })
        .collect();
    let alerts = alerts()?.into_iter().map(|(name, alert)| {
        let severity = alert["labels"]["severity"].as_str().unwrap_or_default();
        (name, severity.to_owned())
    });
    let alerts: Vec<_> = alerts.collect();
    ensure!(documented == alerts, "{documented:?} is not {alerts:?}");
    Ok(())
}

fn alerts_are_tried() -> Result<()> {
    let file = yaml("alerts_test.yml")?;
    let tests = file["tests"].as_array().context("no tests")?;
    let rules = tests
        .iter()
        .filter_map(|test| test["alert_rule_test"].as_array())
        .flatten();
    let mut tried = BTreeSet::new();
    for rule in rules {
        let name = rule["alertname"].as_str().context("no name")?;
        let fires = rule["exp_alerts"]
            .as_array()
            .is_some_and(|all| !all.is_empty());
        tried.insert((name.to_owned(), fires));
    }
    let names = alerts()?.into_iter().map(|(name, _)| name);
    let expected: BTreeSet<_> = names
        .flat_map(|name| [(name.clone(), true), (name, false)])
        .collect();
    ensure!(
        tried == expected,
        "{:?}",
        expected.symmetric_difference(&tried)
    );
    Ok(())
}

fn promtool() -> Result<()> {
    let promtool = program("promtool").context("no promtool")?;
    for arguments in [
        ["check", "rules", "alerts.yml"],
        ["test", "rules", "alerts_test.yml"],
    ] {
        let output = Command::new(&promtool)
            .args(arguments)
            .current_dir(folder())
            .output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        ensure!(output.status.success(), "{arguments:?}: {said}");
        ensure!(said.contains("SUCCESS"), "{arguments:?}: {said}");
    }
    Ok(())
}
