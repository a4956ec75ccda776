//! Programs for `bench` alone; nothing else loads them. The linker sorts programs by name, and who loads
//! the object without naming one gets the first: it has to be the filter.

use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, programs::XdpContext};

use crate::{filter, frame::Frame, maps};

/// Does nothing: what the others are compared with.
#[xdp(frags)]
fn xdp_empty(_context: XdpContext) -> u32 {
    XDP_PASS
}

/// The filter, on a message that is a new one at each run: the transaction-id of the reported frame is
/// counted up. The frame's checksum is a partial one, so it stays valid.
#[xdp(frags)]
fn xdp_first(context: XdpContext) -> u32 {
    // Untagged, no extension headers, option 9 first: Ethernet 14, IPv6 40, UDP 8, Relay-forward 34,
    // option header 4, message type 1.
    const TRANSACTION_ID: usize = 101;
    if !Frame::new(&context).write(TRANSACTION_ID, maps::next_number()) {
        return XDP_PASS;
    }
    filter(&context)
}
