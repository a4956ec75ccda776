//! `run`: not here yet.
use clap::Args;
/// Arguments of `run`.
#[derive(Args, Debug)]
pub struct RunArgs {}
/// Runs it.
pub fn run(_args: RunArgs) -> anyhow::Result<()> {
    anyhow::bail!("not here yet")
}
