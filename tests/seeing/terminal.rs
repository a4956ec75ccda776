//! A terminal that a program runs on, and what stands on its screen.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    num::NonZeroU16,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
};
use testbed::wait::until;

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    libc,
    pty::{OpenptyResult, Winsize, openpty},
    sys::{
        signal::{Signal, kill},
        termios::{Termios, tcgetattr},
    },
    unistd::{Pid, setsid},
};
use vt100::Parser;

/// The terminal, with the program on it.
pub struct Terminal {
    child: Child,
    /// The keyboard's and the screen's side.
    outer: File,
    /// The program's side.
    inner: OwnedFd,
    screen: Arc<Mutex<Parser>>,
    before: Termios,
}

impl Terminal {
    /// Starts a program on a terminal of so many columns and rows.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Result<Self> {
        let size = winsize(columns, rows);
        let OpenptyResult { master, slave } = openpty(&size, None)?;
        let before = tcgetattr(&slave)?;
        let side = || -> Result<Stdio> { Ok(slave.try_clone()?.into()) };
        command.stdin(side()?).stdout(side()?).stderr(side()?);
        // SAFETY: between fork and exec this makes system calls only.
        unsafe { command.pre_exec(take_as_controlling_terminal) };
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        // The command holds copies of the inner side.
        drop(command);
        let screen = Arc::new(Mutex::new(Parser::new(
            at_least_one(rows),
            at_least_one(columns),
            0,
        )));
        let outer = File::from(master);
        let reader = outer.try_clone()?;
        thread::spawn({
            let screen = Arc::clone(&screen);
            move || keep(reader, &screen)
        });
        Ok(Self {
            child,
            outer,
            inner: slave,
            screen,
            before,
        })
    }

    /// Types these characters.
    pub fn type_in(&mut self, keys: &str) -> Result<()> {
        Ok(self.outer.write_all(keys.as_bytes())?)
    }

    /// Changes the size, as somebody does who drags the window's corner.
    pub fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        // What comes from now on is for the new size, or for the old one still: as with any terminal.
        let mut screen = self.screen.lock().unwrap();
        let screen = screen.screen_mut();
        screen.set_size(at_least_one(rows), at_least_one(columns));
        let size = winsize(columns, rows);
        // SAFETY: TIOCSWINSZ reads a struct winsize, which outlives the call.
        let result =
            unsafe { libc::ioctl(self.outer.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
        Errno::result(result)?;
        Ok(())
    }

    /// The lines on the screen.
    pub fn lines(&self) -> Vec<String> {
        let screen = self.screen.lock().unwrap();
        let (_, columns) = screen.screen().size();
        let rows = screen.screen().rows(0, columns.get());
        rows.map(|row| row.trim_end().to_owned()).collect()
    }

    /// Waits until the lines on the screen are as wanted, and hands them over.
    pub fn wait_for(
        &mut self,
        wanted: &str,
        are_wanted: impl Fn(&[String]) -> bool,
    ) -> Result<Vec<String>> {
        let found = until(wanted, || {
            let lines = self.lines();
            if are_wanted(&lines) {
                return Ok(Some(lines));
            }
            let ended = self.child.try_wait()?;
            ensure!(ended.is_none(), "ended: {ended:?}");
            Ok(None)
        });
        found.with_context(|| format!("on the screen: {:#?}", self.lines()))
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), signal)?)
    }

    /// Waits until the program has ended.
    pub fn end(&mut self) -> Result<ExitStatus> {
        until("the end of the program", || Ok(self.child.try_wait()?))
    }

    /// Whether the program takes keys as they come, on a page of its own without a cursor.
    pub fn is_taken(&self) -> Result<bool> {
        let screen = self.screen.lock().unwrap();
        let (screen, mode) = (screen.screen(), tcgetattr(self.inner.as_fd())?);
        Ok(screen.alternate_screen()
            && screen.hide_cursor()
            && mode.local_flags != self.before.local_flags)
    }

    /// Waits until the terminal is as it was before the program.
    pub fn wait_until_given_back(&self) -> Result<()> {
        let mut differs = Vec::new();
        let result = until("the terminal as it was", || {
            let screen = self.screen.lock().unwrap();
            let (screen, mode) = (screen.screen(), tcgetattr(self.inner.as_fd())?);
            differs.clear();
            for (what, is_so) in [
                ("the other page", screen.alternate_screen()),
                ("no cursor", screen.hide_cursor()),
                ("the mode", mode.local_flags != self.before.local_flags),
                ("input", mode.input_flags != self.before.input_flags),
                ("output", mode.output_flags != self.before.output_flags),
                ("control", mode.control_flags != self.before.control_flags),
            ] {
                if is_so {
                    differs.push(what);
                }
            }
            Ok(differs.is_empty().then_some(()))
        });
        result.with_context(|| format!("{differs:?}"))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already; then neither has anything to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn winsize(columns: u16, rows: u16) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

fn at_least_one(size: u16) -> NonZeroU16 {
    NonZeroU16::new(size).unwrap_or(NonZeroU16::MIN)
}

/// So that a change of size comes as a signal, and Ctrl-C too, as long as it does.
fn take_as_controlling_terminal() -> io::Result<()> {
    setsid()?;
    // SAFETY: TIOCSCTTY takes a number.
    let result = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
    Errno::result(result)?;
    Ok(())
}

/// Draws what the program writes, until nobody can write any more.
fn keep(mut outer: File, screen: &Mutex<Parser>) {
    let mut bytes = [0; 4096];
    while let Ok(length) = outer.read(&mut bytes)
        && length > 0
    {
        screen.lock().unwrap().process(&bytes[..length]);
    }
}
