//! Counts packets in a machine's stack, behind any XDP program and without a capture.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::machine::Machine;

/// Most time that a packet may take from one counter to another.
const UNDER_WAY: Duration = Duration::from_secs(5);

/// A counter, which stays for as long as its machine.
#[derive(Debug)]
pub struct Counter {
    machine: Machine,
    name: &'static str,
}

impl Counter {
    /// Counts from now on what comes in and matches this expression of nftables. Its name must be
    /// the only one of its kind on the machine.
    ///
    /// # Errors
    ///
    /// With nft's complaint.
    pub fn received(machine: &Machine, name: &'static str, what: &str) -> Result<Self> {
        Self::new(machine, name, "prerouting", what)
    }

    /// As [`received`](Self::received), of what the machine's own programs send.
    ///
    /// # Errors
    ///
    /// With nft's complaint.
    pub fn sent(machine: &Machine, name: &'static str, what: &str) -> Result<Self> {
        Self::new(machine, name, "output", what)
    }

    fn new(machine: &Machine, name: &'static str, hook: &str, what: &str) -> Result<Self> {
        machine.nft(&format!(
            "table inet {name} {{
                counter seen {{}}
                chain {hook} {{
                    type filter hook {hook} priority raw
                    {what} counter name seen
                }}
            }}"
        ))?;
        Ok(Self {
            machine: machine.clone(),
            name,
        })
    }

    /// The packets so far.
    ///
    /// # Errors
    ///
    /// Where nft does not say.
    pub fn packets(&self) -> Result<u64> {
        let shown = self
            .machine
            .run("nft", ["list", "counter", "inet", self.name, "seen"])?;
        let mut words = shown.split_whitespace();
        words
            .find(|word| *word == "packets")
            .and_then(|_| words.next()?.parse().ok())
            .with_context(|| format!("nft does not count {}: {shown}", self.name))
    }

    /// What this one and another have counted, when the other has all that this one has; after five
    /// seconds, what they have.
    ///
    /// # Errors
    ///
    /// Where nft does not say.
    pub fn packets_here_and_there(&self, there: &Self) -> Result<[u64; 2]> {
        let start = Instant::now();
        loop {
            // In this order: more may come in between.
            let there = there.packets()?;
            let here = self.packets()?;
            if here == there || start.elapsed() > UNDER_WAY {
                return Ok([here, there]);
            }
        }
    }
}
