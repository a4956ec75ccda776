//! The configuration file: TOML whose keys are the flags of `run`. Each key is handed to the command
//! line's own parser, so that both take the same values and give the same errors.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::flags::RunFlags;

/// A line of the file as a command line of its own.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(flatten)]
    flags: RunFlags,
}

/// Reads the flags that a configuration file sets.
///
/// # Errors
///
/// One line that names the file, the line and the key.
pub fn read(path: &Path) -> Result<RunFlags> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the configuration {}", path.display()))?;
    parse(&text).map_err(|(line, error)| error.context(format!("{}, line {line}", path.display())))
}

/// The flags that this text sets, or the line of the first error.
fn parse(text: &str) -> Result<RunFlags, (usize, anyhow::Error)> {
    let line_of = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        (
            line_of(offset),
            anyhow::anyhow!("{}", error.message().replace('\n', ", ")),
        )
    })?;
    let mut flags = RunFlags::default();
    for (key, value) in table.into_inner() {
        let line = line_of(key.span().start);
        let set = flags_of(key.get_ref(), &value).map_err(|error| (line, error))?;
        flags = flags.or(set);
    }
    Ok(flags)
}

/// What one key sets.
fn flags_of(key: &str, value: &Spanned<DeValue<'_>>) -> Result<RunFlags> {
    let values = match value.get_ref() {
        DeValue::Array(values) => values.iter().collect::<Vec<_>>(),
        _ => vec![value],
    };
    if values.is_empty() {
        bail!("`{key}` has an empty list: give it a value, or leave it out");
    }
    let mut arguments = Vec::new();
    for value in values {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(number) => number.to_string(),
            DeValue::Boolean(truth) => truth.to_string(),
            _ => bail!("`{key}` wants a string, a number, true or false, or a list of them"),
        };
        arguments.push(format!("--{key}={text}"));
    }
    match Line::try_parse_from(arguments) {
        Ok(line) => Ok(line.flags),
        Err(error) if error.kind() == clap::error::ErrorKind::UnknownArgument => {
            bail!("there is no key `{key}`; the keys are the flags of `xdp-dedup run`")
        }
        Err(error) => {
            let text = error.render().to_string();
            let first = text.lines().next().unwrap_or_default();
            bail!("{}", first.strip_prefix("error: ").unwrap_or(first))
        }
    }
}
