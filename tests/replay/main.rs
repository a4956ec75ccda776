//! The `replay` command, run as its users run it.

mod captures;
mod command;
mod damage;
mod engines;
mod formats;
mod long_captures;
mod oracle;
mod output_file;
mod pcap;
mod pcapng;

use std::process::ExitCode;

use testbed::harness;

fn main() -> ExitCode {
    let trials = [
        captures::trials(),
        engines::trials(),
        formats::trials(),
        damage::trials(),
        output_file::trials(),
        long_captures::trials(),
    ];
    harness::run(trials.into_iter().flatten().collect())
}
