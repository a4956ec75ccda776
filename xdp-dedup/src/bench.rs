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
    event::{Outcomes, Wanted},
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
/// Runs between which the ring of events is emptied: as many as find room.
const RUNS_TOLD: u32 = 2_500;

/// Names of the paths, in the order of the output.
pub const PATHS: [&str; 6] = [
    "bystander_ipv4",
    "bystander_udp6",
    "duplicate",
    "duplicate_relay_counters",
    "duplicate_events",
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
    /// Who takes part beside the program.
    besides: Besides,
    frame: Vec<u8>,
    /// What 99 of 100 runs must have been counted as, lest something else was measured.
    outcome: Option<(Reason, Verdict)>,
}

/// What the program does beside its decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Besides {
    Nothing,
    /// It counts by relay.
    RelayCounters,
    /// It tells `events` of each drop.
    Events,
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
            besides: Besides::Nothing,
            frame: ipv4,
            outcome: None,
        },
        Path {
            name: PATHS[1],
            program: filter,
            besides: Besides::Nothing,
            frame: other_port,
            outcome: None,
        },
        Path {
            name: PATHS[2],
            program: filter,
            besides: Besides::Nothing,
            frame: reported(),
            outcome: duplicate,
        },
        Path {
            name: PATHS[3],
            program: filter,
            besides: Besides::RelayCounters,
            frame: reported(),
            outcome: duplicate,
        },
        Path {
            name: PATHS[4],
            program: filter,
            besides: Besides::Events,
            frame: reported(),
            outcome: duplicate,
        },
        Path {
            name: PATHS[5],
            program: Program::BenchFirst,
            besides: Besides::Nothing,
            frame: reported(),
            outcome: first,
        },
    ]
}

fn load(besides: Besides) -> Result<Kernel> {
    let options = LoadOptions {
        capacity: DEFAULT_CAPACITY,
        interface_slot: 0,
        clock: Clock::Live,
        relay_counters: besides == Besides::RelayCounters,
        trace: false,
        pins: None,
    };
    // Copies within a millisecond, as relays send them. Each time the window is over one frame passes
    // as a retransmission, one of some thousands.
    let policy = Policy::new(DigestKey::FIXED)
        .with_window(Window::SHORTEST)
        .with_escalate_every(EscalateEvery::new(0).context("no escalation")?);
    let mut kernel = Kernel::load(&options, &policy)?;
    kernel.load_bench()?;
    if besides == Besides::Events {
        let drops = Outcomes::of(&[Verdict::Drop], &[Reason::Duplicate]);
        let wanted = Wanted::new(drops, [0].into_iter().collect(), u64::MAX);
        kernel.maps.want_events(wanted)?;
    }
    Ok(kernel)
}

fn measure() -> Result<Vec<Cost>> {
    stay_on_this_cpu()?;
    let plain = load(Besides::Nothing)?;
    let (counting, telling) = (load(Besides::RelayCounters)?, load(Besides::Events)?);
    // Fills the table with other messages.
    plain.run(Program::BenchFirst, REPORTED_FRAME, 4 * DEFAULT_CAPACITY)?;
    let paths = paths();
    let mut times = vec![(Vec::new(), Vec::new()); paths.len()];
    for _ in 0..ROUNDS {
        for (path, (baseline, filter)) in paths.iter().zip(&mut times) {
            let kernel = match path.besides {
                Besides::Nothing => &plain,
                Besides::RelayCounters => &counting,
                Besides::Events => &telling,
            };
            baseline.push(time(kernel, Program::BenchEmpty, &path.frame)?);
            // Whatever the other paths have put out of the table or the caches comes back first.
            kernel.run(path.program, &path.frame, 1)?;
            let before = kernel.maps.counters(0)?;
            filter.push(match path.besides {
                Besides::Events => time_told(kernel, path.program, &path.frame)?,
                _ => time(kernel, path.program, &path.frame)?,
            });
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

/// The same of a program that tells of each run: of what finds no room it would tell nothing.
fn time_told(kernel: &Kernel, program: Program, frame: &[u8]) -> Result<f64> {
    let mut ring = kernel.maps.events()?;
    let mut nanoseconds = 0.0;
    for _ in 0..RUNS / RUNS_TOLD {
        nanoseconds += kernel.run(program, frame, RUNS_TOLD)?.duration.as_nanos() as f64;
        while ring.next().is_some() {}
    }
    ensure!(
        kernel.maps.lost_events()? == 0,
        "the ring of events is too small"
    );
    Ok(nanoseconds / f64::from(RUNS / RUNS_TOLD))
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
