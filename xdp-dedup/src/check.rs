//! `check`: whether `run` can work here, and what to do where not. It changes nothing: no interface is
//! touched, nothing stays loaded or pinned.

mod interface;
mod kernel;
mod privileges;
mod report;
mod resources;

use std::io::Write as _;

use anyhow::{Context as _, Result, bail};
use clap::Args;

use self::report::Report;
use crate::{
    flags::{ModeOf, parse_mode},
    interfaces, output, settings,
};

/// Arguments of `check`.
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Look at this interface too; can be given several times, for those that are to share a table
    #[arg(short, long = "interface", value_name = "IFACE")]
    interfaces: Vec<String>,

    /// The mode that `run` is to have: `native` or `generic`; IFACE=MODE says it of one interface, and
    /// can be given several times [default: native]
    #[arg(long = "mode", value_name = "[IFACE=]MODE", value_parser = parse_mode)]
    modes: Vec<ModeOf>,

    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

/// Looks, and prints a line for each thing that it looked at.
///
/// # Errors
///
/// Where something failed, or the command line contradicts itself.
pub fn run(args: &CheckArgs) -> Result<()> {
    let wanted = settings::with_modes(args.interfaces.clone(), &args.modes)?;
    // Before there is a runtime: it starts a child.
    let privileges = privileges::look();
    let mut report = Report::default();
    let tried = kernel::look(&privileges);
    let resources = resources::look();
    report.0.extend(privileges.lines);
    report.0.extend(tried);
    report.0.extend(resources.lines.clone());
    report.0.sort_by_key(|line| line.subject);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let names = runtime.block_on(async {
        let all = interfaces::all().await?;
        let lines = interface::look(&wanted, &all, &resources).await;
        report.0.extend(lines);
        let names: Vec<_> = all.into_values().map(|interface| interface.name).collect();
        anyhow::Ok(names)
    })?;
    output::print(|out| {
        if args.json {
            report.0.iter().try_for_each(|line| output::json(out, line))
        } else {
            write!(out, "{report}")
        }
    })?;
    if wanted.is_empty() && !args.json {
        eprintln!(
            "No interface was looked at: name those that `run` is to have with -i IFACE; there are {}.",
            names.join(", ")
        );
    }
    let failures = report.failures();
    let count = report.0.len();
    if failures > 0 {
        bail!("{failures} of {count} checks failed");
    }
    Ok(())
}
