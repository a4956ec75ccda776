//! Waiting for what comes by itself.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

/// Most time that anything may take to show.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is looked for.
const GLANCE: Duration = Duration::from_millis(5);

/// Waits until there is what is wanted.
///
/// # Errors
///
/// Where it has not come in a minute, or looking fails.
pub fn until<T>(wanted: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(start.elapsed() < PATIENCE, "in vain: {wanted}");
        thread::sleep(GLANCE);
    }
}
