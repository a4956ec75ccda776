//! The command line: public interface, scripts and dashboards depend on these names.

use std::fmt;

use clap::{Parser, Subcommand};

use crate::{bench::BenchArgs, replay::ReplayArgs, run::RunArgs};

/// Drops the second relay's copy of a DHCPv6 client message at the NIC, in front of any server.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Attach the filter to interfaces and serve its metrics, until SIGINT or SIGTERM
    Run(RunArgs),
    /// Show what the filter decides of each frame of a capture; needs no NIC
    Replay(ReplayArgs),
    /// Measure what the filter costs per frame on this machine
    Bench(BenchArgs),
}

/// A command line that asks for something impossible, as the exit code tells.
#[derive(Debug)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// A [`UsageError`].
pub(crate) fn usage(what: impl Into<String>) -> anyhow::Error {
    UsageError(what.into()).into()
}
