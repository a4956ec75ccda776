//! The maps that all instances of the program share, and that other commands read, as typed values.

use std::{
    collections::BTreeMap,
    net::Ipv6Addr,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{
    Array, HashMap, Map, MapData, PerCpuArray, PerCpuHashMap, PerCpuValues, RingBuf,
    lpm_trie::{Key, LpmTrie},
};
use bytemuck::Zeroable as _;
use nix::libc;
use tracing::warn;
use xdp_dedup_common::{
    Identity, Policy, Sighting,
    counters::{InterfaceCounters, RelayCounters},
    event::Wanted,
    identity::Address,
    interface::InterfaceNote,
    trusted::Prefix,
};

use crate::policy::Rules;

/// The number of their layout, which tells pins of other versions apart: types, sizes and flags, and
/// what each byte of a key or value means. Whoever changes one of these counts it up; the test binary
/// `persist` knows the layout of each number.
pub const LAYOUT: u32 = 2;

/// Their names in the object, and of their pins.
pub const NAMES: [&str; 10] = [
    "TABLE",
    "POLICY",
    "TRUSTED",
    "COUNTERS",
    "INTERFACES",
    "RELAYS",
    "OTHER_RELAYS",
    "EVENTS",
    "EVENTS_WANTED",
    "LOST_EVENTS",
];

/// A value of `xdp-dedup-common` in a map.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(pub(crate) T);

// SAFETY: `bytemuck::Pod` promises what `aya::Pod` asks for: any bytes are a value, and there is no
// padding. Both sides of the map compile the type from the same source.
unsafe impl<T: bytemuck::Pod> aya::Pod for Shared<T> {}

/// Client messages by relay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayTally {
    /// Those of the first relays that were seen, by their addresses.
    pub relays: BTreeMap<Ipv6Addr, RelayCounters>,
    /// Those of all others.
    pub others: RelayCounters,
}

/// The maps.
pub struct SharedMaps {
    table_id: u32,
    capacity: u32,
    policy: Mutex<Array<MapData, Shared<Policy>>>,
    trusted: Mutex<LpmTrie<MapData, Shared<Address>, u8>>,
    counters: Mutex<PerCpuArray<MapData, Shared<InterfaceCounters>>>,
    interfaces: Mutex<Array<MapData, Shared<InterfaceNote>>>,
    relays: PerCpuHashMap<MapData, Shared<Address>, Shared<RelayCounters>>,
    other_relays: PerCpuArray<MapData, Shared<RelayCounters>>,
    events: Map,
    events_wanted: Mutex<Array<MapData, Shared<Wanted>>>,
    lost_events: PerCpuArray<MapData, u64>,
    table: HashMap<MapData, Shared<Identity>, Shared<Sighting>>,
}

impl SharedMaps {
    /// Those pinned in this folder.
    ///
    /// # Errors
    ///
    /// Where one is missing, or privileges lack.
    pub fn open(folder: &Path) -> Result<Self> {
        Self::from(|name| {
            let pin = folder.join(name);
            let data = MapData::from_pin(&pin);
            let map = data.and_then(Map::from_map_data);
            map.with_context(|| format!("cannot open the map {}", pin.display()))
        })
    }

    /// Those that `take` hands out by name.
    pub(crate) fn from(mut take: impl FnMut(&str) -> Result<Map>) -> Result<Self> {
        let table = take("TABLE")?;
        let Map::LruHashMap(data) = &table else {
            bail!("the table is a map of another type");
        };
        let info = data.info()?;
        Ok(Self {
            table_id: info.id(),
            capacity: info.max_entries(),
            table: table.try_into()?,
            policy: Mutex::new(take("POLICY")?.try_into()?),
            trusted: Mutex::new(take("TRUSTED")?.try_into()?),
            counters: Mutex::new(take("COUNTERS")?.try_into()?),
            interfaces: Mutex::new(take("INTERFACES")?.try_into()?),
            relays: take("RELAYS")?.try_into()?,
            other_relays: take("OTHER_RELAYS")?.try_into()?,
            events: take("EVENTS")?,
            events_wanted: Mutex::new(take("EVENTS_WANTED")?.try_into()?),
            lost_events: take("LOST_EVENTS")?.try_into()?,
        })
    }

    /// Id of the table in the kernel: where it is another one, all counters are others too.
    pub const fn table_id(&self) -> u32 {
        self.table_id
    }

