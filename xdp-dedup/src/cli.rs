//! The command line: public interface, scripts and dashboards depend on these names.

use clap::{Parser, Subcommand};

use crate::{
    bench::BenchArgs, check::CheckArgs, completions::CompletionsArgs, detach::DetachArgs,
    events::EventsArgs, flags::RunArgs, man::ManArgs, replay::ReplayArgs, seen::SeenArgs,
    stats::StatsArgs, status::StatusArgs,
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
    /// Look whether `run` can work here, and what to do where it cannot
    ///
    /// Prints a line for each thing that it looked at, `ok`, `warn` or `fail`, with what was found and
    /// what to do about it: the kernel, which is asked to load the very program and to run it over
    /// frames, privileges and what takes them away, the BPF file system, the metrics port, and each
    /// interface that is named. Fails if one of them did. It changes nothing and attaches nothing;
    /// without privileges it says what it could not try.
    Check(CheckArgs),
    /// Show what is attached where, under which policy; exits with 3 where nothing is
    Status(StatusArgs),
    /// Show what was counted, once or live with --watch
    Stats(StatsArgs),
    /// List the transactions that are remembered now, the newest first
    Seen(SeenArgs),
    /// Follow what is dropped, or other frames to UDP port 547, one line each as they come
    ///
    /// The lines are those of `replay`, with the interface and the time since the copy that passed; from
    /// the moment on at which it starts, until Ctrl-C or SIGTERM. It works beside a running daemon, and
    /// on what `run --persist` left. Whether somebody follows changes nothing for any frame: the
    /// kernel program tells of it when all is decided, and where its ring buffer is full it goes on
    /// and counts an event as lost, which is said here. One `events` can follow at a time.
    Events(EventsArgs),
    /// Take off a filter that `run --persist` left, and remove its memory when none is left
    Detach(DetachArgs),
    /// Measure what the filter costs per frame on this machine
    Bench(BenchArgs),
    /// Print the completions of a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each command
    Man(ManArgs),
}
