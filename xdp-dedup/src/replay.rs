//! `replay`: not here yet.
use clap::Args;
/// Arguments of `replay`.
#[derive(Args, Debug)]
pub struct ReplayArgs {}
/// Runs it.
pub fn run(_args: &ReplayArgs) -> anyhow::Result<()> {
    anyhow::bail!("not here yet")
}
