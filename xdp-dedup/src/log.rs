//! Where the daemon's log goes: lines for a person, or for systemd's journal, which knows the time and
//! the process itself and wants to be told how grave a line is.

use std::{env, fmt, io};

use nix::sys::stat::fstat;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Format, Full, Writer},
    },
    registry::LookupSpan,
};

/// Starts the log, on standard error.
pub fn start() {
    let lines = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_target(false);
    if is_journal() {
        let format = Format::default().without_time().with_target(false);
        lines.event_format(ForJournal(format)).init();
    } else {
        lines.init();
    }
}

/// What begins an error's line: where the journal reads it, how grave that is (sd-daemon(3)).
pub fn error_prefix() -> &'static str {
    if is_journal() {
        priority(Level::ERROR)
    } else {
        ""
    }
}

/// Lines as always, behind their priority.
struct ForJournal(Format<Full, ()>);

impl<S, N> FormatEvent<S, N> for ForJournal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str(priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// Of syslog(3), as the journal expects it in front of a line.
const fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Whether standard error is the journal. The variable alone does not tell: it is handed down to
/// processes whose output goes elsewhere.
fn is_journal() -> bool {
    let Ok(said) = env::var("JOURNAL_STREAM") else {
        return false;
    };
    fstat(io::stderr()).is_ok_and(|stream| said == format!("{}:{}", stream.st_dev, stream.st_ino))
}
