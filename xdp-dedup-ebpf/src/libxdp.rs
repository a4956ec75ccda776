//! What libxdp reads where another tool loads the program beside others (`xdp-loader`): its place
//! among them, and when the next one is asked too. Only the types count, out of the object's BTF:
//! a number is the length of an array.

use core::ptr;

/// libxdp runs programs in the order of their priorities, 50 where none is given. Behind those that drop
/// (xdp-filter has 10): had a first copy passed here and been dropped there, the second one would be
/// gone too. Before those that count, redirect or answer: they see each message once.
const PRIORITY: usize = 20;

/// As `struct { __uint(priority, 20); __uint(XDP_PASS, 1); } XDP_RUN_CONFIG(xdp_dedup)` in C.
#[repr(C)]
#[expect(non_snake_case, reason = "libxdp knows the members by their names")]
struct RunConfig {
    priority: *const [i32; PRIORITY],
    /// What passes here is the next program's; what is dropped is gone.
    XDP_PASS: *const [i32; 1],
}

// SAFETY: the pointers are null, and nobody reads them.
unsafe impl Sync for RunConfig {}

/// Named after the program, [`xdp_dedup`](crate::xdp_dedup), with an underscore.
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".xdp_run_config")]
static _xdp_dedup: RunConfig = RunConfig {
    priority: ptr::null(),
    XDP_PASS: ptr::null(),
};
