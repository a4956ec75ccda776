//! `cargo xtask demo`: shows the filter at work on this machine. Its body is still to come.

use anyhow::{Result, bail};

/// Says that the demo does not exist yet.
pub fn run() -> Result<()> {
    bail!("the demo is not here yet; `cargo xtask test` shows what works so far")
}
