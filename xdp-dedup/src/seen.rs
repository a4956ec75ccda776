//! `seen`: the transactions that the table remembers now.

use std::{
    cmp::Reverse,
    io::{self, Write},
    net::Ipv6Addr,
};

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use xdp_dedup_common::{description::Remembered, policy::Window, time::Timestamp};

use crate::{
    kernel,
    maps::SharedMaps,
    output,
    state::{self, State},
};

/// Some 10 MB of memory; more than the default capacity.
const DEFAULT_LIMIT: usize = 100_000;

/// Arguments of `seen`.
#[derive(Args, Debug)]
pub struct SeenArgs {
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,

    /// List this many at the most, the newest [default: 100000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
}

/// Lists the transactions.
///
/// # Errors
///
/// Where nothing is there, or the state cannot be read, for want of privileges for example.
pub fn run(args: &SeenArgs) -> Result<()> {
    let state = state::block_on(State::read_some())?;
    let limit = args.limit.map_or(DEFAULT_LIMIT, |limit| limit as usize);
    let (newest, all) = read(&state.maps, limit)?;
    let (window, now) = (state.maps.policy()?.window(), now()?);
    let lines = newest.iter().map(|seen| Line::of(seen, window, now));
    output::print(|output| write(output, lines, args.json))?;
    if newest.len() < all {
        eprintln!(
            "xdp-dedup: note: the newest {} of {all} transactions; --limit {all} lists all",
            newest.len()
        );
    }
    Ok(())
}

/// The newest that the table remembers, the very newest first, and of how many they are.
fn read(maps: &SharedMaps, limit: usize) -> Result<(Vec<Remembered>, usize)> {
    let mut newest = Newest::new(limit);
    for sighting in maps.sightings() {
        let (identity, sighting) = sighting?;
        if let Some(seen) = Remembered::of(identity, sighting, now()?) {
            newest.push(seen);
        }
    }
    Ok(newest.finish())
}

/// The newest transactions among many, in memory for twice as many as are wanted.
struct Newest {
    limit: usize,
    kept: Vec<Remembered>,
    all: usize,
}

impl Newest {
    const fn new(limit: usize) -> Self {
        Self {
            limit,
            kept: Vec::new(),
            all: 0,
        }
    }

    fn push(&mut self, seen: Remembered) {
        self.all += 1;
        self.kept.push(seen);
        if self.kept.len() >= self.limit.saturating_mul(2) {
            self.sort_out();
        }
    }

    /// Brings the newest to the front and forgets the others.
    fn sort_out(&mut self) {
        let before = self.kept.len();
        // What was sent again while the table was read may have come twice.
        self.kept
            .sort_unstable_by_key(|seen| (*seen.identity(), Reverse(seen.at())));
        self.kept.dedup_by_key(|seen| *seen.identity());
        self.all -= before - self.kept.len();
        self.kept
            .sort_unstable_by_key(|seen| (Reverse(seen.at()), *seen.identity()));
        self.kept.truncate(self.limit);
    }

    /// The newest, the very newest first, and of how many they are.
    fn finish(mut self) -> (Vec<Remembered>, usize) {
        self.sort_out();
        (self.kept, self.all)
    }
}

/// A transaction. The fields' order is that of the JSON.
#[derive(Debug, Serialize)]
struct Line {
    message: Option<String>,
    xid: String,
    peer: Option<Ipv6Addr>,
    destination: Option<Ipv6Addr>,
    transmissions: u8,
    age_seconds: f64,
    within_window: bool,
}

impl Line {
    fn of(seen: &Remembered, window: Window, now: Timestamp) -> Self {
        Self {
            message: seen.message().map(|message| message.to_string()),
            xid: seen.transaction_id().to_string(),
            peer: seen.peer(),
            destination: seen.destination(),
            transmissions: seen.transmissions(),
            age_seconds: output::seconds(seen.age(now)),
            within_window: seen.is_within(window, now),
        }
    }
}

