//! The terminal that the live view is shown on, and given back on every way out.

use std::io;

use anyhow::{Context as _, Result};
use crossterm::event::{Event, EventStream, KeyCode, KeyEventKind, KeyModifiers};
use futures_util::StreamExt as _;
use ratatui::{DefaultTerminal, Frame};

use super::{Readings, ticks, view::View};
use crate::state::{Leave, Misses, State};

/// The terminal, in a mode where keys come at once and unseen, with a page of its own. Dropping it
/// gives the terminal back as it was; so does a panic, before it prints.
pub struct Screen(DefaultTerminal);

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    ///
    /// Where there is none, or it refuses.
    pub fn open() -> Result<Self> {
        match ratatui::try_init() {
            Ok(terminal) => Ok(Self(terminal)),
            Err(error) => {
                // It may have come half way.
                let _ = ratatui::try_restore();
                Err(error).context("cannot draw on this terminal; `--watch --json` needs none")
            }
        }
    }

    /// Draws it anew, in the size that it has now.
    ///
    /// # Errors
    ///
    /// Where the terminal is gone.
    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.0.draw(draw).map(drop)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where the terminal is gone, nothing is to be given back.
        let _ = ratatui::try_restore();
    }
}

/// Shows the counters until somebody has seen enough.
pub(super) async fn show() -> Result<()> {
    const GONE: &str = "the terminal is gone";
    // Before the terminal is taken: errors are read on it, and signals must not end the process on it.
    let mut leave = Leave::new()?;
    State::read_some().await?;
    let mut readings = Readings::default();
    let mut misses = Misses::default();
    let mut view = View::default();
    let mut ticks = ticks();
    let mut screen = Screen::open()?;
    let mut events = EventStream::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                if let Some(now) = misses.bear(readings.next().await)? {
                    view = View::of(now);
                }
            }
            event = events.next() => match event.transpose().context(GONE)? {
                Some(event) if is_enough(&event) => return Ok(()),
                // A new size, too: what was drawn for the old one is of no use.
                Some(_) => {}
                None => return Ok(()),
            },
            () = leave.asked() => return Ok(()),
        }
        screen.draw(|frame| view.draw(frame)).context(GONE)?;
    }
}

/// q, or Ctrl-C, which is but a key in this mode.
fn is_enough(event: &Event) -> bool {
    let Event::Key(key) = event else {
        return false;
    };
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && match key.code {
            KeyCode::Char('q' | 'Q') => !is_control,
            KeyCode::Char('c') => is_control,
            _ => false,
        }
}
