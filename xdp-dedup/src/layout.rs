//! What the shared maps look like, and whether pinned ones look like that: the loader takes a pinned
//! map for the one that the program wants, whatever it is.

use std::{fmt, io::ErrorKind, path::Path};

use anyhow::{Context as _, Result};
use aya::{
    maps::{MapError, MapInfo, MapType, lpm_trie::Key},
    sys::SyscallError,
};
use xdp_dedup_common::{
    Identity, Policy, Sighting,
    counters::{InterfaceCounters, MAX_RELAYS, RelayCounters},
    event::{RING_BYTES, Wanted},
    identity::Address,
    interface::{InterfaceNote, MAX_INTERFACES},
    policy::Window,
};

use crate::{
    maps::{Shared, SharedMaps},
    policy::MAX_TRUSTED_RELAYS,
    privileges,
};

/// `BPF_F_NO_PREALLOC` (linux/bpf.h).
const NO_PREALLOC: u32 = 1;

/// Type, sizes and flags of one map, as the kernel tells them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Its type.
    pub map_type: MapType,
    /// Length of a key in bytes.
    pub key: u32,
    /// Length of a value in bytes.
    pub value: u32,
    /// Entries that it has room for.
    pub entries: u32,
    /// Its flags (`map_flags`, linux/bpf.h).
    pub flags: u32,
}

impl Shape {
    const fn of<K, V>(map_type: MapType, entries: usize, flags: u32) -> Self {
        Self {
            map_type,
            key: size_of::<K>() as u32,
            value: size_of::<V>() as u32,
            entries: entries as u32,
            flags,
        }
    }

    /// That of a map in the kernel.
    ///
    /// # Errors
    ///
    /// Where its type is unknown here.
    pub fn of_map(info: &MapInfo) -> Result<Self> {
        Ok(Self {
            map_type: info.map_type()?,
            key: info.key_size(),
            value: info.value_size(),
            entries: info.max_entries(),
            flags: info.map_flags(),
        })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            map_type,
            key,
            value,
            entries,
            flags,
        } = self;
        write!(
            f,
            "{map_type:?}, keys of {key} and values of {value} bytes, {entries} entries, flags {flags:#x}"
        )
    }
}

/// The shared maps by name, with a table of this capacity.
pub fn shapes(capacity: u32) -> [(&'static str, Shape); 10] {
    type Prefix = Key<Shared<Address>>;
    let table = Shape::of::<Identity, Sighting>(MapType::LruHash, 0, 0);
    [
        (
            "TABLE",
            Shape {
                entries: capacity,
                ..table
            },
        ),
        ("POLICY", Shape::of::<u32, Policy>(MapType::Array, 1, 0)),
        (
            "TRUSTED",
            Shape::of::<Prefix, u8>(MapType::LpmTrie, 2 * MAX_TRUSTED_RELAYS, NO_PREALLOC),
        ),
        (
            "COUNTERS",
            Shape::of::<u32, InterfaceCounters>(MapType::PerCpuArray, MAX_INTERFACES, 0),
        ),
        (
            "INTERFACES",
            Shape::of::<u32, InterfaceNote>(MapType::Array, MAX_INTERFACES, 0),
        ),
        (
            "RELAYS",
            Shape::of::<Address, RelayCounters>(MapType::PerCpuHash, MAX_RELAYS, 0),
        ),
        (
            "OTHER_RELAYS",
            Shape::of::<u32, RelayCounters>(MapType::PerCpuArray, 1, 0),
        ),
        (
            "EVENTS",
            Shape::of::<(), ()>(MapType::RingBuf, RING_BYTES, 0),
        ),
        (
            "EVENTS_WANTED",
            Shape::of::<u32, Wanted>(MapType::Array, 1, 0),
        ),
        (
            "LOST_EVENTS",
            Shape::of::<u32, u64>(MapType::PerCpuArray, 1, 0),
        ),
    ]
}

/// Pinned maps, or why they cannot be used.
pub enum Found {
    /// As they should be.
    Usable(Box<SharedMaps>),
    /// Others are needed, for this reason.
    Unusable(String),
}

/// Looks at the maps pinned in this folder.
///
/// # Errors
///
/// Where one is there but cannot be opened, such as for want of privileges.
pub fn look(folder: &Path, capacity: u32) -> Result<Found> {
    for (name, wanted) in shapes(capacity) {
        let pin = folder.join(name);
        let shown = pin.display();
        let found = match MapInfo::from_pin(&pin) {
            Ok(info) => Shape::of_map(&info)?,
            Err(MapError::SyscallError(SyscallError { io_error, .. }))
                if io_error.kind() == ErrorKind::NotFound =>
            {
                return Ok(Found::Unusable(format!("the map {shown} is missing")));
            }
            Err(error) => {
                return Err(error)
                    .with_context(|| privileges::advice(&format!("open the map {shown}")));
            }
        };
        if name == "TABLE"
            && found.entries != capacity
            && found
                == (Shape {
                    entries: found.entries,
                    ..wanted
                })
        {
            let before = found.entries;
            return Ok(Found::Unusable(format!(
                "--capacity is {capacity}, and was {before}"
            )));
        }
        if found != wanted {
            return Ok(Found::Unusable(format!(
                "the map {shown} is of another kind ({found}; not {wanted})"
            )));
        }
    }
    let maps = SharedMaps::open(folder)?;
    // Its key would make every message look like every other.
    if Window::new(maps.policy()?.window().length()).is_none() {
        return Ok(Found::Unusable(
            "the pinned policy was never written".to_owned(),
        ));
    }
    Ok(Found::Usable(Box::new(maps)))
}
