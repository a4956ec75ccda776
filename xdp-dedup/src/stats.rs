//! `stats`: what was counted, once, line after line, or as a live view.

mod count;
mod report;
pub mod screen;
mod view;

use std::{
    io::{self, IsTerminal as _},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::time::{MissedTickBehavior, interval};

use self::{
    count::{Counts, EntryCounter},
    report::Report,
};
use crate::{
    output,
    state::{self, Leave, Misses, NOTHING, State},
    usage::usage,
};

/// How often the live view and its lines of JSON come.
const EVERY: Duration = Duration::from_secs(1);

/// Arguments of `stats`.
#[derive(Args, Debug)]
pub struct StatsArgs {
    /// Print one JSON object; with --watch one a second
    #[arg(long)]
    pub json: bool,

    /// Show rates, live on the terminal, until q or Ctrl-C
    #[arg(long)]
    pub watch: bool,
}

/// Prints what was counted, or shows it live.
///
/// # Errors
///
/// Where nothing is there, the state cannot be read, for want of privileges for example, or the live
/// view has no terminal to be shown on.
pub fn run(args: &StatsArgs) -> Result<()> {
    if args.watch && !args.json && !io::stdout().is_terminal() {
        return Err(usage(
            "`--watch` shows its view on a terminal, and standard output is none: `--watch --json` \
             prints a line of JSON every second",
        ));
    }
    state::block_on(async {
        match (args.watch, args.json) {
            (false, is_json) => once(is_json).await,
            (true, true) => lines().await,
            (true, false) => screen::show().await,
        }
    })
}

async fn once(is_json: bool) -> Result<()> {
    let state = State::read_some().await?;
    let counts = Counts::read(&state, Some(state.maps.table_entries()))?;
    let report = Report::new(&counts, None);
    output::print(|output| {
        if is_json {
            output::json(output, &report)
        } else {
            report.write(output)
        }
    })?;
    Ok(())
}

/// A line of JSON every second, until nobody reads them or a signal comes.
async fn lines() -> Result<()> {
    let mut leave = Leave::new()?;
    let mut readings = Readings::default();
    let mut misses = Misses::default();
    let mut ticks = ticks();
    let mut was_there = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = leave.asked() => return Ok(()),
        }
        let is_first = readings.before.is_none();
        let now = readings.next().await.and_then(|now| now.context(NOTHING));
        let now = if was_there {
            misses.bear(now)?
        } else {
            Some(now?)
        };
        was_there = true;
        // One reading has no rates yet.
        if let Some((_, report)) = now
            && !is_first
            && !output::print(|output| output::json(output, &report))?
        {
            return Ok(());
        }
    }
}

/// One reading of the counters after the other.
#[derive(Default)]
struct Readings {
    before: Option<Counts>,
    entries: EntryCounter,
}

impl Readings {
    /// What is there now; `None` where nothing is.
    async fn next(&mut self) -> Result<Option<(State, Report)>> {
        let Some(state) = State::read().await? else {
            self.before = None;
            return Ok(None);
        };
        let entries = self.entries.entries(&state.maps).await;
        let counts = Counts::read(&state, entries)?;
        let report = Report::new(&counts, self.before.as_ref());
        self.before = Some(counts);
        Ok(Some((state, report)))
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(EVERY);
    // After the process was stopped for a while, no reading is made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
