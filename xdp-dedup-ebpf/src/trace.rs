//! Trace lines of the kernel program, for debugging: aya-log's, but for the map that they go through.
//!
//! The crate aya-log-ebpf defines that map in a way that libbpf refuses since its version 1.0, and with
//! it every object in which it stands. So [`aya_log`] stands in for that crate: aya-log's macros and
//! types, and the same map with the same name defined as all others are. `aya_log::EbpfLogger` in
//! userspace reads it as its own.

use aya_ebpf::programs::XdpContext;
use aya_log_ebpf_macros::trace;
use xdp_dedup_common::Decision;

/// What the macros expand to names a crate `aya_log_ebpf`, which `main.rs` says is this one.
pub mod aya_log {
    use aya_ebpf::{Global, btf_maps::RingBuf, macros::btf_map};
    pub use aya_log_common::{
        Argument, DefaultFormatter, DisplayHint, Field, Header, Level, LogValueLength,
    };

    /// The lines, to the daemon that loaded this instance.
    #[btf_map]
    pub static AYA_LOGS: RingBuf<(), { 1 << 17 }> = RingBuf::new();

    /// The highest level that is logged, none unless the loader says so. Read-only, so the verifier
    /// drops the branch not taken.
    #[unsafe(no_mangle)]
    pub static AYA_LOG_LEVEL: Global<u8> = Global::new(0);

    /// Whether lines of this level are logged.
    #[inline(always)]
    pub fn level_enabled(level: Level) -> bool {
        level as u8 <= AYA_LOG_LEVEL.load()
    }
}

/// Logs what was decided of a frame, as the decision's one word: names would be pointers to text, which
/// the kernel program cannot have in a table. The daemon says it in words.
#[inline(always)]
pub fn decided(context: &XdpContext, decision: Decision) {
    if aya_log::level_enabled(aya_log::Level::Trace) {
        line(context, bytemuck::cast(decision));
    }
}

#[inline(never)]
fn line(context: &XdpContext, decision: u64) {
    trace!(context, target: "xdp_dedup", "decision {}", decision);
}
