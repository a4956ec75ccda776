//! What commands print on standard output.

use std::{
    fmt,
    io::{self, BufWriter, ErrorKind, StdoutLock, Write as _},
    time::SystemTime,
};

use anyhow::{Context as _, Result};
use comfy_table::{CellAlignment, Table, presets};
use humantime::{format_rfc3339_micros, format_rfc3339_seconds};
use serde::{Serialize, Serializer};
use xdp_dedup_common::time::Microseconds;

/// Writes to standard output, and says whether somebody still reads it: `seen | head` is no error.
///
/// # Errors
///
/// Where it takes no more for another reason.
pub fn print(
    write: impl FnOnce(&mut BufWriter<StdoutLock<'static>>) -> io::Result<()>,
) -> Result<bool> {
    let mut output = BufWriter::new(io::stdout().lock());
    match write(&mut output).and_then(|()| output.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}

/// Writes a value as one line of JSON.
///
/// # Errors
///
/// Where the output takes no more.
pub fn json(output: &mut impl io::Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *output, value)?;
    output.write_all(b"\n")
}

/// A table without lines, two blanks between its columns; those of `numbers` are aligned to the right.
pub fn table<const N: usize>(header: [&str; N], numbers: &[usize]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if numbers.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A time in RFC 3339 and UTC: to the second for people, to the microsecond in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub SystemTime);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        format_rfc3339_seconds(self.0).fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_rfc3339_micros(self.0))
    }
}

/// A span as JSON has it, in seconds.
pub fn seconds(span: Microseconds) -> f64 {
    span.0 as f64 / 1e6
}
