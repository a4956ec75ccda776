//! xdp-dedup in userspace: the loader, the command line and the exporter around the kernel program.
//! Nothing here knows DHCPv6; that is `xdp-dedup-common`'s.

pub mod attachment;
pub mod bench;
pub mod check;
pub mod cli;
pub mod completions;
pub mod config;
pub mod detach;
pub mod events;
pub mod flags;
pub mod interfaces;
pub mod kernel;
pub mod layout;
pub mod log;
pub mod man;
pub mod maps;
pub mod metrics;
pub mod output;
pub mod pins;
pub mod policy;
pub mod privileges;
pub mod replay;
pub mod ring;
pub mod run;
pub mod seen;
pub mod server;
pub mod settings;
pub mod state;
pub mod stats;
pub mod status;
pub mod takeover;
pub mod told;
pub mod trace;
pub mod usage;
pub mod watchdog;
