//! What the program shares with userspace and with its instances on other interfaces.

use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg},
    net::Ipv6Addr,
};

use aya_ebpf::{
    Global,
    bindings::BPF_NOEXIST,
    btf_maps::{Array, LpmTrie, LruHashMap, PerCpuArray, PerCpuHashMap, lpm_trie::Key},
    helpers::bpf_ktime_get_ns,
    macros::btf_map,
};
use xdp_dedup_common::{
    Decision, Entry, Identity, Policy, Refused, Sighting, Surroundings,
    counters::{InterfaceCounters, MAX_RELAYS, RelayCounters},
    identity::Address,
    interface::{InterfaceNote, MAX_INTERFACES},
    replay::ReplaySlot,
    time::Timestamp,
};

/// Transactions that passed; the loader sets its size.
#[btf_map]
static TABLE: LruHashMap<Identity, Sighting, 65536> = LruHashMap::new();

/// The policy in force, one value.
#[btf_map]
static POLICY: Array<Policy, 1> = Array::new();

/// The trusted relays, by prefix; the values mean nothing. Looked into only where the policy says so.
/// Room for twice as many as there may be: while they change, the old and the new ones are in it.
#[btf_map]
static TRUSTED: LpmTrie<Address, u8, 2048> = LpmTrie::new();

/// What was counted, one value an interface.
#[btf_map]
static COUNTERS: PerCpuArray<InterfaceCounters, MAX_INTERFACES> = PerCpuArray::new();

/// What userspace notes of each interface, in the order of [`COUNTERS`]; not read here.
#[btf_map]
static INTERFACES: Array<InterfaceNote, MAX_INTERFACES> = Array::new();

/// Client messages by relay. None is ever evicted: who comes when it is full counts among the others.
#[btf_map]
static RELAYS: PerCpuHashMap<Address, RelayCounters, MAX_RELAYS> = PerCpuHashMap::new();

/// Client messages of the relays that found no room in [`RELAYS`].
#[btf_map]
static OTHER_RELAYS: PerCpuArray<RelayCounters, 1> = PerCpuArray::new();

/// Clock and decision under `replay`; not used in the live program.
#[btf_map]
static REPLAY: Array<ReplaySlot, 1> = Array::new();

/// Which value of [`COUNTERS`] is this instance's.
#[unsafe(no_mangle)]
static INTERFACE_SLOT: Global<u32> = Global::new(0);

/// Whether messages are counted in [`RELAYS`]. Read-only, as the next one.
#[unsafe(no_mangle)]
static RELAY_COUNTERS: Global<u8> = Global::new(0);

/// Whether [`REPLAY`] is the clock. Read-only, so the verifier drops the branch not taken.
#[unsafe(no_mangle)]
static REPLAY_CLOCK: Global<u8> = Global::new(0);

const EEXIST: i32 = 17;

/// The maps and the kernel's clock, as the decision wants them.
pub struct Maps;

impl Surroundings for Maps {
    type Entry = TableEntry;

    #[inline(always)]
    fn policy(&self) -> Option<&Policy> {
        POLICY.get(0)
    }

    #[inline(always)]
    fn is_trusted(&self, relay: Address) -> bool {
        TRUSTED.get(&Key::new(Ipv6Addr::BITS, relay)).is_some()
    }

    #[inline(always)]
    fn counts_relays(&self) -> bool {
        RELAY_COUNTERS.load() != 0
    }

    #[inline(always)]
    fn count_relay(&self, relay: Address, decision: &Decision) {
        let counters = RELAYS.get_ptr_mut(relay).or_else(|| {
            let others = OTHER_RELAYS.get_ptr_mut(0)?;
            // SAFETY: as in `count`.
            if unsafe { (*others).is_zero() } {
                // Another CPU may be doing the same: whoever comes first makes the entry of both.
                let _ = RELAYS.insert(relay, RelayCounters::default(), BPF_NOEXIST.into());
                RELAYS.get_ptr_mut(relay).or(Some(others))
            } else {
                // There was no room before, and there never is again: to be refused once more costs.
                Some(others)
            }
        });
        if let Some(counters) = counters {
            // SAFETY: as in `count`.
            unsafe { (*counters).count(decision) };
        }
    }

    #[inline(always)]
    fn now(&self) -> Timestamp {
        if REPLAY_CLOCK.load() != 0 {
            return REPLAY.get(0).map_or(Timestamp(0), ReplaySlot::now);
        }
        // SAFETY: the helper takes no arguments and always succeeds.
        Timestamp::from_nanoseconds(unsafe { bpf_ktime_get_ns() })
    }

    #[inline(always)]
    fn recall(&self, identity: &Identity) -> Option<Self::Entry> {
        TABLE.get_ptr_mut(identity).map(TableEntry)
    }

    #[inline(always)]
    fn remember(&self, identity: &Identity, sighting: Sighting) -> Result<(), Refused> {
        TABLE
            .insert(identity, sighting, u64::from(BPF_NOEXIST))
            .map_err(|error| {
                if error == -EEXIST {
                    Refused::Exists
                } else {
                    Refused::Failed
                }
            })
    }
}

/// An entry of [`TABLE`]. The kernel may give it to another identity at any time; its tag then does
/// not match, and the message passes.
pub struct TableEntry(*mut Sighting);

impl Entry for TableEntry {
    #[inline(always)]
    fn load(&self) -> Sighting {
        // SAFETY: the lookup returned this pointer; the kernel keeps the memory of an LRU map's
        // values until the map goes. Volatile, for other CPUs write to it.
        unsafe { self.0.read_volatile() }
    }

    #[inline(always)]
    fn replace(&self, old: Sighting, new: Sighting) -> bool {
        const SEQ_CST: AtomicOrdering = AtomicOrdering::SeqCst;
        // SAFETY: as for `load`; values of the map are aligned to 8 bytes. Sequentially consistent,
        // since LLVM 22 miscompiles relaxed read-modify-writes whose result is used.
        unsafe { atomic_cxchg::<u64, SEQ_CST, SEQ_CST>(self.0.cast(), old.0, new.0).1 }
    }
}

/// The next of a row of numbers, for `bench`; it has the replay slot's clock to itself.
#[inline(always)]
pub fn next_number() -> [u8; 3] {
    let Some(slot) = REPLAY.get_ptr_mut(0) else {
        return [0; 3];
    };
    // SAFETY: the lookup returned this pointer; `bench` runs one program at a time.
    unsafe { (*slot).count_up() }
}

/// Which value of [`COUNTERS`] is this instance's.
#[inline(always)]
pub fn interface_slot() -> u32 {
    INTERFACE_SLOT.load()
}

/// Counts a frame. Each CPU has its own counters and a program is not interrupted by itself, so no
/// atomics are needed.
#[inline(always)]
pub fn count(decision: &Decision, bytes: usize) {
    if let Some(counters) = COUNTERS.get_ptr_mut(interface_slot()) {
        // SAFETY: the lookup returned this pointer; nobody else writes to this CPU's value.
        unsafe { (*counters).count(decision, bytes) };
    }
}

/// Tells `replay` what was decided.
#[inline(always)]
pub fn report_to_replay(decision: &Decision) {
    if REPLAY_CLOCK.load() == 0 {
        return;
    }
    if let Some(slot) = REPLAY.get_ptr_mut(0) {
        // SAFETY: the lookup returned this pointer; `replay` runs one frame at a time.
        unsafe { (*slot).decided(decision) };
    }
}
