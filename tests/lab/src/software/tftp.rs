//! dnsmasq as a TFTP server.

use anyhow::Result;

use super::PATIENCE;
use crate::machine::{Machine, Process};

/// Starts it on a machine: it serves what lies in this folder.
///
/// # Errors
///
/// With its log, where it does not come up.
pub fn start(machine: &Machine, folder: &str) -> Result<Process> {
    let mut process = machine.start(
        "dnsmasq",
        [
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--port=0",
            "--enable-tftp",
            &format!("--tftp-root={folder}"),
            "--log-facility=-",
            "--user=root",
            "--pid-file",
        ],
    )?;
    process.until_it_says("TFTP root is", PATIENCE)?;
    Ok(process)
}
