//! The one who asks the kernel program for events: by a lease, so that the program does not go on
//! telling somebody who was killed.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use xdp_dedup_common::event::{Event, Outcomes, Slots, Wanted};

use super::line::{BootClock, Lines};
use crate::{
    kernel::now,
    maps::{SharedMaps, wait_for_running_programs},
};

/// How often the lease is renewed.
pub const RENEW: Duration = Duration::from_secs(1);

/// How long it runs.
const LEASE: Duration = Duration::from_secs(3);

/// Events that are made lines of before they are written.
const BATCH: usize = 256;

/// Whoever listens. Dropping it, nothing is wanted any more.
pub struct Listener<'a> {
    maps: &'a SharedMaps,
    outcomes: Outcomes,
    /// Events before that are not this listener's.
    since: u64,
    /// When the lease is over.
    until: u64,
    /// Events lost as far as that was told, or before this listener.
    lost: u64,
}

impl<'a> Listener<'a> {
    /// Asks for these outcomes on these interfaces, and takes out of the ring what a former listener
    /// left in it.
    pub fn start(
        maps: &'a SharedMaps,
        ring: &mut RingBuf<&MapData>,
        outcomes: Outcomes,
        slots: Slots,
    ) -> Result<Self> {
        let mut listener = Self {
            maps,
            outcomes,
            since: 0,
            until: 0,
            lost: 0,
        };
        // What a former listener left; if it was killed a moment ago, more may come while its lease
        // runs.
        let patience = now()? + LEASE.as_nanos() as u64;
        while ring.next().is_some() && now()? < patience {}
        listener.since = now()?;
        listener.lost = maps.lost_events()?;
        listener.renew(slots)?;
        // A program that found a former lease over may still be about to end this one.
        wait_for_running_programs();
        listener.renew(slots)?;
        Ok(listener)
    }

    /// Asks for more of the same, now on these interfaces; says for how long nothing was asked for, if
    /// the last lease was over.
    pub fn renew(&mut self, slots: Slots) -> Result<Option<Duration>> {
        let now = now()?;
        let stopped = now.checked_sub(self.until).filter(|_| self.until > 0);
        self.until = now + LEASE.as_nanos() as u64;
        let wanted = Wanted::new(self.outcomes, slots, self.until);
        self.maps.want_events(wanted)?;
        Ok(stopped.map(Duration::from_nanos))
    }

    /// Makes lines of what is in the ring; `true` if that was all.
    pub fn read(
        &self,
        ring: &mut RingBuf<&MapData>,
        names: &BTreeMap<u32, String>,
        lines: &mut Lines,
    ) -> Result<bool> {
        let clock = BootClock::read()?;
        for _ in 0..BATCH {
            let Some(record) = ring.next() else {
                return Ok(true);
            };
            let event = Event::read(&record).context(
                "what is in the ring buffer is no event: another version's program wrote it",
            )?;
            let is_wanted = self.outcomes.contains(event.decision);
            if is_wanted && event.time >= self.since {
                lines.event(&event, names, clock);
            }
        }
        Ok(false)
    }

    /// How many events were lost since the last time.
    pub fn lost(&mut self) -> Result<u64> {
        let before = self.lost;
        self.lost = self.maps.lost_events()?;
        Ok(self.lost.saturating_sub(before))
    }

    /// Asks for nothing any more. When it returns, all that there is is in the ring.
    pub fn stop(&self) -> Result<()> {
        self.maps.want_events(Wanted::default())?;
        wait_for_running_programs();
        Ok(())
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        // Failing that, the lease is over soon.
        let _ = self.maps.want_events(Wanted::default());
    }
}
