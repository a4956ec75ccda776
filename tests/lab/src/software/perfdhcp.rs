//! perfdhcp, Kea's load generator: many clients that all speak from one address.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::machine::{Machine, Process};
use crate::site::ETH0;

/// How long it waits for answers after its last message, and what it takes for lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// What it is to do.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Four-way exchanges in all; it may begin some more.
    pub exchanges: usize,
    /// Four-way exchanges that begin each second.
    pub per_second: usize,
}

/// What it reports of the messages of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Messages sent.
    pub sent: usize,
    /// Messages that were answered.
    pub received: usize,
    /// Messages that were not.
    pub drops: usize,
    /// Answers to no question: second ones.
    pub orphans: usize,
}

/// What it reports.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Of Solicits.
    pub solicits: Answered,
    /// Of Requests.
    pub requests: Answered,
}

impl Load {
    /// How long it takes.
    fn duration(self) -> Duration {
        Duration::from_secs_f64(self.exchanges as f64 / self.per_second as f64)
    }

    /// Runs it on the machine's `eth0`. Transaction-ids count up from 0 through all messages, and
    /// each exchange is of a client drawn from as many as there are exchanges.
    ///
    /// # Errors
    ///
    /// With what it printed, where it fails for another reason than messages without answer.
    pub fn run(self, machine: &Machine) -> Result<Report> {
        let exchanges = self.exchanges.to_string();
        let mut process = machine.start(
            "perfdhcp",
            [
                "-6",
                "-l",
                ETH0,
                "-r",
                &self.per_second.to_string(),
                "-R",
                &exchanges,
                "-n",
                &exchanges,
                // A line a second on how far it is.
                "-t",
                "1",
                "-W",
                &PATIENCE.as_micros().to_string(),
                "-d",
                &PATIENCE.as_secs().to_string(),
            ],
        )?;
        let patience = self.duration() * 2 + PATIENCE * 2;
        let all_answered = |process: &Process| {
            let printed = process.log();
            let progress = printed.lines().rev().find_map(Progress::read);
            progress.is_some_and(|progress| progress.is_done(self.exchanges))
        };
        if process
            .until("answer to each message", patience, all_answered)
            .is_ok()
        {
            process.signal(Signal::SIGINT)?;
        }
        // Else it has given up waiting for answers by itself.
        process.wait(PATIENCE)?;
        let printed = process.log();
        Report::read(&printed).with_context(|| format!("perfdhcp reports nothing, but: {printed}"))
    }
}

/// How far it is: Solicits, Requests and their answers.
struct Progress {
    sent: [usize; 2],
    received: [usize; 2],
}

impl Progress {
    /// Reads a line such as `sent: 249/248; received: 248/247; drops: 1/1; rejected: 0/0`.
    fn read(line: &str) -> Option<Self> {
        let (sent, rest) = line.strip_prefix("sent: ")?.split_once("; received: ")?;
        let (received, _) = rest.split_once(';')?;
        let pair = |text: &str| {
            let (solicits, requests) = text.split_once('/')?;
            Some([solicits.parse().ok()?, requests.parse().ok()?])
        };
        Some(Self {
            sent: pair(sent)?,
            received: pair(received)?,
        })
    }

    fn is_done(&self, exchanges: usize) -> bool {
        let [solicits, requests] = self.sent;
        solicits >= exchanges && requests == solicits && self.received == self.sent
    }
}

impl Report {
    /// Reads what it prints in the end.
    fn read(printed: &str) -> Option<Self> {
        let (_, requests) = printed.split_once("Statistics for: REQUEST-REPLY")?;
        let (solicits, _) = printed.split_once("Statistics for: REQUEST-REPLY")?;
        let (_, solicits) = solicits.split_once("Statistics for: SOLICIT-ADVERTISE")?;
        Some(Self {
            solicits: Answered::read(solicits)?,
            requests: Answered::read(requests)?,
        })
    }

    /// Messages that were sent.
    pub fn messages(&self) -> usize {
        self.solicits.sent + self.requests.sent
    }

    /// Four-way exchanges that were completed.
    pub fn completed(&self) -> usize {
        self.requests.received
    }

    /// Answers to no question: second ones.
    pub fn orphans(&self) -> usize {
        self.solicits.orphans + self.requests.orphans
    }

    /// Messages that were not answered.
    pub fn drops(&self) -> usize {
        self.solicits.drops + self.requests.drops
    }
}

impl Answered {
    fn read(section: &str) -> Option<Self> {
        let number = |name: &str| {
            let mut lines = section.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))?;
            value.parse().ok()
        };
        Some(Self {
            sent: number("sent packets")?,
            received: number("received packets")?,
            drops: number("drops")?,
            orphans: number("orphans")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_done_when_all_is_sent_and_answered() {
        let done = |line| Progress::read(line).map(|progress| progress.is_done(200));
        let line = "sent: 201/201; received: 201/201; drops: 0/0; rejected: 0/0";
        assert_eq!(done(line), Some(true));
        let line = "sent: 201/201; received: 201/200; drops: 0/1; rejected: 0/0";
        assert_eq!(done(line), Some(false));
        let line = "sent: 99/99; received: 99/99; drops: 0/0; rejected: 0/0";
        assert_eq!(done(line), Some(false));
        assert_eq!(done("Scenario: basic."), None);
    }

    #[test]
    fn the_report_is_read() -> Result<()> {
        let report = Report::read(
            "***Rate statistics***\nRate: 199.618 4-way exchanges/second, expected rate: 200\n\n\
             ***Statistics for: SOLICIT-ADVERTISE***\nsent packets: 200\nreceived packets: 199\n\
             drops: 1\ndrops ratio: 0.5 %\norphans: 198\n\n\
             ***Statistics for: REQUEST-REPLY***\nsent packets: 199\nreceived packets: 199\n\
             drops: 0\ndrops ratio: 0.000 %\norphans: 0\n",
        );
        let report = report.context("none read")?;
        assert_eq!(
            report.solicits,
            Answered {
                sent: 200,
                received: 199,
                drops: 1,
                orphans: 198
            }
        );
        assert_eq!(report.completed(), 199);
        assert_eq!(report.orphans(), 198);
        assert_eq!(report.drops(), 1);
        Ok(())
    }
}
