//! `cargo xtask`: the one entry point for every developer command of xdp-dedup.

mod cargo;
mod commands;
mod process;
mod setup;
mod workspace;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use commands::{bench, build, demo, lab, lint, package, test};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Developer commands of xdp-dedup",
    version
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Make ready what building the kernel program needs: bpf-linker and core's source
    ///
    /// Everything lands in target/setup; a second run does nothing. Where neither rustup nor apt
    /// can download, XDP_DEDUP_RUST_SRC names core's source: the `library` folder of the pinned
    /// rustc's source, or a .tar.xz that holds one.
    Setup,
    /// Set up, then build target/release/xdp-dedup
    Build,
    /// Build, then make a Debian package of it, and print where it lies
    Package,
    /// Build, package, then run the tests and the lab's short run
    ///
    /// Arguments after `--` go to cargo test; then the lab is left out.
    Test {
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Check the formatting and run clippy, on the kernel program too
    Lint,
    /// Build, then run `xdp-dedup bench`; arguments go to it
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Show the filter at work on this machine
    Demo,
    /// Try the filter with real servers, relays and clients, first without it and then with it
    ///
    /// They come out of Debian's packages, which are unpacked in target/setup and not installed,
    /// and run in network namespaces that end with this command. Needs root.
    Lab(lab::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    let done = |()| ExitCode::SUCCESS;
    match task {
        Task::Setup => setup::run().map(done),
        Task::Build => build::run().map(done),
        Task::Package => package::run().map(done),
        Task::Test { args } => test::run(&args),
        Task::Lint => lint::run().map(done),
        Task::Bench { args } => bench::run(&args),
        Task::Demo => demo::run().map(done),
        Task::Lab(args) => lab::run(&args),
    }
}

/// Tells the developer what happens next; on stderr, which leaves stdout to the tools' own output.
fn say(line: impl std::fmt::Display) {
    eprintln!("xtask: {line}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_reach_the_tool_behind_a_command() {
        for (line, expected) in [
            (&["x", "test"][..], &[][..]),
            (&["x", "test", "--", "--test", "race"], &["--test", "race"]),
            (
                &["x", "test", "--", "race", "--", "--nocapture"],
                &["race", "--", "--nocapture"],
            ),
            (&["x", "bench", "--json"], &["--json"]),
            (&["x", "bench", "--", "--json"], &["--json"]),
        ] {
            let (Task::Test { args } | Task::Bench { args }) = Cli::parse_from(line).task else {
                panic!("{line:?} is neither test nor bench");
            };
            assert_eq!(args, expected, "{line:?}");
        }
    }
}