fn write(
    output: &mut impl Write,
    lines: impl Iterator<Item = Line>,
    is_json: bool,
) -> io::Result<()> {
    let mut lines = lines.peekable();
    if is_json {
        return lines.try_for_each(|line| output::json(output, &line));
    }
    if lines.peek().is_none() {
        return writeln!(output, "no transaction is remembered");
    }
    // Widths as those of `replay`.
    writeln!(
        output,
        "{:>8}  {:<6}  {:>4}  {:<19}  {:<6}  {:<25}  destination",
        "age", "window", "sent", "message", "xid", "peer",
    )?;
    lines.try_for_each(|line| {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let address = |address: Option<Ipv6Addr>| or_dash(address.map(|it| it.to_string()));
        writeln!(
            output,
            "{:>8}  {:<6}  {:>4}  {:<19}  {:<6}  {:<25}  {}",
            age(line.age_seconds),
            if line.within_window { "within" } else { "over" },
            line.transmissions,
            or_dash(line.message),
            line.xid,
            address(line.peer),
            address(line.destination),
        )
    })
}

/// As short as people say it.
pub(crate) fn age(seconds: f64) -> String {
    if seconds < 0.001 {
        format!("{:.0}us", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.1}ms", seconds * 1e3)
    } else if seconds < 60.0 {
        format!("{seconds:.1}s")
    } else {
        let whole = seconds as u64;
        format!("{}m{:02}s", whole / 60, whole % 60)
    }
}

fn now() -> Result<Timestamp> {
    kernel::now().map(Timestamp::from_nanoseconds)
}

#[cfg(test)]
mod tests {
    use xdp_dedup_common::{Identity, Sighting, digest::Digest, message::MessageHeader};

    use super::*;

    fn seen(number: u8, at: u64) -> Remembered {
        let identity = Identity {
            message: MessageHeader::from_wire([1, 0, 0, number]),
            ..Identity::default()
        };
        let at = Timestamp(at);
        Remembered::of(identity, Sighting::first(Digest(0), at), at).unwrap()
    }

    fn newest(limit: usize, entries: &[(u8, u64)]) -> (Vec<(String, u64)>, usize) {
        let mut newest = Newest::new(limit);
        for &(number, at) in entries {
            newest.push(seen(number, at));
        }
        let (kept, all) = newest.finish();
        let shown = |seen: &Remembered| (seen.transaction_id().to_string(), seen.at().0);
        (kept.iter().map(shown).collect(), all)
    }

    #[test]
    fn the_newest_come_first_and_no_more_of_them_than_are_wanted() {
        let entries = [
            (1, 50),
            (2, 10),
            (3, 90),
            (4, 70),
            (5, 20),
            (6, 80),
            (7, 60),
        ];
        let all = [3, 6, 4, 7, 1, 5, 2];
        for limit in 1..10 {
            let (kept, of) = newest(limit, &entries);
            let expected: Vec<_> = all
                .iter()
                .take(limit)
                .map(|n| format!("00000{n}"))
                .collect();
            let kept: Vec<_> = kept.into_iter().map(|(xid, _)| xid).collect();
            assert_eq!(kept, expected, "limit {limit}");
            assert_eq!(of, 7, "limit {limit}");
        }
    }

    #[test]
    fn what_came_twice_is_listed_once_as_it_was_last() {
        let entries = [(1, 50), (2, 10), (1, 60), (2, 10), (3, 30)];
        let expected = [(1, 60), (3, 30), (2, 10)];
        let expected = expected.map(|(number, at)| (format!("00000{number}"), at));
        assert_eq!(newest(100, &entries), (expected.to_vec(), 3));
    }

    #[test]
    fn ages_are_as_long_as_people_say_them() {
        for (seconds, shown) in [
            (0.0, "0us"),
            (0.000_812, "812us"),
            (0.0123, "12.3ms"),
            (1.25, "1.2s"),
            (59.94, "59.9s"),
            (60.0, "1m00s"),
            (4199.9, "69m59s"),
        ] {
            assert_eq!(age(seconds), shown);
        }
    }
}