    /// Entries that the table has room for.
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Puts another policy in force, for all instances that share the map; nothing is forgotten.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the update.
    pub fn set_policy(&self, policy: &Policy) -> Result<()> {
        let mut map = lock(&self.policy);
        map.set(0, Shared(*policy), 0)
            .context("cannot write the policy map")
    }

    /// Puts another policy and other trusted relays in force. At no time is a relay that both the
    /// old and the new ones trust taken for an untrusted one.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses an update; all is then as it was. What it refuses to remove is a
    /// warning.
    pub fn set_rules(&self, rules: &Rules) -> Result<()> {
        let refused = "cannot write the map of trusted relays";
        let mut map = lock(&self.trusted);
        let old: Vec<_> = map.keys().flatten().collect();
        let new: Vec<_> = rules.trusted_relays.iter().map(key_of).collect();
        let not_in = |list: &[Key<Shared<Address>>], key: &Key<Shared<Address>>| {
            !list.iter().any(|other| is_same(key, other))
        };
        let added = || new.iter().filter(|key| not_in(&old, key));
        let written = added()
            .try_for_each(|key| map.insert(key, 1, 0).context(refused))
            .and_then(|()| self.set_policy(&rules.policy));
        if let Err(error) = written {
            // As it was; what was not added yet cannot be removed.
            added().for_each(|key| drop(map.remove(key)));
            return Err(error);
        }
        let gone: Vec<_> = old.iter().filter(|key| not_in(&new, key)).collect();
        if !gone.is_empty() {
            // A program that began under the old policy may not have looked the relay up yet.
            wait_for_running_programs();
        }
        // The new rules are in force by now, but for this.
        for key in gone {
            if let Err(error) = map.remove(key) {
                let (address, length) = (Ipv6Addr::from(key.data().0), key.prefix_len());
                let error = anyhow::Error::new(error).context(refused);
                warn!("{address}/{length} stays among the trusted relays: {error:#}");
            }
        }
        Ok(())
    }

    /// The policy in force.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the look-up.
    pub fn policy(&self) -> Result<Policy> {
        let map = lock(&self.policy);
        Ok(map.get(&0, 0).context("cannot read the policy map")?.0)
    }

    /// The policy and the trusted relays in force.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses a look-up.
    pub fn rules(&self) -> Result<Rules> {
        let map = lock(&self.trusted);
        let mut trusted_relays = Vec::new();
        for key in map.keys() {
            let key = key.context("cannot read the map of trusted relays")?;
            let length = u8::try_from(key.prefix_len()).unwrap_or(u8::MAX);
            trusted_relays.push(Prefix::new(key.data().0.into(), length));
        }
        trusted_relays.sort();
        Ok(Rules {
            policy: self.policy()?,
            trusted_relays,
        })
    }

    /// What the interface in this slot has counted, on all CPUs together.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the look-up.
    pub fn counters(&self, interface_slot: u32) -> Result<InterfaceCounters> {
        let per_cpu = lock(&self.counters)
            .get(&interface_slot, 0)
            .context("cannot read the counters")?;
        let mut sum = InterfaceCounters::zeroed();
        for counters in per_cpu.iter() {
            sum.add(&counters.0);
        }
        Ok(sum)
    }

