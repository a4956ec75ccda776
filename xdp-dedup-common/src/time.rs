//! Points in time and spans of it, in microseconds.

/// A span of time in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Microseconds(pub u64);

impl Microseconds {
    /// As a span in seconds.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds * 1_000_000)
    }

    /// As a span in milliseconds.
    pub const fn from_milliseconds(milliseconds: u64) -> Self {
        Self(milliseconds * 1_000)
    }
}

/// A point in time: microseconds since an epoch that all sightings in one table share. In the kernel
/// that is the boot (`bpf_ktime_get_ns`), in `replay` it is 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// From nanoseconds since the epoch, rounded down.
    #[inline(always)]
    pub const fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self(nanoseconds / 1_000)
    }
}
