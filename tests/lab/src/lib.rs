//! The lab: the servers, relays and clients that people run, in network namespaces of their own,
//! first without the filter and then with it.

pub mod counter;
pub mod dhcp;
pub mod kernel_object;
pub mod line;
pub mod machine;
pub mod network;
pub mod play;
pub mod priority;
pub mod process;
pub mod report;
pub mod scenario;
pub mod site;
pub mod software;
pub mod tally;
pub mod tap;
pub mod traffic;
pub mod trunk;

use std::path::PathBuf;

/// What the lab is to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the set-up put the system of the lab's machines.
    pub system: PathBuf,
    /// The `xdp-dedup` that is tried.
    pub binary: PathBuf,
    /// Whether to be done in under three minutes, rather than to look long.
    pub short: bool,
    /// Whether to print a JSON object a scenario instead of lines for people.
    pub json: bool,
    /// Whether to leave the last play up to look around.
    pub keep: bool,
    /// Where captures are to be written.
    pub pcap: Option<PathBuf>,
}
