//! The kernel program, loaded: its maps as typed values, its runs outside any NIC.

use std::{
    collections::BTreeMap,
    net::Ipv6Addr,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, EbpfError, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{
        Array, HashMap, MapData, MapError, PerCpuArray, PerCpuHashMap,
        lpm_trie::{Key, LpmTrie},
    },
    pin::PinError,
    programs::Xdp,
};
use bytemuck::Zeroable as _;
use nix::unistd::{SysconfVar, sysconf};
use xdp_dedup_common::{
    Identity, Policy, Reason, Sighting, Verdict,
    counters::{InterfaceCounters, RelayCounters},
    identity::Address,
    replay::ReplaySlot,
    time::Timestamp,
    trusted::Prefix,
};

use crate::{policy::Rules, privileges};

/// The object that `build.rs` compiled.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp-dedup-ebpf"));

/// Entries of the table unless `--capacity` says otherwise.
pub const DEFAULT_CAPACITY: u32 = 65536;

/// Most interfaces that can share one table: the values in the kernel program's counter map.
pub const MAX_INTERFACES: usize = 64;

/// Most prefixes of trusted relays: the room in the kernel program's map.
pub const MAX_TRUSTED_RELAYS: usize = 1024;

/// Names of the maps that all instances of the program share when they are pinned, and of their pins.
pub const SHARED_MAPS: [&str; 6] = [
    "TABLE",
    "POLICY",
    "TRUSTED",
    "COUNTERS",
    "RELAYS",
    "OTHER_RELAYS",
];

/// What the program's `XDP_PASS` and `XDP_DROP` are (`enum xdp_action`, linux/bpf.h).
pub const XDP_DROP: u32 = 1;
/// See [`XDP_DROP`].
pub const XDP_PASS: u32 = 2;

/// A value of `xdp-dedup-common` in a map.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Shared<T>(T);

// SAFETY: `bytemuck::Pod` promises what `aya::Pod` asks for: any bytes are a value, and there is no
// padding. Both sides of the map compile the type from the same source.
unsafe impl<T: bytemuck::Pod> aya::Pod for Shared<T> {}

/// Where the program takes the time from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The kernel's monotonic clock.
    Live,
    /// The one that [`Kernel::decide_at`] sets: it also tells the reason of each decision.
    Replay,
}

/// How to load the program.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions<'a> {
    /// Entries of the table.
    pub capacity: u32,
    /// The interface's place in the counters, below [`MAX_INTERFACES`].
    pub interface_slot: u32,
    /// Where the time comes from.
    pub clock: Clock,
    /// Whether messages are counted by relay.
    pub relay_counters: bool,
    /// A folder on a BPF file system through which instances share their maps; without one, this
    /// instance has maps of its own.
    pub pins: Option<&'a Path>,
}

/// One run of a program outside any NIC.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// What the program returned, such as [`XDP_PASS`].
    pub action: u32,
    /// Mean time of one run.
    pub duration: Duration,
}

/// Client messages by relay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayTally {
    /// Those of the first relays that were seen, by their addresses.
    pub relays: BTreeMap<Ipv6Addr, RelayCounters>,
    /// Those of all others.
    pub others: RelayCounters,
}

/// The programs in the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The filter.
    Filter,
    /// The empty program that `bench` compares with.
    BenchEmpty,
    /// The filter for `bench`, where each run sees a new message.
    BenchFirst,
}

impl Program {
    const fn name(self) -> &'static str {
        match self {
            Self::Filter => "xdp_dedup",
            Self::BenchEmpty => "bench_empty",
            Self::BenchFirst => "bench_first",
        }
    }
}

/// The loaded kernel program with its maps. Dropping it unloads it, unless a link still holds it.
pub struct Kernel {
    object: Ebpf,
    capacity: u32,
    policy: Mutex<Array<MapData, Shared<Policy>>>,
    trusted: Mutex<LpmTrie<MapData, Shared<Address>, u8>>,
    replay: Array<MapData, Shared<ReplaySlot>>,
    counters: PerCpuArray<MapData, Shared<InterfaceCounters>>,
    relays: PerCpuHashMap<MapData, Shared<Address>, Shared<RelayCounters>>,
    other_relays: PerCpuArray<MapData, Shared<RelayCounters>>,
    table: HashMap<MapData, Shared<Identity>, Shared<Sighting>>,
}

