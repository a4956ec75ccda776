//! What `replay` prints: a line for each frame and a summary, for people or as JSON.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    io::{self, Write},
    net::Ipv6Addr,
    time::{Duration, UNIX_EPOCH},
};

use serde::Serialize;
use xdp_dedup_common::{
    Reason, Verdict,
    description::Description,
    message::{MessageType, TransactionId},
};

use super::capture::{Frame, Precision, ReceivedAt};

/// How many frames became what, and why.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    frames: u64,
    passed: u64,
    dropped: u64,
    would_drop: u64,
    /// By name; only those that occurred.
    reasons: BTreeMap<&'static str, u64>,
}

impl Summary {
    /// Counts one frame.
    pub fn count(&mut self, verdict: Verdict, reason: Reason) {
        self.frames += 1;
        match verdict {
            Verdict::Pass => self.passed += 1,
            Verdict::Drop => self.dropped += 1,
            Verdict::WouldDrop => self.would_drop += 1,
        }
        *self.reasons.entry(reason.name()).or_default() += 1;
    }
}

/// A line of the report: a frame and what became of it. The fields' order is that of the JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    frame: u64,
    time: Option<Text<ReceivedAt>>,
    verdict: &'static str,
    reason: &'static str,
    message: Option<Text<MessageType>>,
    xid: Option<Text<TransactionId>>,
    peer: Option<Ipv6Addr>,
    relay: Option<Ipv6Addr>,
    layers: Option<u8>,
}

impl Line {
    /// The line of `frame`.
    pub fn new(
        frame: &Frame<'_>,
        verdict: Verdict,
        reason: Reason,
        description: &Description,
    ) -> Self {
        Self {
            frame: frame.number,
            time: frame.received_at.map(Text),
            verdict: verdict.name(),
            reason: reason.name(),
            message: description.message.map(Text),
            xid: description.transaction_id.map(Text),
            peer: description.peer,
            relay: description.relay,
            layers: description.layers,
        }
    }
}

/// Lines and summary, on their way to standard output.
pub struct Report<W> {
    output: W,
    json: bool,
}

impl<W: Write> Report<W> {
    /// A report for people, or in JSON.
    pub fn new(output: W, json: bool) -> Self {
        Self { output, json }
    }

    /// Writes the heading of the columns, where there are any.
    ///
    /// # Errors
    ///
    /// Where the output takes no more.
    pub fn start(&mut self) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        self.columns([
            &"frame", &"time", &"verdict", &"reason", &"message", &"xid", &"peer", &"relay",
        ])
    }

    /// Writes the line of a frame.
    ///
    /// # Errors
    ///
    /// Where the output takes no more.
    pub fn line(&mut self, line: &Line) -> io::Result<()> {
        if self.json {
            return self.json(line);
        }
        self.columns([
            &line.frame,
            &OrDash(&line.time),
            &line.verdict,
            &line.reason,
            &OrDash(&line.message),
            &OrDash(&line.xid),
            &OrDash(&line.peer),
            &OrDash(&line.relay),
        ])
    }

    /// Writes the summary, the last of the report.
    ///
    /// # Errors
    ///
    /// Where the output takes no more.
    pub fn finish(&mut self, summary: &Summary) -> io::Result<()> {
        if self.json {
            #[derive(Serialize)]
            struct SummaryLine<'a> {
                summary: &'a Summary,
            }
            self.json(&SummaryLine { summary })?;
            return self.output.flush();
        }
        let Summary {
            frames,
            passed,
            dropped,
            would_drop,
            reasons,
        } = summary;
        let noun = if *frames == 1 { "frame" } else { "frames" };
        write!(
            self.output,
            "\n{frames} {noun}: {passed} passed, {dropped} dropped"
        )?;
        if *would_drop > 0 {
            write!(self.output, ", {would_drop} would be dropped")?;
        }
        writeln!(self.output)?;
        for (reason, frames) in reasons {
            writeln!(self.output, "  {reason:<18}{frames:>9}")?;
        }
        self.output.flush()
    }

    /// Hands on what has been written so far.
    ///
    /// # Errors
    ///
    /// Where the output takes no more.
    pub fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }

    /// Widths hold the longest names and usual addresses; a longer address moves what is behind it.
    fn columns(&mut self, columns: [&dyn Display; 8]) -> io::Result<()> {
        let [frame, time, verdict, reason, message, xid, peer, relay] = columns.map(Padded);
        writeln!(
            self.output,
            "{frame:>7}  {time:<30}  {verdict:<10}  {reason:<17}  {message:<19}  {xid:<6}  \
             {peer:<25}  {relay}"
        )
    }

    fn json<T: Serialize>(&mut self, line: &T) -> io::Result<()> {
        serde_json::to_writer(&mut self.output, line)?;
        self.output.write_all(b"\n")
    }
}

/// A value that JSON has as the string that it displays as.
#[derive(Clone, Debug)]
struct Text<T>(T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// RFC 3339 in UTC, with the digits that the capture tells.
impl Display for ReceivedAt {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let time = UNIX_EPOCH + Duration::from_nanos(self.nanoseconds);
        match self.precision {
            Precision::Microseconds => humantime::format_rfc3339_micros(time).fmt(f),
            Precision::Nanoseconds => humantime::format_rfc3339_nanos(time).fmt(f),
        }
    }
}

/// What does not apply is a dash to people.
struct OrDash<'a, T>(&'a Option<T>);

impl<T: Display> Display for OrDash<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str("-"),
        }
    }
}

/// A value that keeps to the width of its column, which not all implementations of `Display` do.
struct Padded<'a>(&'a dyn Display);

impl Display for Padded<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}
