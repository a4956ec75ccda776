//! Plays the scenarios, and tells what was expected and what was seen.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde_json::{Map, Value, json};

use crate::Options;
use crate::machine::Machine;
use crate::play::{Play, Seen};
use crate::priority::Priority;
use crate::scenario::{Row, Scenario};

/// What became of a row.
struct RowReport<'a> {
    name: &'a str,
    without: Seen,
    with: Seen,
    kept: Vec<Machine>,
}

/// Plays these scenarios one after the other, and prints what was seen. Hands back whether all was
/// as expected.
///
/// # Errors
///
/// Where nothing can be played at all.
pub fn run(options: &Options, scenarios: &[&Scenario]) -> Result<bool> {
    let mut all_ok = true;
    for scenario in scenarios {
        let start = Instant::now();
        let rows = (scenario.rows)(options.short);
        if !options.json {
            let heading = format!("{}: {}", scenario.name, scenario.expected);
            let options = textwrap::Options::new(WIDTH).subsequent_indent("  ");
            println!("{}", textwrap::fill(&heading, options));
        }
        let reports = play_all(options, scenario, &rows);
        let ok = reports.iter().all(RowReport::is_ok);
        all_ok &= ok;
        if options.json {
            println!("{}", json(scenario, &reports, ok, start.elapsed()));
        } else {
            show(&reports, start.elapsed());
        }
        if options.keep {
            look_around(&reports);
        }
    }
    Ok(all_ok)
}

fn play_all<'a>(options: &Options, scenario: &Scenario, rows: &'a [Row]) -> Vec<RowReport<'a>> {
    // The daemon dies with the thread that started it: what is to be kept is played on this one.
    let at_once = if options.keep { 1 } else { scenario.at_once };
    if at_once == 1 {
        return rows
            .iter()
            .map(|row| play_row(options, scenario, row))
            .collect();
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..at_once.min(rows.len()) {
            scope.spawn(|| {
                while let Some((number, row)) = take(&next, rows) {
                    let report = play_row(options, scenario, row);
                    done.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push((number, report));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, report)| report).collect()
}

fn take<'a>(next: &AtomicUsize, rows: &'a [Row]) -> Option<(usize, &'a Row)> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    rows.get(number).map(|row| (number, row))
}

fn play_row<'a>(options: &Options, scenario: &Scenario, row: &'a Row) -> RowReport<'a> {
    // Whoever waits for a CPU behind what else this computer is busy with answers too late for the
    // filter's window, or for a client's patience: machines of their own would not wait.
    let _priority = Priority::take();
    let (without, _) = play(options, scenario, row, false);
    let (with, kept) = play(options, scenario, row, true);
    RowReport {
        name: &row.name,
        without: Seen {
            // Only the last play stays up.
            held: Vec::new(),
            ..without
        },
        with,
        kept,
    }
}

/// Most times that a row is played because the machine is busy with something else.
const TRIES: usize = 4;

fn play(options: &Options, scenario: &Scenario, row: &Row, filtered: bool) -> (Seen, Vec<Machine>) {
    let mut excuses = Vec::new();
    loop {
        let (mut seen, machines) = play_once(options, scenario, row, filtered);
        match seen.excuse.take() {
            Some(excuse) if !seen.complaints.is_empty() && excuses.len() + 1 < TRIES => {
                excuses.push(excuse);
            }
            _ => {
                if !excuses.is_empty() {
                    seen.say(format!(
                        "(played again, as the machine was busy: {})",
                        excuses.join(", ")
                    ));
                }
                return (seen, machines);
            }
        }
    }
}

fn play_once(
    options: &Options,
    scenario: &Scenario,
    row: &Row,
    filtered: bool,
) -> (Seen, Vec<Machine>) {
    let play = Play::new(options, scenario.name, &row.name, filtered);
    let played = panic::catch_unwind(AssertUnwindSafe(|| (row.play)(&play)))
        .unwrap_or_else(|panic| Err(anyhow!("a panic: {}", message(&*panic))));
    let seen = played.unwrap_or_else(|error| Seen {
        complaints: vec![format!("{error:#}")],
        ..Seen::default()
    });
    (seen, play.into_machines())
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref().copied())
        .unwrap_or("of a kind without words")
}

impl RowReport<'_> {
    fn is_ok(&self) -> bool {
        self.without.complaints.is_empty() && self.with.complaints.is_empty()
    }
}

/// Columns of what people read.
const WIDTH: usize = 108;

fn show(reports: &[RowReport<'_>], took: Duration) {
    let width = reports
        .iter()
        .map(|report| report.name.len())
        .max()
        .unwrap_or(0);
    for report in reports {
        for (name, which, seen) in [
            (report.name, "without", &report.without),
            ("", "with", &report.with),
        ] {
            let first = format!("  {name:width$}  {which:7}  ");
            let further = " ".repeat(first.len());
            let options = textwrap::Options::new(WIDTH).subsequent_indent(&further);
            let seen_so = seen.words.join("; ");
            println!(
                "{}",
                textwrap::fill(&seen_so, options.clone().initial_indent(&first))
            );
            for complaint in &seen.complaints {
                let complaint = format!("NOT AS EXPECTED: {complaint}");
                println!(
                    "{}",
                    textwrap::fill(&complaint, options.clone().initial_indent(&further))
                );
            }
        }
    }
    let failed = reports.iter().filter(|report| !report.is_ok()).count();
    let verdict = match failed {
        0 => "as expected".to_owned(),
        failed => format!("{failed} of {} NOT AS EXPECTED", reports.len()),
    };
    println!("  {verdict}, {:.1} s\n", took.as_secs_f64());
}

fn json(scenario: &Scenario, reports: &[RowReport<'_>], ok: bool, took: Duration) -> Value {
    let side = |seen: &Seen| {
        let mut figures = seen.figures.clone();
        if !seen.complaints.is_empty() {
            figures.insert("complaints".to_owned(), json!(seen.complaints));
        }
        Value::Object(figures)
    };
    let rows: Map<String, Value> = reports
        .iter()
        .map(|report| {
            let row = json!({
                "ok": report.is_ok(),
                "without": side(&report.without),
                "with": side(&report.with),
            });
            (report.name.to_owned(), row)
        })
        .collect();
    json!({
        "scenario": scenario.name,
        "ok": ok,
        "seconds": (took.as_secs_f64() * 10.0).round() / 10.0,
        "rows": rows,
    })
}

fn look_around(reports: &[RowReport<'_>]) {
    let Some(last) = reports.last() else { return };
    println!("The last play is still up. Look around from another terminal, as root:");
    for machine in &last.kept {
        println!(
            "  nsenter --target {} --all sh    # {}",
            machine.pid(),
            machine.name
        );
    }
    println!("Ctrl-C takes it down.");
    loop {
        thread::park();
    }
}
