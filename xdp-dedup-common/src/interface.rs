//! What userspace notes of each interface that shares the table, beside the interface's counters: the
//! kernel program does not read it.

use bytemuck::{Pod, Zeroable};

/// Most interfaces that can share a table.
pub const MAX_INTERFACES: usize = 64;

/// The interface of one slot, whose numbers mean what they mean in the kernel. All zeros for a free
/// slot. `repr(C)` without padding: the value of a map, read by other versions of the loader.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct InterfaceNote {
    /// Its index in its network namespace; 0 for a free slot.
    pub index: u32,
    /// 1 if the program runs in generic mode, 0 if natively.
    pub generic: u32,
    /// Id of the program on it.
    pub program_id: u32,
    /// Low half of its network namespace's cookie, which no other one gets until the machine is
    /// booted again (`SO_NETNS_COOKIE`, Linux 5.14).
    pub namespace: u32,
    /// Tag of the program on it.
    pub program_tag: u64,
    /// Since when it is attached, in microseconds since 1970.
    pub since: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_32_bytes_long() {
        assert_eq!(size_of::<InterfaceNote>(), 32);
    }
}
