//! What `replay` prints: a line for each frame and a summary, for people or as JSON.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    io::{self, Write},
    time::{Duration, UNIX_EPOCH},
};

use serde::Serialize;
use xdp_dedup_common::{Reason, Verdict};

use super::capture::{Frame, Precision, ReceivedAt};
use crate::told::{self, Text, Told, or_dash};

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
    #[serde(flatten)]
    told: Told,
}

impl Line {
    /// The line of `frame`.
    pub fn new(frame: &Frame<'_>, told: Told) -> Self {
        Self {
            frame: frame.number,
            time: frame.received_at.map(Text),
            told,
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
        self.columns(&"frame", &"time", &told::in_columns(told::HEADINGS))
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
        let time = or_dash(line.time.as_ref().map(|time| &time.0));
        self.columns(&line.frame, &time, &line.told.in_columns())
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

    fn columns(&mut self, frame: &dyn Display, time: &dyn Display, told: &str) -> io::Result<()> {
        writeln!(self.output, "{frame:>7}  {time:<30}  {told}")
    }

    fn json<T: Serialize>(&mut self, line: &T) -> io::Result<()> {
        serde_json::to_writer(&mut self.output, line)?;
        self.output.write_all(b"\n")
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
