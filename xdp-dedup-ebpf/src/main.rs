//! The kernel program: it reads a frame, asks the decision in `xdp-dedup-common`, counts at one
//! exit, and turns the verdict into an XDP action. It decides nothing itself.

#![no_std]
#![no_main]
#![expect(
    internal_features,
    reason = "compare-and-swap is an intrinsic only, on this target"
)]
#![feature(asm_experimental_arch, core_intrinsics)]

mod bench;
mod frame;
mod maps;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    macros::xdp,
    programs::XdpContext,
};
use xdp_dedup_common::{Packet as _, Reason, Verdict, decide};

use crate::{frame::Frame, maps::Maps};

/// The filter. `frags`: multi-buffer frames are welcome (Linux 5.18), so that a NIC with jumbo
/// frames takes the program.
#[xdp(frags)]
fn xdp_dedup(context: XdpContext) -> u32 {
    filter(&context)
}

#[inline(always)]
fn filter(context: &XdpContext) -> u32 {
    let frame = Frame::new(context);
    let decision = decide(&frame, &Maps);
    if decision.reason == Reason::NotDhcp {
        return XDP_PASS;
    }
    maps::report_to_replay(&decision);
    let (action, bytes) = match decision.verdict {
        Verdict::Pass | Verdict::WouldDrop => (XDP_PASS, frame.length()),
        // What is dropped was read whole: its first buffer is all of it, and asking costs 5 ns.
        Verdict::Drop => (XDP_DROP, frame.linear_length()),
    };
    maps::count(&decision, bytes);
    action
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
