//! The kernel program: it reads a frame, asks the decision in `xdp-dedup-common`, counts at one
//! exit, and turns the verdict into an XDP action. It decides nothing itself.

#![no_std]
#![no_main]
#![expect(
    internal_features,
    reason = "compare-and-swap, and whether a value is a constant, are intrinsics only"
)]
#![feature(asm_experimental_arch, core_intrinsics)]

mod bench;
mod events;
mod frame;
mod libxdp;
mod maps;
mod trace;

// See `trace`.
extern crate self as aya_log_ebpf;
use trace::aya_log as macro_support;

use core::arch::asm;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    macros::xdp,
    programs::XdpContext,
};
use xdp_dedup_common::{Decision, Packet as _, datagram::is_plain, decide};

use crate::{frame::Frame, maps::Maps};

/// The filter. `frags`: multi-buffer frames are welcome (Linux 5.18), so that a NIC with jumbo
/// frames takes the program.
#[xdp(frags)]
fn xdp_dedup(context: XdpContext) -> u32 {
    // `decide` begins with the same question: asked here, bystanders need neither the stack nor the
    // registers of the rest.
    if is_plain(&Frame::new(&context)).is_err() {
        return XDP_PASS;
    }
    filter(&context)
}

/// What candidates pay. A call of its own, which costs them 1 to 5 ns, by the CPU's mitigations for
/// returns; without it all traffic would pay for its registers.
#[inline(never)]
fn filter(context: &XdpContext) -> u32 {
    let frame = Frame::new(context);
    let decision = in_one_word(decide(&frame, &Maps));
    if decision.is_bystander() {
        return XDP_PASS;
    }
    maps::report_to_replay(&decision);
    // What was read whole lies in the first buffer, but perhaps for padding; to ask the kernel costs
    // 5 ns.
    let bytes = if decision.is_sighting() {
        frame.linear_length()
    } else {
        frame.length()
    };
    maps::count(&decision, bytes);
    events::report(context, decision);
    trace::decided(context, decision);
    if decision.is_drop() {
        XDP_DROP
    } else {
        XDP_PASS
    }
}

/// The decision itself. Lest the compiler takes the word apart again, and sets every part of it
/// before every check.
#[inline(always)]
fn in_one_word(decision: Decision) -> Decision {
    let mut word: u64 = bytemuck::cast(decision);
    // SAFETY: one operation on one register, which changes nothing.
    unsafe { asm!("{0} |= 0", inout(reg) word, options(pure, nomem, nostack)) };
    bytemuck::cast(word)
}

/// A loop without an exit, which the verifier refuses: a panic that can be reached cannot be loaded.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The atomics and several helpers are for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
