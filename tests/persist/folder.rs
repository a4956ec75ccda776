//! What a `run` notes and leaves in the pin folder, and what it says at its end.

use std::path::Path;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use testbed::daemon::Daemon;
use xdp_dedup::maps::SharedMaps;
use xdp_dedup_common::interface::InterfaceNote;

use crate::bed::Bed;
use crate::object::folder_of;

/// The notes in the map of interfaces, by slot.
pub fn notes(daemon: &Daemon) -> Result<Vec<(u32, InterfaceNote)>> {
    SharedMaps::open(&folder_of(daemon)?.join("layout-2"))?.interfaces()
}

/// Runs a line of shell in the folder of the server's network namespace.
pub fn in_the_folder(bed: &Bed, line: &str) -> Result<()> {
    let output = bed
        .command(Path::new("sh"))
        .args([
            "-c",
            &format!("set -e; cd /sys/fs/bpf/xdp-dedup/netns-*; {line}"),
        ])
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{line}: {stderr}");
    Ok(())
}

/// Stops a daemon that must end well, and hands back its whole log.
pub fn stop_and_log(daemon: Daemon, signal: Signal) -> Result<String> {
    let (status, log) = daemon.stop_and_log(signal)?;
    ensure!(status.success(), "{status}: {log}");
    Ok(log)
}
