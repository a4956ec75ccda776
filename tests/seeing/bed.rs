//! A daemon with traffic, and the commands beside it.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use testbed::{
    binary::binary,
    daemon::{Daemon, Place},
    frame::{ClientMessage, message_type, relayed, reported},
    namespace::Namespace,
    sender::Sender,
    veth::{End, join},
    wait::until,
};

/// A server's interface with the filter on it, and frames coming in.
pub struct Bed {
    pub here: Namespace,
    pub daemon: Daemon,
    pub place: Place,
    sender: Sender,
}

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Bed {
    /// Starts `run -i server0` with these further arguments.
    pub fn new(arguments: &[&str]) -> Result<Self> {
        let (here, there) = (Namespace::new("server")?, Namespace::new("relays")?);
        let end = End::new(&here, "server0", [2, 0, 0, 0, 0, 1]);
        let other = End::new(&there, "relay0", [2, 0, 0, 0, 0, 2]);
        join(&end, &other)?;
        let sender = Sender::new(&other)?;
        let all = [&["-i", "server0"], arguments].concat();
        let daemon = Daemon::start(&binary()?, &here, &all)?;
        let place = daemon.place()?;
        Ok(Self {
            here,
            daemon,
            place,
            sender,
        })
    }

    /// A client's message, through both relays one after the other.
    pub fn send(&self, message: &ClientMessage) -> Result<()> {
        for relay in [reported::RELAY_A, reported::RELAY_B] {
            let frame = relayed(relay, reported::SERVER, reported::CLIENT, message);
            self.sender.send(&frame.bytes())?;
        }
        Ok(())
    }

    /// Waits until the filter has counted so many frames for this reason.
    pub fn wait_for(&self, reason: &str, frames: u64) -> Result<()> {
        let counted = || -> Result<u64> {
            let packets = self.daemon.metrics()?.packets("server0");
            let by_reason = packets.iter().filter(|((_, of), _)| of == reason);
            Ok(by_reason.map(|(_, frames)| frames).sum())
        };
        until(&format!("{frames} of {reason}"), || {
            Ok((counted()? == frames).then_some(()))
        })
    }

    /// `xdp-dedup` with these arguments, where the daemon is.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.place.command(binary()?);
        command.args(arguments).stdin(Stdio::null());
        Ok(command)
    }

    /// What it answers.
    pub fn ask(&self, arguments: &[&str]) -> Result<Answer> {
        ask(self.command(arguments)?)
    }

    /// The lines of JSON that it answers, and its exit code.
    pub fn json(&self, arguments: &[&str]) -> Result<(Vec<Value>, Option<i32>)> {
        let answer = self.ask(&[arguments, &["--json"]].concat())?;
        let lines = answer.stdout.lines().map(serde_json::from_str);
        let values: Result<Vec<Value>, _> = lines.collect();
        Ok((values.with_context(|| format!("{answer:?}"))?, answer.code))
    }

    /// The one object of JSON that it answers.
    pub fn json_object(&self, arguments: &[&str]) -> Result<Value> {
        match self.json(arguments)? {
            (values, Some(0)) if values.len() == 1 => Ok(values[0].clone()),
            (values, code) => bail!("{arguments:?}: exit code {code:?}: {values:?}"),
        }
    }
}

/// Runs a command to its end.
pub fn ask(mut command: Command) -> Result<Answer> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Answer {
        code: output.status.code(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    })
}

pub fn solicit(number: u8) -> ClientMessage {
    ClientMessage::new(message_type::SOLICIT, [0, 0, number]).elapsed_time(0)
}

/// A line of text as its words.
pub fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Whether a line consists of these words.
pub fn has_line(text: &str, wanted: &[&str]) -> bool {
    text.lines().any(|line| words(line) == wanted)
}

/// Three first copies and three duplicates within a window of a minute.
pub fn bed_with_three() -> Result<Bed> {
    let bed = Bed::new(&["--window", "60s"])?;
    for number in 1..=3 {
        bed.send(&solicit(number))?;
    }
    bed.wait_for("duplicate", 3)?;
    Ok(bed)
}
