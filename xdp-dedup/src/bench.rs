//! `bench`: what the filter costs per frame on this machine, beside an empty program.

use std::fmt;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use serde::Serialize;
use xdp_dedup_common::{
    Policy, Reason, Verdict,
    digest::DigestKey,
    policy::{EscalateEvery, Window},
};

use crate::kernel::{Clock, DEFAULT_CAPACITY, Kernel, LoadOptions, Program};

/// The frame of the README's first capture, with a partial checksum, as a relay on this host would
/// leave it. A test builds it anew and compares.
pub static REPORTED_FRAME: &[u8] = include_bytes!("bench/reported.frame");

/// Rounds of all paths.
const ROUNDS: usize = 25;
/// Runs of a program in one round.
const RUNS: u32 = 100_000;

/// Names of the paths, in the order of the output.
pub const PATHS: [&str; 5] = [
    "bystander_ipv4",
    "bystander_udp6",
    "duplicate",
    "duplicate_relay_counters",
    "first_full",
];

/// Arguments of `bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// What a path costs, medians in nanoseconds per frame.
#[derive(Clone, Copy, Debug, Serialize)]
struct Cost {
    path: &'static str,
    baseline_ns: f64,
    ns: f64,
    delta_ns: f64,
}

/// A way through the program.
struct Path {
    name: &'static str,
    program: Program,
    /// Whether the program counts by relay, too.
    relay_counters: bool,
    frame: Vec<u8>,
    /// What 99 of 100 runs must have been counted as, lest something else was measured.
    outcome: Option<(Reason, Verdict)>,
}

/// Measures all paths and prints what they cost.
///
/// # Errors
///
/// Where the kernel refuses the programs, or a run did not take the path that it should.
pub fn run(args: &BenchArgs) -> Result<()> {
    let costs = measure()?;
    if args.json {
        for cost in costs {
            println!("{}", serde_json::to_string(&cost)?);
        }
    } else {
        println!(
            "{:<24} {:>14} {:>10} {:>10}",
            "path", "empty program", "filter", "cost"
        );
        for cost in costs {
            println!("{cost}");
        }
    }
    Ok(())
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            baseline_ns,
            ns,
            delta_ns,
        } = self;
        write!(
            f,
            "{path:<24} {baseline_ns:>11.1} ns {ns:>7.1} ns {delta_ns:>+7.1} ns"
        )
    }
}

fn paths() -> Vec<Path> {
    // What the program looks at: ethertype and UDP destination port.
    let mut ipv4 = REPORTED_FRAME.to_vec();
    ipv4[12..14].copy_from_slice(&[0x08, 0x00]);
    let mut other_port = REPORTED_FRAME.to_vec();
    other_port[56..58].copy_from_slice(&5353_u16.to_be_bytes());
    let reported = || REPORTED_FRAME.to_vec();
    let filter = Program::Filter;
    let duplicate = Some((Reason::Duplicate, Verdict::Drop));
    let first = Some((Reason::First, Verdict::Pass));
    vec![
        Path {
            name: PATHS[0],
            program: filter,
            relay_counters: false,
            frame: ipv4,
            outcome: None,
        },
        Path {
            name: PATHS[1],
            program: filter,
            relay_counters: false,
            frame: other_port,
            outcome: None,
        },
        Path {
            name: PATHS[2],
            program: filter,
            relay_counters: false,
            frame: reported(),
            outcome: duplicate,
        },
        Path {
            name: PATHS[3],
            program: filter,
            relay_counters: true,
            frame: reported(),
            outcome: duplicate,
        },
        Path {
            name: PATHS[4],
            program: Program::BenchFirst,
            relay_counters: false,
            frame: reported(),
            outcome: first,
        },
    ]
}

fn load(relay_counters: bool) -> Result<Kernel> {
    let options = LoadOptions {
        capacity: DEFAULT_CAPACITY,
        interface_slot: 0,
        clock: Clock::Live,
        relay_counters,
        pins: None,
    };
    // Copies within a millisecond, as relays send them. Each time the window is over one frame passes
    // as a retransmission, one of some thousands.
    let policy = Policy::new(DigestKey::FIXED)
        .with_window(Window::SHORTEST)
        .with_escalate_every(EscalateEvery::new(0).context("no escalation")?);
    let mut kernel = Kernel::load(&options, &policy)?;
    kernel.load_bench()?;
    Ok(kernel)
}

fn measure() -> Result<Vec<Cost>> {
    stay_on_this_cpu()?;
    let (plain, counting) = (load(false)?, load(true)?);
    // Fills the table with other messages.
    plain.run(Program::BenchFirst, REPORTED_FRAME, 4 * DEFAULT_CAPACITY)?;
    let paths = paths();
    let mut times = vec![(Vec::new(), Vec::new()); paths.len()];
    for _ in 0..ROUNDS {
        for (path, (baseline, filter)) in paths.iter().zip(&mut times) {
            let kernel = if path.relay_counters {
                &counting
            } else {
                &plain
            };
            baseline.push(time(kernel, Program::BenchEmpty, &path.frame)?);
            // Whatever the other paths have put out of the table or the caches comes back first.
            kernel.run(path.program, &path.frame, 1)?;
            let before = kernel.maps.counters(0)?;
            filter.push(time(kernel, path.program, &path.frame)?);
            if let Some((reason, verdict)) = path.outcome {
                let counted = kernel.maps.counters(0)?.traffic(reason, verdict).packets
                    - before.traffic(reason, verdict).packets;
                ensure!(
                    counted * 100 >= u64::from(RUNS) * 99,
                    "{}: of {RUNS} frames only {counted} were counted as {}",
                    path.name,
                    reason.name()
                );
            }
        }
    }
    Ok(paths
        .iter()
        .zip(times)
        .map(|(path, (baseline, filter))| {
            let (baseline_ns, ns) = (median(baseline), median(filter));
            let delta_ns = tenths(ns - baseline_ns);
            Cost {
                path: path.name,
                baseline_ns,
                ns,
                delta_ns,
            }
        })
        .collect())
}

/// Nanoseconds that one run of a program takes, by the kernel's own clock, which stops while another
/// process has the CPU. It is rounded down to whole nanoseconds, in all paths alike.
fn time(kernel: &Kernel, program: Program, frame: &[u8]) -> Result<f64> {
    Ok(kernel.run(program, frame, RUNS)?.duration.as_nanos() as f64)
}

/// The mean of the middle half: a median that does not stop at whole nanoseconds.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = &values[values.len() / 4..values.len() - values.len() / 4];
    tenths(middle.iter().sum::<f64>() / middle.len() as f64)
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Keeps this thread where its caches are.
fn stay_on_this_cpu() -> Result<()> {
    let thread = Pid::from_raw(0);
    let allowed = sched_getaffinity(thread).context("cannot read the CPU affinity")?;
    let last = (0..CpuSet::count())
        .rev()
        .find(|&cpu| allowed.is_set(cpu).unwrap_or(false));
    let mut one = CpuSet::new();
    one.set(last.context("no CPU to run on")?)
        .context("cannot choose a CPU")?;
    sched_setaffinity(thread, &one).context("cannot stay on one CPU")
}
