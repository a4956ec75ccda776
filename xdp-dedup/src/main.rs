//! The `xdp-dedup` command.

use std::process::ExitCode;

use clap::Parser as _;
use xdp_dedup::cli::{Cli, Command};

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => xdp_dedup::run::run(args),
        Command::Replay(args) => xdp_dedup::replay::run(&args),
        Command::Bench(args) => xdp_dedup::bench::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line: what was tried, and the causes behind it.
            eprintln!("xdp-dedup: {error:#}");
            ExitCode::FAILURE
        }
    }
}
