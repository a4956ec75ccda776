//! The command line: public interface, scripts and dashboards depend on these names.

use clap::{Parser, Subcommand};

use crate::{
    bench::BenchArgs, flags::RunArgs, replay::ReplayArgs, seen::SeenArgs, stats::StatsArgs,
    status::StatusArgs,
};

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
    /// Show what is attached where, under which policy; exits with 3 where nothing is
    Status(StatusArgs),
    /// Show what was counted, once or live with --watch
    Stats(StatsArgs),
    /// List the transactions that are remembered now, the newest first
    Seen(SeenArgs),
    /// Measure what the filter costs per frame on this machine
    Bench(BenchArgs),
}
