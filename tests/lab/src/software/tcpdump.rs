//! tcpdump, for captures that are too long to hold.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;
use pcap_file::pcap::PcapReader;

use super::PATIENCE;
use crate::dhcp::Message;
use crate::machine::{Machine, Process};

/// Room for what comes while it has no CPU, in KiB.
const BUFFER: &str = "65536";

/// How often it is asked what it has.
const GLANCE: Duration = Duration::from_millis(50);

/// A running capture of DHCPv6 messages.
#[derive(Debug)]
pub struct Tcpdump {
    machine: Machine,
    process: Process,
    interface: String,
    /// Its capture, in the machine.
    capture: String,
    /// Where that is to be kept.
    file: Option<PathBuf>,
}

/// What tcpdump captured, and what it says of itself.
#[derive(Debug)]
pub struct Capture {
    /// The messages in its file. It does not say which way they went: `outgoing` is false.
    pub messages: Vec<Message>,
    /// Frames that the kernel had no room for.
    pub lost: usize,
}

impl Tcpdump {
    /// Starts it on an interface of the machine; in the end its capture is kept as `file`.
    ///
    /// # Errors
    ///
    /// With its log, where it does not come up.
    pub fn start(machine: &Machine, interface: &str, file: Option<PathBuf>) -> Result<Self> {
        let capture = format!("/run/{interface}.pcap");
        let mut process = machine.start(
            "tcpdump",
            [
                "-i",
                interface,
                "--buffer-size",
                BUFFER,
                // Each frame goes to the file as it comes, not a block at a time.
                "--immediate-mode",
                "--packet-buffered",
                "--time-stamp-precision=nano",
                "--relinquish-privileges=root",
                "-w",
                &capture,
                "ip6 and udp and (dst port 546 or dst port 547)",
            ],
        )?;
        process.until_it_says("listening on", PATIENCE)?;
        Ok(Self {
            machine: machine.clone(),
            process,
            interface: interface.to_owned(),
            capture,
            file,
        })
    }

    /// Waits until it has captured so many frames.
    ///
    /// # Errors
    ///
    /// Where it has not in time.
    pub fn until(&self, frames: usize, patience: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            // It answers by a line in its log.
            self.process.signal(Signal::SIGUSR1)?;
            thread::sleep(GLANCE);
            let captured = last_count(&self.process.log(), CAPTURED).unwrap_or(0);
            if captured >= frames {
                return Ok(());
            }
            if start.elapsed() > patience {
                bail!(
                    "tcpdump on {} has captured {captured} frames, not {frames}, after {patience:?}",
                    self.interface
                );
            }
        }
    }

    /// Ends it, and reads what it captured.
    ///
    /// # Errors
    ///
    /// Where it does not end, or its file is none.
    pub fn finish(mut self) -> Result<Capture> {
        self.process.signal(Signal::SIGINT)?;
        self.process.wait(PATIENCE)?;
        let log = self.process.log();
        let count = |what| {
            last_count(&log, what).with_context(|| {
                format!("tcpdump on {} does not say what it {what}", self.interface)
            })
        };
        let capture = self.machine.path(&self.capture);
        if let Some(file) = &self.file {
            fs::copy(&capture, file).with_context(|| format!("cannot write {}", file.display()))?;
        }
        let mut messages = Vec::with_capacity(count(CAPTURED)?);
        let mut reader = PcapReader::new(BufReader::new(File::open(&capture)?))?;
        while let Some(frame) = reader.next_packet() {
            let frame = frame.with_context(|| format!("in the capture on {}", self.interface))?;
            messages.extend(Message::read(frame.timestamp, false, &frame.data));
        }
        Ok(Capture {
            messages,
            lost: count(DROPPED)?,
        })
    }
}

/// What tcpdump says of frames when it is asked, and when it ends.
const CAPTURED: &str = "captured";
const DROPPED: &str = "dropped by kernel";

/// How many packets the log says, where it does last, were `what`.
fn last_count(log: &str, what: &str) -> Option<usize> {
    let (before, _) = log.rsplit_once(what)?;
    let mut words = before.split_whitespace();
    words
        .next_back()
        .filter(|word| word.starts_with("packet"))?;
    words.next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_count_is_read_whether_asked_for_or_final() {
        let log = "listening on eth0\n\
            tcpdump: 7 packets captured, 9 packets received by filter, 0 packets dropped by kernel\n";
        assert_eq!(last_count(log, CAPTURED), Some(7));
        assert_eq!(last_count(log, DROPPED), Some(0));
        let log = format!(
            "{log}12 packets captured\n13 packets received by filter\n1 packet dropped by kernel\n"
        );
        assert_eq!(last_count(&log, CAPTURED), Some(12));
        assert_eq!(last_count(&log, DROPPED), Some(1));
        assert_eq!(last_count("listening on eth0\n", CAPTURED), None);
    }
}
