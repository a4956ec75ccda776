//! The scene as a capture through `xdp-dedup replay`: what can be shown without root.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{self, Command};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::memfd::{MFdFlags, memfd_create};
use testbed::sender::Timed;

use super::outcome::{Comparison, Counters, Outcome};
use super::scene::Scene;
use crate::process::capture;

/// A replay of a few frames takes no more than that.
const LIMIT: Duration = Duration::from_secs(30);

/// Replays the scene. Without the filter everything that is sent would be delivered.
pub fn compare(scene: &Scene, binary: &Path) -> Result<Comparison> {
    let file = write(&scene.schedule).context("cannot write the capture")?;
    let path = format!("/proc/{}/fd/{}", process::id(), file.as_raw_fd());
    let mut replay = Command::new(binary);
    replay.args(["replay", "--engine", "userspace", "--json", &path]);
    let output = capture(&mut replay, LIMIT)?;

    let mut comparison = Comparison {
        without: Outcome::default(),
        with: Outcome::default(),
        counters: Counters::new(),
    };
    // One line a frame, then the summary.
    let lines: Vec<&str> = output.lines().collect();
    if lines.len() != scene.owners.len() + 1 {
        bail!("{} lines for {} frames", lines.len(), scene.owners.len());
    }
    for ((line, owner), timed) in lines.iter().zip(&scene.owners).zip(&scene.schedule) {
        let verdict = field(line, "verdict")?;
        let reason = field(line, "reason")?;
        comparison.without.add(*owner, timed.at);
        if verdict == "pass" {
            comparison.with.add(*owner, timed.at);
        }
        // The live program does not count what is not for it.
        if reason != "not_dhcp" {
            let key = (verdict.to_owned(), reason.to_owned());
            *comparison.counters.entry(key).or_default() += 1;
        }
    }
    Ok(comparison)
}

/// The value of a field that is a plain word.
fn field<'a>(line: &'a str, name: &str) -> Result<&'a str> {
    line.split_once(&format!("\"{name}\":\""))
        .and_then(|(_, rest)| rest.split_once('"'))
        .map(|(value, _)| value)
        .with_context(|| format!("no {name} in {line}"))
}

/// A capture (pcap) in a file that has no name, and so goes with this process.
fn write(schedule: &[Timed]) -> Result<File> {
    /// Microseconds, version 2.4.
    const MAGIC: u32 = 0xa1b2_c3d4;
    const VERSION: [u16; 2] = [2, 4];
    const SNAPLEN: u32 = 65535;
    const ETHERNET: u32 = 1;
    let mut bytes = MAGIC.to_le_bytes().to_vec();
    bytes.extend(VERSION.iter().flat_map(|number| number.to_le_bytes()));
    for word in [0, 0, SNAPLEN, ETHERNET] {
        bytes.extend(word.to_le_bytes());
    }
    for Timed { at, frame } in schedule {
        let length = frame.len() as u32;
        for word in [at.as_secs() as u32, at.subsec_micros(), length, length] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(frame);
    }
    let mut file = File::from(memfd_create("capture", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(&bytes)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_out_of_a_line_of_json() {
        let line = r#"{"frame":1,"verdict":"pass","reason":"first","peer":null}"#;
        assert_eq!(field(line, "verdict").unwrap(), "pass");
        assert_eq!(field(line, "reason").unwrap(), "first");
        assert!(field(line, "peer").is_err());
    }
}