impl Kernel {
    /// Loads the program under `policy`.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses a map or the program; a lack of privileges is named.
    pub fn load(options: &LoadOptions<'_>, policy: &Policy) -> Result<Self> {
        let replay_clock = u8::from(options.clock == Clock::Replay);
        let relay_counters = u8::from(options.relay_counters);
        let mut loader = EbpfLoader::new();
        loader
            .override_global("INTERFACE_SLOT", &options.interface_slot, true)
            .override_global("REPLAY_CLOCK", &replay_clock, true)
            .override_global("RELAY_COUNTERS", &relay_counters, true)
            .map_max_entries("TABLE", options.capacity);
        if let Some(folder) = options.pins {
            for map in SHARED_MAPS {
                loader.map_pin_path(map, folder.join(map));
            }
        }
        let mut object = loader
            .load(OBJECT)
            .map_err(short_map_error)
            .with_context(|| privileges::advice("create the BPF maps"))?;
        let mut take = |map: &str| {
            object
                .take_map(map)
                .with_context(|| format!("no map {map}"))
        };
        let mut kernel = Self {
            capacity: options.capacity,
            policy: Mutex::new(take("POLICY")?.try_into()?),
            trusted: Mutex::new(take("TRUSTED")?.try_into()?),
            replay: take("REPLAY")?.try_into()?,
            counters: take("COUNTERS")?.try_into()?,
            relays: take("RELAYS")?.try_into()?,
            other_relays: take("OTHER_RELAYS")?.try_into()?,
            table: take("TABLE")?.try_into()?,
            object,
        };
        kernel.set_policy(policy)?;
        // Before the first frame: the program passes everything while there is no policy.
        kernel
            .xdp_mut(Program::Filter)?
            .load()
            .map_err(short_verifier_log)?;
        Ok(kernel)
    }

    /// Loads the programs of `bench` too.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses one.
    pub fn load_bench(&mut self) -> Result<()> {
        for program in [Program::BenchEmpty, Program::BenchFirst] {
            self.xdp_mut(program)?.load().map_err(short_verifier_log)?;
        }
        Ok(())
    }

    /// Puts another policy in force, for all instances that share the map; nothing is forgotten.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the update.
    pub fn set_policy(&self, policy: &Policy) -> Result<()> {
        // Whoever panicked with it has written a whole policy or none.
        let mut map = self.policy.lock().unwrap_or_else(PoisonError::into_inner);
        map.set(0, Shared(*policy), 0)
            .context("cannot write the policy map")
    }

    /// Puts another policy and other trusted relays in force. At no time is a relay that both the
    /// old and the new ones trust taken for an untrusted one.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses an update.
    pub fn set_rules(&self, rules: &Rules) -> Result<()> {
        let refused = "cannot write the map of trusted relays";
        let mut map = self.trusted.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted: Vec<_> = rules.trusted_relays.iter().map(key_of).collect();
        for key in &wanted {
            map.insert(key, 1, 0).context(refused)?;
        }
        self.set_policy(&rules.policy)?;
        let wanted = |key: &Key<Shared<Address>>| wanted.iter().any(|other| is_same(key, other));
        let old: Vec<_> = map.keys().flatten().filter(|key| !wanted(key)).collect();
        for key in old {
            map.remove(&key).context(refused)?;
        }
        Ok(())
    }

    /// The policy in force.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the look-up.
    pub fn policy(&self) -> Result<Policy> {
        let map = self.policy.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(map.get(&0, 0).context("cannot read the policy map")?.0)
    }

