//! `cargo xtask lab`: the build, then the lab of xdp-dedup-lab, whose scenarios show the filter in
//! front of real servers.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use xdp_dedup_lab::scenario::{ALL, Scenario};
use xdp_dedup_lab::{Options, report, software};

use crate::commands::build;
use crate::{process, setup, workspace};

#[derive(clap::Args, Default)]
pub struct Args {
    /// Print a JSON object a scenario, one a line
    #[arg(long)]
    json: bool,
    /// Play this scenario alone; can be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Fewer rows and shorter waits: under three minutes in all
    #[arg(long)]
    short: bool,
    /// Leave the last play up until Ctrl-C, to look around; with a single --only
    #[arg(long)]
    keep: bool,
    /// Write captures of every play to this folder
    #[arg(long, value_name = "DIR")]
    pcap: Option<PathBuf>,
}

impl Args {
    /// What `cargo xtask test` plays.
    pub fn short() -> Self {
        Self {
            short: true,
            ..Self::default()
        }
    }
}

/// What this machine or this user lacks for the lab, if anything.
pub fn missing() -> Option<String> {
    if !process::is_root() {
        return Some(
            "it makes network namespaces and loads XDP programs, which takes root".to_owned(),
        );
    }
    let tools = process::require(&["apt-get", "dpkg-deb"]);
    tools
        .err()
        .map(|error| format!("its programs come out of Debian's packages, and {error:#}"))
}

/// Builds, sets up and plays.
pub fn run(args: &Args) -> Result<ExitCode> {
    let scenarios = chosen(&args.only)?;
    if args.keep && scenarios.len() != 1 {
        bail!("--keep leaves one scenario up: say which by --only NAME");
    }
    if let Some(what) = missing() {
        bail!("the lab cannot be played: {what}");
    }
    if let Some(folder) = &args.pcap {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    build::run()?;
    let options = Options {
        system: set_up(&scenarios)?,
        binary: workspace::release_binary(),
        short: args.short,
        json: args.json,
        keep: args.keep,
        pcap: args.pcap.clone(),
    };
    Ok(if report::run(&options, &scenarios)? {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Sets up what `cargo xtask test` plays.
pub fn set_up_short() -> Result<()> {
    set_up(&chosen(&[])?).map(drop)
}

fn set_up(scenarios: &[&Scenario]) -> Result<PathBuf> {
    let mut packages = software::PACKAGES.to_vec();
    packages.extend(scenarios.iter().flat_map(|scenario| scenario.packages));
    setup::ensure_for_lab(&packages)
}

fn chosen(only: &[String]) -> Result<Vec<&'static Scenario>> {
    for name in only {
        if !ALL.iter().any(|scenario| scenario.name == name) {
            let names: Vec<_> = ALL.iter().map(|scenario| scenario.name).collect();
            bail!(
                "no scenario is called `{name}`: there are {}",
                names.join(", ")
            );
        }
    }
    Ok(ALL
        .iter()
        .filter(|scenario| match only {
            [] => !scenario.only_by_name,
            names => names.iter().any(|name| name == scenario.name),
        })
        .collect())
}
