//! The whole decision of xdp-dedup, and nothing else: frame bytes, table, clock and policy go in,
//! a verdict and its reason come out.
//!
//! The same code runs in the kernel program, in `replay` and in the tests. It does
//! no I/O, keeps no clock and knows no map: those come in through [`Packet`] and [`Surroundings`].
//! It is the only place that knows DHCPv6 (RFC 9915).
//!
//! The data flows one way, a module a step:
//!
//! | step | module |
//! |---|---|
//! | frame bytes | [`packet`] |
//! | the UDP datagram to port 547 in them | [`datagram`], [`checksum`] |
//! | the client message inside the relays' envelopes | [`relay_forward`], [`message`] |
//! | whose message it is, and what it says | [`identity`], [`digest`] |
//! | when it was last seen | [`sighting`], [`time`], [`policy`] |
//! | what becomes of the frame | [`decision`], [`verdict`], [`counters`] |
//! | what to tell people of it | [`description`], [`event`] |

#![cfg_attr(not(any(test, feature = "std")), no_std)]
#![forbid(unsafe_code)]

pub mod checksum;
pub mod counters;
pub mod datagram;
pub mod decision;
pub mod description;
pub mod digest;
pub mod event;
#[cfg(feature = "std")]
pub mod exact_table;
pub mod identity;
pub mod interface;
pub mod message;
pub mod packet;
pub mod policy;
pub mod relay_forward;
pub mod replay;
pub mod sighting;
pub mod time;
pub mod trusted;
pub mod verdict;

pub use decision::{Decision, Entry, Refused, Surroundings, decide};
pub use identity::Identity;
pub use packet::Packet;
pub use policy::Policy;
pub use sighting::Sighting;
pub use verdict::{Reason, Verdict};
