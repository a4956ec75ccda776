//! The scenarios: what each is called, what is expected of it, and the rows that it is played in.

mod boot;
mod bystanders;
mod exchange;
mod failover;
mod firmware;
mod load;
mod lossy;
mod mlag;
mod relays;
mod servers;
mod strict_client;
mod two_nics;
mod vrrp;
mod xdp_loader;

use anyhow::Result;

use crate::play::{Play, Seen};

/// A scenario.
pub struct Scenario {
    /// Its name, for `--only`.
    pub name: &'static str,
    /// What is expected, in a line: without the filter, and with it.
    pub expected: &'static str,
    /// How many rows may be played at once.
    pub at_once: usize,
    /// Packages that its machines need besides the lab's.
    pub packages: &'static [&'static str],
    /// Whether it is left out unless asked for by name.
    pub only_by_name: bool,
    /// Its rows, by the time that there is.
    pub rows: fn(short: bool) -> Vec<Row>,
}

/// One row: it is played without the filter, then with it.
pub struct Row {
    pub(crate) name: String,
    pub(crate) play: Box<PlayRow>,
}

type PlayRow = dyn Fn(&Play<'_>) -> Result<Seen> + Send + Sync;

impl Row {
    /// A row of this name, played so.
    pub fn new(
        name: impl Into<String>,
        play: impl Fn(&Play<'_>) -> Result<Seen> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            play: Box::new(play),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// All scenarios, in the order in which they are played.
pub const ALL: &[Scenario] = &[
    mlag::SCENARIO,
    servers::SCENARIO,
    relays::SCENARIO,
    strict_client::SCENARIO,
    firmware::SCENARIO,
    failover::SCENARIO,
    lossy::SCENARIO,
    vrrp::SCENARIO,
    two_nics::SCENARIO,
    bystanders::SCENARIO,
    load::SCENARIO,
    xdp_loader::SCENARIO,
];
