//! The configuration that the package ships: it attaches to nothing before somebody edits it, and what
//! its lines say is so.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use clap::CommandFactory as _;
use libtest_mimic::Trial;
use testbed::{binary::binary, harness::trial};
use xdp_dedup::{cli::Cli, config};

const PATH: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../xdp-dedup/package/xdp-dedup.toml"
);

/// Lines that give an example, as their flags have no default.
const EXAMPLES: &[&str] = &["interface", "trusted-relay"];

pub fn trials() -> Vec<Trial> {
    vec![
        trial("the shipped configuration attaches to nothing", untouched),
        trial(
            "the shipped configuration has a line for each flag, with its default",
            each_line,
        ),
    ]
}

fn untouched() -> Result<()> {
    let output = Command::new(binary()?)
        .args(["run", "--config", PATH])
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(2) && said.contains("`interface` in the file"),
        "{output:?}"
    );
    Ok(())
}

fn each_line() -> Result<()> {
    let text = fs::read_to_string(PATH)?;
    // `#key = value`, where `# ` begins prose.
    let lines: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.strip_prefix('#')?.split_once(" = "))
        .filter(|(key, _)| !key.starts_with(' '))
        .collect();
    let cli = Cli::command();
    let run = cli.find_subcommand("run").context("no command run")?;
    let flags: BTreeMap<&str, String> = run
        .get_arguments()
        .filter_map(|flag| Some((flag.get_long()?, flag.get_help()?.to_string())))
        .filter(|(name, _)| *name != "config")
        .collect();
    let [in_file, in_command]: [BTreeSet<&str>; 2] = [
        lines.keys().copied().collect(),
        flags.keys().copied().collect(),
    ];
    ensure!(in_file == in_command, "{in_file:?}, and {in_command:?}");

    let file = tempfile::NamedTempFile::new()?;
    for (key, value) in lines {
        fs::write(&file, format!("{key} = {value}\n"))?;
        config::read(file.path())?;
        if EXAMPLES.contains(&key) {
            continue;
        }
        let help = flags[key].replace('\n', " ");
        let default = help
            .split_once("[default: ")
            .and_then(|(_, rest)| rest.strip_suffix(']'));
        // A flag without one is off unless given.
        let expected = default.unwrap_or("false");
        ensure!(
            value.trim_matches('"') == expected,
            "{key} = {value}: {help}"
        );
    }
    Ok(())
}
