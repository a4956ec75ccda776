//! The lines.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use humantime::format_rfc3339_micros;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use xdp_dedup_common::{description::Description, event::Event};

use crate::{
    output::{self, Time},
    seen::age,
    told::{self, Told},
};

/// Width of the columns that `replay` has too.
const TOLD: usize = 112;

/// What the kernel's monotonic clock shows, in the time of day.
#[derive(Clone, Copy, Debug)]
pub struct BootClock {
    /// The time of day at its zero.
    zero: SystemTime,
}

impl BootClock {
    /// Compares the clocks.
    pub fn read() -> Result<Self> {
        let read = |id| -> Result<Duration> {
            Ok(clock_gettime(id).context("cannot read the clock")?.into())
        };
        let monotonic = read(ClockId::CLOCK_MONOTONIC)?;
        let real = read(ClockId::CLOCK_REALTIME)?;
        Ok(Self {
            zero: UNIX_EPOCH + real.saturating_sub(monotonic),
        })
    }

    fn time(self, nanoseconds: u64) -> SystemTime {
        self.zero + Duration::from_nanos(nanoseconds)
    }
}

/// An event. The fields' order is that of the JSON.
#[derive(Debug, Serialize)]
struct Line<'a> {
    time: Time,
    interface: &'a str,
    #[serde(flatten)]
    told: Told,
    gap_seconds: Option<f64>,
}

/// Lines that are to be written.
#[derive(Debug)]
pub struct Lines {
    is_json: bool,
    text: String,
}

impl Lines {
    /// None yet but the headings, for people.
    pub fn new(is_json: bool) -> Self {
        let mut lines = Self {
            is_json,
            text: String::new(),
        };
        if !is_json {
            let told = told::in_columns(told::HEADINGS);
            lines.columns("time", "interface", &told, "gap");
        }
        lines
    }

    /// Adds the line of an event.
    pub fn event(&mut self, event: &Event<'_>, names: &BTreeMap<u32, String>, clock: BootClock) {
        let (verdict, reason) = (event.decision.verdict(), event.decision.reason());
        let told = Told::new(verdict, reason, &Description::of(&event.packet()));
        let gap = event.decision.gap().map(output::seconds);
        let time = clock.time(event.time);
        // One that was attached a moment ago has no name here yet.
        let interface = names.get(&event.slot).map_or("-", String::as_str);
        if self.is_json {
            self.json(&Line {
                time: Time(time),
                interface,
                told,
                gap_seconds: gap,
            });
        } else {
            let time = format_rfc3339_micros(time).to_string();
            let gap = told::or_dash(gap.map(age));
            self.columns(&time, interface, &told.in_columns(), &gap);
        }
    }

    /// Says that so many events were lost, if any were.
    pub fn lost(&mut self, lost: u64) {
        #[derive(Serialize)]
        struct Lost {
            lost: u64,
        }
        match lost {
            0 => {}
            lost if self.is_json => self.json(&Lost { lost }),
            lost => eprintln!(
                "xdp-dedup: note: {lost} events were lost: they came faster than they were read"
            ),
        }
    }

    /// Hands out what there is, and keeps nothing.
    pub fn take(&mut self) -> Option<String> {
        Some(std::mem::take(&mut self.text)).filter(|text| !text.is_empty())
    }

    fn columns(&mut self, time: &str, interface: &str, told: &str, gap: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.text,
            "{time:<27}  {interface:<10}  {told:<TOLD$}  {gap}"
        );
    }

    fn json(&mut self, line: &impl Serialize) {
        // Nor can numbers and strings fail to be JSON.
        self.text
            .push_str(&serde_json::to_string(line).unwrap_or_default());
        self.text.push('\n');
    }
}
