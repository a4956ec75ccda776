//! The test bed: what the tests, the demo and the lab have in common. It knows nothing of xdp-dedup's
//! own crates, so that it also serves before they are built.

pub mod frame;
