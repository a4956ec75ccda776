//! The counters at one moment.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Result;
use tokio::{
    task::{self, JoinHandle},
    time::timeout,
};
use xdp_dedup_common::policy::Window;

use crate::{
    maps::{RelayTally, SharedMaps},
    metrics::InterfaceStatus,
    state::State,
};

/// What the maps said at one moment.
#[derive(Clone, Debug)]
pub struct Counts {
    /// When that was, for people.
    pub time: SystemTime,
    /// When that was, for rates.
    pub instant: Instant,
    /// The table that the counters belong to.
    pub table_id: u32,
    /// The interfaces.
    pub interfaces: Vec<InterfaceStatus>,
    /// Client messages by relay.
    pub relays: RelayTally,
    /// The window in force.
    pub window: Window,
    /// Transactions in the table, if they have been counted.
    pub table_entries: Option<usize>,
    /// Transactions that it has room for.
    pub table_capacity: u32,
    /// Frames that `events` was to show and could not.
    pub events_lost: u64,
}

impl Counts {
    /// Reads the counters; of the table that `table_entries`.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses a look-up.
    pub fn read(state: &State, table_entries: Option<usize>) -> Result<Self> {
        Ok(Self {
            time: SystemTime::now(),
            instant: Instant::now(),
            table_id: state.maps.table_id(),
            interfaces: state.counted()?,
            relays: state.maps.relays()?,
            window: state.maps.policy()?.window(),
            table_entries,
            table_capacity: state.maps.capacity(),
            events_lost: state.maps.lost_events()?,
        })
    }
}

/// Counts the table's entries beside the live view: of 16 million that takes seconds.
#[derive(Default)]
pub struct EntryCounter {
    latest: Option<(u32, usize)>,
    under_way: Option<JoinHandle<(u32, usize, Duration)>>,
    next: Option<Instant>,
}

impl EntryCounter {
    /// The part of its time that a CPU may spend with it.
    const SHARE: u32 = 20;

    /// How long the view may wait for it: long enough for a table of the usual size.
    const PATIENCE: Duration = Duration::from_millis(50);

    /// The last count of this table, as soon as there is one; starts the next when it is due.
    pub async fn entries(&mut self, maps: &Arc<SharedMaps>) -> Option<usize> {
        if self.next.is_none_or(|next| next <= Instant::now()) {
            let count = self.under_way.get_or_insert_with(|| {
                let maps = Arc::clone(maps);
                task::spawn_blocking(move || {
                    let start = Instant::now();
                    let entries = maps.table_entries();
                    (maps.table_id(), entries, start.elapsed())
                })
            });
            if let Ok(done) = timeout(Self::PATIENCE, count).await {
                self.under_way = None;
                if let Ok((table_id, entries, took)) = done {
                    self.latest = Some((table_id, entries));
                    self.next = Some(Instant::now() + took * Self::SHARE);
                }
            }
        }
        let latest = self.latest.filter(|(id, _)| *id == maps.table_id());
        latest.map(|(_, entries)| entries)
    }
}

/// Counts as tests want them.
#[cfg(test)]
pub(super) mod sample {
    use std::{net::Ipv6Addr, time::UNIX_EPOCH};

    use xdp_dedup_common::{
        Reason, Verdict,
        counters::{InterfaceCounters, RelayCounters},
    };

    use super::*;
    use crate::attachment::Mode;

    /// Counters with so many first copies and duplicates, of 200 bytes each.
    fn counters(first: u64, duplicates: u64) -> InterfaceCounters {
        let mut counters = InterfaceCounters::default();
        let words: &mut [u64] = bytemuck::cast_slice_mut(bytemuck::bytes_of_mut(&mut counters));
        for (reason, verdict, packets) in [
            (Reason::First, Verdict::Pass, first),
            (Reason::Duplicate, Verdict::Drop, duplicates),
        ] {
            let place = 2 * (reason as usize * Verdict::ALL.len() + verdict as usize);
            words[place] = packets;
            words[place + 1] = packets * 200;
        }
        let traffic = counters.traffic(Reason::First, Verdict::Pass);
        assert_eq!(traffic.packets, first);
        // All of them 39 us after the first copy.
        counters.gaps.buckets[2] = duplicates;
        counters.gaps.sum = 39 * duplicates;
        counters
    }

    pub const RELAY: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

    /// What was read so long after `start`: first copies and duplicates by one relay on one interface.
    pub fn counts(
        start: Instant,
        milliseconds: u64,
        table_id: u32,
        [first, duplicates]: [u64; 2],
    ) -> Counts {
        let interface = InterfaceStatus {
            name: "eth0".to_owned(),
            mode: Mode::Native,
            attached: true,
            program_id: 1,
            program_tag: 1,
            counters: counters(first, duplicates),
        };
        let relay: RelayCounters = bytemuck::cast([first, duplicates, 0]);
        Counts {
            time: UNIX_EPOCH,
            instant: start + Duration::from_millis(milliseconds),
            table_id,
            interfaces: vec![interface],
            relays: RelayTally {
                relays: [(RELAY, relay)].into(),
                others: RelayCounters::default(),
            },
            window: Window::DEFAULT,
            table_entries: Some(17),
            table_capacity: 1024,
            events_lost: 0,
        }
    }
}
