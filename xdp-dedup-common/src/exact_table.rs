//! A table that evicts nothing that counts, for one thread: what stands in for the kernel's LRU map
//! elsewhere.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    vec::Vec,
};

use crate::{
    Decision, Entry, Identity, Policy, Refused, Sighting, Surroundings, counters::RelayCounters,
    identity::Address, time::Timestamp, trusted::Prefix,
};

/// Entries from which on the table looks for those that no longer count. The kernel's table would
/// have begun to evict by then.
const CROWDED: usize = 65536;

/// Policy, clock and table in ordinary memory: about 100 bytes for each message of the last 70
/// minutes.
pub struct ExactTable {
    policy: Policy,
    trusted_relays: Vec<Prefix>,
    now: Cell<Timestamp>,
    entries: RefCell<BTreeMap<Identity, Rc<Cell<Sighting>>>>,
    crowded: Cell<usize>,
    relays: RefCell<BTreeMap<Address, RelayCounters>>,
}

impl ExactTable {
    /// An empty table under `policy`; its clock stands at zero.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            trusted_relays: Vec::new(),
            now: Cell::default(),
            entries: RefCell::default(),
            crowded: Cell::new(CROWDED),
            relays: RefCell::default(),
        }
    }

    /// Sets the clock.
    pub fn set_time(&self, now: Timestamp) {
        self.now.set(now);
    }

    /// What was counted by relay.
    pub fn relays(&self) -> BTreeMap<Address, RelayCounters> {
        self.relays.borrow().clone()
    }

    /// Changes which relays are trusted.
    pub fn set_trusted_relays(&mut self, prefixes: &[Prefix]) {
        self.trusted_relays = prefixes.to_vec();
    }

    /// Changes the policy; what is remembered stays.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }
}

impl Surroundings for ExactTable {
    type Entry = Rc<Cell<Sighting>>;

    fn policy(&self) -> Option<&Policy> {
        Some(&self.policy)
    }

    fn is_trusted(&self, relay: Address) -> bool {
        self.trusted_relays
            .iter()
            .any(|prefix| prefix.contains(relay))
    }

    fn counts_relays(&self) -> bool {
        true
    }

    fn count_relay(&self, relay: Address, decision: &Decision) {
        let mut relays = self.relays.borrow_mut();
        relays.entry(relay).or_default().count(decision);
    }

    fn now(&self) -> Timestamp {
        self.now.get()
    }

    fn recall(&self, identity: &Identity) -> Option<Self::Entry> {
        self.entries.borrow().get(identity).cloned()
    }

    fn remember(&self, identity: &Identity, sighting: Sighting) -> Result<(), Refused> {
        let mut entries = self.entries.borrow_mut();
        if entries.len() >= self.crowded.get() {
            entries.retain(|_, sighting| !sighting.get().is_forgotten(self.now.get()));
            // Twice what counts: the search costs little per message then.
            self.crowded.set((2 * entries.len()).max(CROWDED));
        }
        match entries.entry(*identity) {
            std::collections::btree_map::Entry::Occupied(_) => Err(Refused::Exists),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                vacant.insert(Rc::new(Cell::new(sighting)));
                Ok(())
            }
        }
    }
}

impl Entry for Rc<Cell<Sighting>> {
    fn load(&self) -> Sighting {
        self.get()
    }

    fn replace(&self, old: Sighting, new: Sighting) -> bool {
        let unchanged = self.get() == old;
        if unchanged {
            self.set(new);
        }
        unchanged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        digest::{Digest, DigestKey},
        message::MessageHeader,
        sighting::FORGOTTEN,
    };

    #[test]
    fn a_crowded_table_forgets_what_no_longer_counts_and_nothing_else() {
        let table = ExactTable::new(Policy::new(DigestKey::FIXED));
        let remember = |number: usize, now: u64| {
            table.set_time(Timestamp(now));
            let identity = Identity {
                message: MessageHeader::from_wire((number as u32).to_be_bytes()),
                ..Identity::default()
            };
            let sighting = Sighting::first(Digest(0), Timestamp(now));
            table.remember(&identity, sighting).unwrap();
            table.entries.borrow().len()
        };
        let old = CROWDED / 2;
        (0..old).for_each(|number| assert_eq!(remember(number, 0), number + 1));
        // The last microsecond in which the first half counts.
        let still = FORGOTTEN.0 - 1;
        (old..=CROWDED).for_each(|number| assert_eq!(remember(number, still), number + 1));
        // It looks again when there are twice as many.
        (CROWDED + 1..2 * CROWDED).for_each(|number| {
            remember(number, FORGOTTEN.0);
        });
        assert_eq!(table.entries.borrow().len(), 2 * CROWDED);
        assert_eq!(remember(2 * CROWDED, FORGOTTEN.0), 2 * CROWDED - old + 1);
    }
}
