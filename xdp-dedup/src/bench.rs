//! `bench`: not here yet.
use clap::Args;
/// Arguments of `bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {}
/// Runs it.
pub fn run(_args: &BenchArgs) -> anyhow::Result<()> {
    anyhow::bail!("not here yet")
}
