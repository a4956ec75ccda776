//! Telling `events` of a frame, after all is decided and counted.

use core::{arch::asm, ptr::addr_of_mut};

use aya_ebpf::{
    EbpfContext as _,
    btf_maps::{Array, PerCpuArray, RingBuf},
    helpers::{bpf_ktime_get_ns, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    macros::btf_map,
    programs::XdpContext,
};
use xdp_dedup_common::{
    Decision,
    event::{Header, LONG, RING_BYTES, Record, SHORT, Wanted},
};

use crate::maps::interface_slot;

/// What is told, to the one who reads it.
#[btf_map]
static EVENTS: RingBuf<(), RING_BYTES> = RingBuf::new();

/// What somebody wants to be told; zeros while nobody listens.
#[btf_map]
static EVENTS_WANTED: Array<Wanted, 1> = Array::new();

/// What was wanted but found no room in [`EVENTS`].
#[btf_map]
static LOST_EVENTS: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Tells of a frame if somebody wants it.
#[inline(always)]
pub fn report(context: &XdpContext, decision: Decision) {
    let Some(wanted) = EVENTS_WANTED.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the lookup returned this pointer; whoever writes at the same time writes words.
    if unsafe { (*wanted).wants(decision, interface_slot()) } {
        tell(context, decision, wanted);
    }
}

/// What frames pay while somebody listens. A call of its own, so that others do not.
#[inline(never)]
fn tell(context: &XdpContext, decision: Decision, wanted: *mut Wanted) {
    // SAFETY: the helper takes no arguments and always succeeds.
    let time = unsafe { bpf_ktime_get_ns() };
    // SAFETY: as in `report`.
    unsafe {
        if (*wanted).is_over(time) {
            (*wanted).end();
            return;
        }
    }
    // SAFETY: the context is the one that the kernel called the program with.
    let length = unsafe { bpf_xdp_get_buff_len(context.as_ptr().cast()) } as u32;
    let header = Header {
        time,
        decision,
        slot: interface_slot(),
        length,
        captured: 0,
        reserved: 0,
    };
    let told = if length as usize <= SHORT {
        write::<SHORT>(context, header)
    } else {
        write::<LONG>(context, header)
    };
    if !told && let Some(lost) = LOST_EVENTS.get_ptr_mut(0) {
        // SAFETY: the lookup returned this pointer; nobody else writes to this CPU's value.
        unsafe { *lost += 1 };
    }
}

/// Puts a record into the ring; `false` where it is full.
#[inline(always)]
fn write<const N: usize>(context: &XdpContext, mut header: Header) -> bool {
    let Some(mut entry) = EVENTS.reserve_untyped::<Record<N>>(0) else {
        return false;
    };
    let record = entry.as_mut_ptr();
    let bytes = within::<N>(header.length as usize);
    // SAFETY: the record has room for so many bytes, which the verifier checks. What the helper does
    // not write stays as the ring has it, and is told apart by `captured`.
    unsafe {
        let frame = addr_of_mut!((*record).frame).cast();
        if bpf_xdp_load_bytes(context.as_ptr().cast(), 0, frame, bytes as u32) == 0 {
            header.captured = bytes as u32;
        }
        addr_of_mut!((*record).header).write(header);
    }
    entry.submit(0);
    true
}

/// The lesser of a length and `N`, and at least 1, as the verifier wants to see it: that of Linux 6.1
/// learns nothing from what is not zero, but knows what a mask leaves.
#[inline(always)]
fn within<const N: usize>(length: usize) -> usize {
    const { assert!(N.is_power_of_two()) };
    let mut last = length.min(N).wrapping_sub(1);
    // SAFETY: no operation on one register. The compiler forgets what it knows of it, and leaves the
    // mask in.
    unsafe { asm!("{0} += 0", inout(reg) last, options(pure, nomem, nostack)) };
    (last & (N - 1)) + 1
}
