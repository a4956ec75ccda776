//! `replay`: what the filter decides of each frame of a capture, by the capture's own clock.

mod capture;
mod engine;
mod output_file;
mod report;

use std::{
    fs::{File, Metadata},
    io::{self, BufWriter, IsTerminal as _, StdoutLock},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use xdp_dedup_common::{
    Verdict, description::Description, digest::DigestKey, packet::Bytes, time::Timestamp,
};

use self::{
    capture::{Capture, Frame, Precision, ReceivedAt},
    engine::{Engine, EngineFlag},
    output_file::OutputFile,
    report::{Line, Report, Summary},
};
use crate::{policy::PolicyFlags, told::Told};

/// The shortest capture in bytes that takes long enough for a progress bar.
const LONG_CAPTURE: u64 = 64 * 1024 * 1024;

/// Arguments of `replay`.
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// A pcap or pcapng file of an Ethernet interface; `-` for the standard input
    capture: PathBuf,

    #[command(flatten)]
    policy: PolicyFlags,

    /// Who decides [default: kernel where this process may load it, else userspace]
    #[arg(long, value_enum)]
    engine: Option<EngineFlag>,

    /// Print one JSON object per frame and line, then one of the summary
    #[arg(long)]
    json: bool,

    /// Write the frames that pass to a pcap file; of a damaged capture, those before the damage.
    ///
    /// Times are in microseconds if they are so in a pcap CAPTURE, else in nanoseconds. A file of that
    /// name is replaced, but only once the new one is whole.
    #[arg(long, value_name = "OUT.pcap")]
    write: Option<PathBuf>,
}

/// Replays a capture.
///
/// # Errors
///
/// Where the capture cannot be read to its end, the kernel refuses the program that was asked for, or
/// output cannot be written. The frames before a damage are reported all the same.
pub fn run(args: &ReplayArgs) -> Result<()> {
    let cannot_replay = || format!("cannot replay {}", args.capture.display());
    let file = open(&args.capture).with_context(cannot_replay)?;
    let metadata = file.metadata().with_context(cannot_replay)?;
    let mut capture = Capture::new(file).with_context(cannot_replay)?;

    let rules = args.policy.rules(DigestKey::FIXED)?;
    let (engine, refusal) = Engine::new(args.engine, &rules)?;
    if let Some(refusal) = refusal {
        note(format_args!(
            "using the userspace engine, the same decision on the host: {refusal:#}"
        ));
    }
    let mut replay = Replay {
        engine,
        output_file: create_output_file(args, &capture, &metadata)?,
        // Left out once nobody reads it any more.
        report: Some(Report::new(BufWriter::new(io::stdout().lock()), args.json)),
        is_watched: io::stdout().is_terminal(),
        summary: Summary::default(),
        clock: ReceivedAt {
            nanoseconds: 0,
            precision: Precision::Microseconds,
        },
        cut_short: 0,
        without_time: 0,
    };
    let progress = progress_bar(&metadata);
    replay.report(Report::start)?;
    let read_to_end = loop {
        match capture.next_frame() {
            Ok(Some(frame)) => replay.frame(&frame)?,
            Ok(None) => break Ok(()),
            // What came before the damage stands.
            Err(damage) => break Err(damage),
        }
        if replay.is_unread() {
            return Ok(());
        }
        progress.set_position(capture.position());
    };
    progress.finish_and_clear();
    replay.finish()?;
    read_to_end.with_context(cannot_replay)
}

struct Replay<'a> {
    engine: Engine,
    output_file: Option<(OutputFile, &'a Path)>,
    report: Option<Report<BufWriter<StdoutLock<'static>>>>,
    /// Whether somebody waits for each line.
    is_watched: bool,
    summary: Summary,
    /// The time of the last frame that had one.
    clock: ReceivedAt,
    cut_short: u64,
    without_time: u64,
}

impl Replay<'_> {
    fn frame(&mut self, frame: &Frame<'_>) -> Result<()> {
        match frame.received_at {
            Some(time) => self.clock = time,
            None => self.without_time += 1,
        }
        self.cut_short += u64::from(frame.is_cut_short());

        let time = Timestamp::from_nanoseconds(self.clock.nanoseconds);
        let (verdict, reason) = self
            .engine
            .decide(frame.bytes, time)
            .with_context(|| format!("frame {}", frame.number))?;
        self.summary.count(verdict, reason);
        if verdict != Verdict::Drop
            && let Some((file, path)) = &mut self.output_file
        {
            file.write(frame, self.clock)
                .with_context(|| cannot_write(path))?;
        }
        let description = Description::of(&Bytes::new(frame.bytes));
        let line = Line::new(frame, Told::new(verdict, reason, &description));
        let is_watched = self.is_watched;
        self.report(|report| {
            report.line(&line)?;
            if is_watched {
                report.flush()?;
            }
            Ok(())
        })
    }

    /// Writes to standard output while somebody reads it: `replay | head` is no error.
    fn report<F>(&mut self, write: F) -> Result<()>
    where
        F: FnOnce(&mut Report<BufWriter<StdoutLock<'static>>>) -> io::Result<()>,
    {
        match self.report.as_mut().map_or(Ok(()), write) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.report = None;
                Ok(())
            }
            result => result.context("cannot write to standard output"),
        }
    }

    /// Whether nothing more that it does is of any use.
    fn is_unread(&self) -> bool {
        self.report.is_none() && self.output_file.is_none()
    }

    fn finish(mut self) -> Result<()> {
        let summary = std::mem::take(&mut self.summary);
        self.report(|report| report.finish(&summary))?;
        if let Some((file, path)) = self.output_file.take() {
            file.finish().with_context(|| cannot_write(path))?;
        }
        if self.cut_short > 0 {
            note(format_args!(
                "{} frames were cut short by the capture (its snap length): the live program sees them \
                 whole and may decide otherwise",
                self.cut_short
            ));
        }
        if self.without_time > 0 {
            note(format_args!(
                "{} frames are without a time in the capture (Simple Packet Blocks): each was taken to \
                 come at the time of the one before, so retransmissions look like copies",
                self.without_time
            ));
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    if path == Path::new("-") {
        return Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?));
    }
    File::open(path)
}

fn create_output_file<'a>(
    args: &'a ReplayArgs,
    capture: &Capture,
    metadata: &Metadata,
) -> Result<Option<(OutputFile, &'a Path)>> {
    let Some(path) = &args.write else {
        return Ok(None);
    };
    // A pcapng file may turn to nanoseconds with any interface.
    let precision = capture.precision().unwrap_or(Precision::Nanoseconds);
    let file = OutputFile::create(path, metadata, precision).with_context(|| cannot_write(path))?;
    Ok(Some((file, path)))
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

/// A bar on standard error while a long file goes elsewhere than to the same terminal.
fn progress_bar(metadata: &Metadata) -> ProgressBar {
    let length = metadata.len();
    if length < LONG_CAPTURE || !io::stderr().is_terminal() || io::stdout().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{bar:40} {binary_bytes} of {binary_total_bytes}, {eta} left");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn note(text: std::fmt::Arguments<'_>) {
    eprintln!("xdp-dedup: note: {text}");
}
