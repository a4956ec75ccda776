//! The `xdp-dedup` command.

use std::process::ExitCode;

use clap::{Parser as _, error::ErrorKind};
use xdp_dedup::{
    cli::{Cli, Command},
    log,
    usage::UsageError,
};

const WRONG_USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return wrong_usage(&error),
    };
    let result = match cli.command {
        Command::Run(args) => xdp_dedup::run::run(args).map(done),
        Command::Replay(args) => xdp_dedup::replay::run(&args).map(done),
        Command::Status(args) => xdp_dedup::status::run(&args),
        Command::Stats(args) => xdp_dedup::stats::run(&args).map(done),
        Command::Seen(args) => xdp_dedup::seen::run(&args).map(done),
        Command::Events(args) => xdp_dedup::events::run(&args).map(done),
        Command::Check(args) => xdp_dedup::check::run(&args).map(done),
        Command::Completions(args) => xdp_dedup::completions::run(&args).map(done),
        Command::Man(args) => xdp_dedup::man::run(&args).map(done),
        Command::Detach(args) => xdp_dedup::detach::run(&args).map(done),
        Command::Bench(args) => xdp_dedup::bench::run(&args).map(done),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            // One line: what was tried, and the causes behind it.
            eprintln!("{}xdp-dedup: {error:#}", log::error_prefix());
            if error.is::<UsageError>() {
                WRONG_USAGE.into()
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

const fn done((): ()) -> ExitCode {
    ExitCode::SUCCESS
}

/// Help and version in full, an error in one line like all others.
fn wrong_usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        error.exit();
    }
    let text = error.render().to_string();
    let first: Vec<_> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let what = first.join(" ");
    eprintln!(
        "xdp-dedup: {}; see --help",
        what.strip_prefix("error: ").unwrap_or(&what)
    );
    WRONG_USAGE.into()
}
