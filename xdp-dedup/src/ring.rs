//! Waiting for what the kernel program writes into a ring buffer.

use std::{io, os::fd::AsRawFd};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use tokio::io::{Interest, unix::AsyncFd};

/// A reader of a ring buffer. It keeps the map open for as long as it lives, and its file descriptor is
/// always the same one.
pub trait Reader: AsRawFd {}

impl Reader for RingBuf<&MapData> {}

/// A reader that can be waited for, on this thread's runtime.
///
/// # Errors
///
/// Where the kernel does not take one more to watch.
pub fn watch<T: Reader>(reader: T) -> Result<AsyncFd<T>> {
    // SAFETY: as `Reader` promises.
    let watched = unsafe { AsyncFd::register_with_interest(reader, Interest::READABLE) };
    watched
        .map_err(io::Error::from)
        .context("cannot wait for the ring buffer")
}
