//! The test bed: what the tests, the demo and the lab have in common. It knows nothing of xdp-dedup's
//! own crates, so that it also serves before they are built.

pub mod binary;
pub mod bpf_file_system;
pub mod bystander;
pub mod daemon;
pub mod dashboard;
pub mod frame;
pub mod harness;
pub mod model;
pub mod namespace;
pub mod prometheus;
pub mod receiver;
pub mod sender;
pub mod veth;
pub mod wait;