    /// Sets the counters of a slot to zero, for another interface.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn reset_counters(&self, interface_slot: u32) -> Result<()> {
        let refused = "cannot reset the counters";
        let mut map = lock(&self.counters);
        let cpus = map.get(&interface_slot, 0).context(refused)?.len();
        let zeros = vec![Shared(InterfaceCounters::zeroed()); cpus];
        let zeros = PerCpuValues::try_from(zeros).context(refused)?;
        map.set(interface_slot, zeros, 0).context(refused)
    }

    /// Notes what interface is in a slot.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the update.
    pub fn note_interface(&self, slot: u32, note: InterfaceNote) -> Result<()> {
        let mut map = lock(&self.interfaces);
        map.set(slot, Shared(note), 0)
            .context("cannot write the map of interfaces")
    }

    /// The interfaces that were noted, by slot.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses a look-up.
    pub fn interfaces(&self) -> Result<Vec<(u32, InterfaceNote)>> {
        let map = lock(&self.interfaces);
        let mut noted = Vec::new();
        for slot in 0..map.len() {
            let note = map
                .get(&slot, 0)
                .context("cannot read the map of interfaces")?
                .0;
            if note != InterfaceNote::default() {
                noted.push((slot, note));
            }
        }
        Ok(noted)
    }

    /// What was counted by relay on all interfaces and CPUs together; of those that found no room of
    /// their own in one sum.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses a look-up.
    pub fn relays(&self) -> Result<RelayTally> {
        const REFUSED: &str = "cannot read the relays' counters";
        let mut tally = RelayTally::default();
        for entry in self.relays.iter() {
            let (relay, per_cpu) = entry.context(REFUSED)?;
            let sum = tally.relays.entry(relay.0.into()).or_default();
            per_cpu.iter().for_each(|counters| sum.add(&counters.0));
        }
        let others = self.other_relays.get(&0, 0).context(REFUSED)?;
        others
            .iter()
            .for_each(|counters| tally.others.add(&counters.0));
        Ok(tally)
    }

    /// The ring buffer in which the kernel program tells of frames. It has one reader: what one takes
    /// out, no other sees.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses to map its memory.
    pub fn events(&self) -> Result<RingBuf<&MapData>> {
        RingBuf::try_from(&self.events).context("cannot read the ring buffer of events")
    }

    /// Asks the kernel program to tell of these frames, and of no others.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the update.
    pub fn want_events(&self, wanted: Wanted) -> Result<()> {
        let mut map = lock(&self.events_wanted);
        map.set(0, Shared(wanted), 0)
            .context("cannot write what is wanted of events")
    }

    /// What the kernel program is asked to tell.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the look-up.
    pub fn wanted_events(&self) -> Result<Wanted> {
        let map = lock(&self.events_wanted);
        let wanted = map.get(&0, 0);
        Ok(wanted.context("cannot read what is wanted of events")?.0)
    }

    /// How many frames the kernel program was asked to tell of, but could not for want of room.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the look-up.
    pub fn lost_events(&self) -> Result<u64> {
        let per_cpu = self.lost_events.get(&0, 0);
        Ok(per_cpu.context("cannot read the lost events")?.iter().sum())
    }

    /// How many transactions the table holds. It reads every key, about 0.3 µs each; where one goes
    /// meanwhile it may count others twice.
    pub fn table_entries(&self) -> usize {
        self.table
            .keys()
            .take(self.capacity as usize)
            .filter(Result::is_ok)
            .count()
    }

    /// What the table holds. Entries that come or go meanwhile may be missing.
    pub fn table(&self) -> BTreeMap<Identity, Sighting> {
        self.table
            .iter()
            .flatten()
            .map(|(identity, sighting)| (identity.0, sighting.0))
            .collect()
    }

    /// What the table holds, entry by entry, about 0.6 µs each. Entries that come or go meanwhile may
    /// be missing, or come twice.
    pub fn sightings(&self) -> impl Iterator<Item = Result<(Identity, Sighting)>> + '_ {
        // Where the entry goes that was read last, the kernel starts over: not for ever.
        let most = 2 * self.capacity as usize;
        self.table.iter().take(most).map(|entry| {
            let (identity, sighting) = entry.context("cannot read the table")?;
            Ok((identity.0, sighting.0))
        })
    }

    /// Empties the table: each message is a first one again. The counters stay.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses to remove an entry.
    pub fn forget(&mut self) -> Result<()> {
        let identities: Vec<_> = self.table.keys().flatten().collect();
        for identity in identities {
            self.table
                .remove(&identity)
                .context("cannot remove an entry of the table")?;
        }
        Ok(())
    }
}

/// Whoever panicked with a map has written a whole value or none.
fn lock<T>(map: &Mutex<T>) -> MutexGuard<'_, T> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no program runs that began before.
pub(crate) fn wait_for_running_programs() {
    // SAFETY: this command has no arguments and touches no memory. It returns after an RCU grace
    // period (kernel/sched/membarrier.c), and programs run as RCU readers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        // Refused on machines with nohz_full CPUs. A program runs for a microsecond.
        thread::sleep(Duration::from_millis(100));
    }
}

fn key_of(prefix: &Prefix) -> Key<Shared<Address>> {
    Key::new(prefix.length(), Shared(prefix.address()))
}

fn is_same(a: &Key<Shared<Address>>, b: &Key<Shared<Address>>) -> bool {
    a.prefix_len() == b.prefix_len() && a.data().0 == b.data().0
}
