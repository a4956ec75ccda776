//! `completions`: what a shell needs to complete the command line, generated from the command line
//! itself.

use std::io::{self, Write as _};

use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use crate::cli::Cli;

/// Arguments of `completions`.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the completions.
///
/// # Errors
///
/// Where standard output cannot be written.
pub fn run(args: &CompletionsArgs) -> Result<()> {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    // By way of memory: the generator panics where it cannot write.
    let mut script = Vec::new();
    generate(args.shell, &mut command, &name, &mut script);
    let mut script = String::from_utf8(script)?;
    if args.shell == Shell::Bash {
        // clap-rs/clap#6421: it sets one name for a command, and looks for the other.
        let [set, looked_for] = ["__", "__subcmd__"].map(|hyphen| name.replace('-', hyphen));
        script = script.replace(&looked_for, &set);
    }
    io::stdout()
        .write_all(script.as_bytes())
        .context("cannot write the completions")
}
