//! The filter's state as other commands than `run` read it: from the maps pinned for this network
//! namespace, beside a running daemon or without one.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use xdp_dedup_common::interface::InterfaceNote;

use crate::{
    attachment::Mode,
    interfaces::{self, Interface},
    maps::SharedMaps,
    metrics::InterfaceStatus,
    pins, privileges,
};

/// What is pinned, and what became of it.
pub struct State {
    /// The maps.
    pub maps: Arc<SharedMaps>,
    /// The interfaces that the filter was put on, in the order of the command line.
    pub interfaces: Vec<Filtered>,
    /// Id of the daemon's process; `None` if the state was left without one.
    pub daemon: Option<u32>,
}

/// An interface that the filter was put on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filtered {
    /// Its place among the counters.
    pub slot: u32,
    /// Its index in its network namespace.
    pub index: u32,
    /// Its name now; `ifindex-N` once it is gone.
    pub name: String,
    /// The mode that the program runs in.
    pub mode: Mode,
    /// Whether the program is on it still.
    pub attached: bool,
    /// Since when.
    pub since: SystemTime,
    /// Id of the program there.
    pub program_id: u32,
    /// Tag of the program.
    pub program_tag: u64,
}

/// How often pins are opened that are taken away or replaced meanwhile.
const TRIES: u32 = 3;

impl State {
    /// Reads what is there now; `None` if there is nothing.
    ///
    /// # Errors
    ///
    /// Where privileges lack, or the kernel refuses.
    pub async fn read() -> Result<Option<Self>> {
        let mut tries = TRIES;
        let (pinned, maps) = loop {
            let Some(pinned) = pins::find()? else {
                return Ok(None);
            };
            tries -= 1;
            // A daemon may take its pins away meanwhile, or put fresh ones in their place.
            match SharedMaps::open(&pinned.maps) {
                Ok(maps) if tries == 0 || pinned.is_still_there() => break (pinned, maps),
                Err(error) if tries == 0 => {
                    return Err(error.context(privileges::advice_to_read("read the filter's maps")));
                }
                _ => {}
            }
        };
        let all = interfaces::all().await?;
        let noted = maps.interfaces()?;
        Ok(Some(Self {
            maps: Arc::new(maps),
            interfaces: noted
                .into_iter()
                .map(|(slot, note)| Filtered::new(slot, &note, all.get(&note.index)))
                .collect(),
            daemon: pinned.daemon,
        }))
    }

    /// As [`read`](Self::read), for commands that have nothing to tell where there is nothing.
    ///
    /// # Errors
    ///
    /// As for [`read`](Self::read), and where nothing is there.
    pub async fn read_some() -> Result<Self> {
        match Self::read().await? {
            Some(state) => Ok(state),
            None => bail!("{NOTHING}: start the filter with `xdp-dedup run -i IFACE`"),
        }
    }

    /// What each interface has counted.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses a look-up.
    pub fn counted(&self) -> Result<Vec<InterfaceStatus>> {
        self.interfaces
            .iter()
            .map(|interface| {
                Ok(InterfaceStatus {
                    name: interface.name.clone(),
                    mode: interface.mode,
                    attached: interface.attached,
                    program_id: interface.program_id,
                    program_tag: interface.program_tag,
                    counters: self.maps.counters(interface.slot)?,
                })
            })
            .collect()
    }
}

/// What there is to say where nothing is pinned.
pub const NOTHING: &str = "nothing is attached in this network namespace";

impl Filtered {
    /// From what was noted of it, and what the kernel says of it now.
    fn new(slot: u32, note: &InterfaceNote, now: Option<&Interface>) -> Self {
        Self {
            slot,
            index: note.index,
            name: now.map_or_else(|| format!("ifindex-{}", note.index), |now| now.name.clone()),
            mode: match note.generic {
                0 => Mode::Native,
                _ => Mode::Generic,
            },
            attached: now.is_some_and(|now| now.programs.contains(&note.program_id)),
            since: UNIX_EPOCH + Duration::from_micros(note.since),
            program_id: note.program_id,
            program_tag: note.program_tag,
        }
    }
}

/// Runs a command on this thread until it is done.
///
/// # Errors
///
/// Those of the command.
pub fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(command);
    // A count of a large table may still be under way; nobody waits for it.
    runtime.shutdown_background();
    result
}

/// Looks in vain, one after the other. One may fall into the moment in which a `run` takes over, or
/// starts anew.
#[derive(Debug, Default)]
pub struct Misses(u32);

impl Misses {
    /// After so many the filter is gone.
    const MOST: u32 = 2;

    /// What was found; `None` where the next look may find it again.
    ///
    /// # Errors
    ///
    /// That of the look, where it is one too many.
    pub fn bear<T>(&mut self, look: Result<T>) -> Result<Option<T>> {
        if look.is_ok() {
            self.0 = 0;
            return look.map(Some);
        }
        self.0 += 1;
        if self.0 < Self::MOST {
            return Ok(None);
        }
        look.map(Some)
    }
}

/// The signals that end a command which goes on until then, so that it cleans up behind itself.
pub struct Leave([Signal; 3]);

impl Leave {
    /// Takes the signals: from now on they end nothing by themselves.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn new() -> Result<Self> {
        let on = |kind| signal(kind).context("cannot handle signals");
        Ok(Self([
            on(SignalKind::interrupt())?,
            on(SignalKind::terminate())?,
            on(SignalKind::hangup())?,
        ]))
    }

    /// Waits for one of them.
    pub async fn asked(&mut self) {
        let [interrupt, terminate, hang_up] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_look_in_vain_is_borne_and_a_second_one_after_it_is_not() {
        let mut misses = Misses::default();
        for (look, expected) in [
            (Ok(1), Some(Some(1))),
            (Err("none"), Some(None)),
            (Ok(2), Some(Some(2))),
            (Err("none"), Some(None)),
            (Err("none"), None),
        ] {
            assert_eq!(misses.bear(look.map_err(anyhow::Error::msg)).ok(), expected);
        }
    }
}