    /// What the interface in this slot has counted, on all CPUs together.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the look-up.
    pub fn counters(&self, interface_slot: u32) -> Result<InterfaceCounters> {
        let per_cpu = self
            .counters
            .get(&interface_slot, 0)
            .context("cannot read the counters")?;
        let mut sum = InterfaceCounters::zeroed();
        for counters in per_cpu.iter() {
            sum.add(&counters.0);
        }
        Ok(sum)
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

    /// Runs a program over `frame`, `repeat` times, without a NIC (`BPF_PROG_TEST_RUN`).
    ///
    /// # Errors
    ///
    /// Where the kernel refuses; a frame must have at least 14 bytes.
    pub fn run(&self, program: Program, frame: &[u8], repeat: u32) -> Result<Run> {
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat,
            ..TestRunOptions::default()
        };
        let result = self
            .xdp(program)?
            .test_run(options)
            .with_context(|| format!("BPF_PROG_TEST_RUN of a frame of {} bytes", frame.len()))?;
        Ok(Run {
            action: result.return_value,
            duration: result.duration,
        })
    }

    /// What the filter decides of `frame`, received at `time`; with [`Clock::Replay`] only.
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run); also where the program's action contradicts its verdict.
    pub fn decide_at(&mut self, frame: &[u8], time: Timestamp) -> Result<(Verdict, Reason)> {
        self.replay
            .set(0, Shared(ReplaySlot::at(time)), 0)
            .context("cannot set the replay clock")?;
        let run = self.run(Program::Filter, frame, 1)?;
        let slot = self
            .replay
            .get(&0, 0)
            .context("cannot read the decision")?
            .0;
        let (verdict, reason) = slot
            .decision()
            .ok_or_else(|| anyhow!("the kernel program left no decision"))?;
        let expected = if verdict == Verdict::Drop {
            XDP_DROP
        } else {
            XDP_PASS
        };
        if run.action != expected {
            return Err(anyhow!(
                "verdict {verdict:?}, but XDP action {}",
                run.action
            ));
        }
        Ok((verdict, reason))
    }

    /// Bytes of a frame that `BPF_PROG_TEST_RUN` puts into its first buffer: a page less headroom
    /// and `struct skb_shared_info` (net/bpf/test_run.c). Longer frames get more buffers.
    pub fn linear_part_of_test_run() -> usize {
        const HEADROOM_AND_TAILROOM: usize = 256 + 320;
        let page = sysconf(SysconfVar::PAGE_SIZE)
            .ok()
            .flatten()
            .unwrap_or(4096);
        page as usize - HEADROOM_AND_TAILROOM
    }

    pub(crate) fn xdp_mut(&mut self, program: Program) -> Result<&mut Xdp> {
        let name = program.name();
        let program = self
            .object
            .program_mut(name)
            .with_context(|| format!("no program {name}"))?;
        Ok(program.try_into()?)
    }

    pub(crate) fn xdp(&self, program: Program) -> Result<&Xdp> {
        let name = program.name();
        let program = self
            .object
            .program(name)
            .with_context(|| format!("no program {name}"))?;
        Ok(program.try_into()?)
    }
}

fn key_of(prefix: &Prefix) -> Key<Shared<Address>> {
    Key::new(prefix.length(), Shared(prefix.address()))
}

fn is_same(a: &Key<Shared<Address>>, b: &Key<Shared<Address>>) -> bool {
    a.prefix_len() == b.prefix_len() && a.data().0 == b.data().0
}

/// The map and the kernel's reason, which the loader's own text says twice.
fn short_map_error(error: EbpfError) -> anyhow::Error {
    match error {
        EbpfError::MapError(MapError::CreateError { name, io_error }) => {
            anyhow::Error::new(io_error).context(format!("map {name}"))
        }
        EbpfError::MapError(MapError::PinError { name, error }) => {
            let name = name.unwrap_or_default();
            let cause = match error {
                PinError::SyscallError(error) => error.io_error.into(),
                other => anyhow!(other),
            };
            cause.context(format!("map {name} cannot be pinned"))
        }
        other => other.into(),
    }
}

/// The end of the verifier's log, where its reason stands, instead of all of it.
fn short_verifier_log(error: aya::programs::ProgramError) -> anyhow::Error {
    use aya::programs::ProgramError::LoadError;
    match error {
        LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            let lines: Vec<_> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(5)..].join(" | ");
            anyhow::Error::new(io_error)
                .context(format!("the verifier refused the program: {end}"))
                .context(privileges::advice("load the BPF program"))
        }
        other => other.into(),
    }
}
