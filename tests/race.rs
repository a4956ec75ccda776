//! Two copies on two CPUs in the same instant: exactly one passes. Real runs of the kernel program
//! on two CPUs at once, under the live clock.

use std::{
    fmt,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use testbed::{
    frame::{Checksum, reported_pair},
    harness::{self, needs_root, trial},
};
use xdp_dedup::kernel::{Clock, Kernel, LoadOptions, Program, XDP_DROP};
use xdp_dedup_common::{
    Policy,
    digest::DigestKey,
    policy::{EscalateEvery, Window},
};

/// Pairs that race for an entry of each kind. Somewhat more are run: some do not count.
const PAIRS: usize = 340_000;
const SPARE: usize = PAIRS / 20;
/// A pair in which one thread was kept from its CPU for longer proves nothing.
const WINDOW: Window = Window::SHORTEST;
/// Identities that take turns where entries are to have just expired: a round of them takes some
/// times the window.
const RING: usize = 2048;

fn main() -> ExitCode {
    let cpus = cpus();
    let too_few = cpus.len() < 2;
    if too_few {
        eprintln!("race tests skipped: they need two CPUs, and this process may use one");
    }
    let trials = [
        (
            "of two copies that nobody knows yet exactly one passes",
            Entry::None,
        ),
        (
            "of two copies whose entry has just expired exactly one passes",
            Entry::Expired,
        ),
        (
            "of two copies of a retransmission with other bytes exactly one passes",
            Entry::ExpiredOfOtherBytes,
        ),
    ]
    .map(|(name, entry)| {
        let cpus = cpus.clone();
        needs_root(trial(name, move || race(entry, &cpus)).with_ignored_flag(too_few))
    });
    harness::run_one_by_one(trials.into())
}

/// What the table holds of an identity when its two copies arrive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entry {
    None,
    Expired,
    ExpiredOfOtherBytes,
}

/// The CPUs that this process may use.
fn cpus() -> Vec<usize> {
    sched_getaffinity(Pid::from_raw(0)).map_or_else(
        |_| Vec::new(),
        |set| {
            (0..CpuSet::count())
                .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
                .collect()
        },
    )
}

/// One copy's run: from before its system call to behind it.
#[derive(Clone, Copy)]
struct Run {
    start: Duration,
    end: Duration,
    dropped: bool,
}

fn race(entry: Entry, cpus: &[usize]) -> Result<()> {
    let options = LoadOptions {
        capacity: 65_536,
        interface_slot: 0,
        clock: Clock::Live,
        relay_counters: false,
        trace: false,
        pins: None,
    };
    let policy = Policy::new(DigestKey::FIXED)
        .with_window(WINDOW)
        // All copies of an escalated transmission would pass.
        .with_escalate_every(EscalateEvery::new(0).context("0 turns it off")?);
    let kernel = Kernel::load(&options, &policy)?;
    let began = Instant::now();
    let arrivals = AtomicU64::new(0);
    let frames = reported_pair();
    let [a, b] = thread::scope(|scope| {
        [0, 1]
            .map(|side| {
                let (kernel, arrivals, frame) = (&kernel, &arrivals, &frames[side]);
                let cpu = cpus[side];
                // The checksum's partial form does not cover the message, which changes at each run.
                let frame = frame.clone().checksum(Checksum::Partial).bytes();
                scope.spawn(move || runs(kernel, entry, side, cpu, frame, arrivals, began))
            })
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    });
    let outcome = Outcome::of(entry, &a?, &b?);
    println!("{outcome}");
    ensure!(outcome.twice == 0 && outcome.never == 0, "{outcome}");
    ensure!(outcome.judged >= PAIRS, "too few pairs count: {outcome}");
    ensure!(
        outcome.overlapping > outcome.judged / 2,
        "no race, the threads took turns: {outcome}"
    );
    Ok(())
}

/// One thread's copies of all pairs, each started when the other thread is ready too.
fn runs(
    kernel: &Kernel,
    entry: Entry,
    side: usize,
    cpu: usize,
    mut frame: Vec<u8>,
    arrivals: &AtomicU64,
    began: Instant,
) -> Result<Vec<Run>> {
    const TRANSACTION_ID: usize = 101;
    const ELAPSED_TIME: usize = 108;
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)
        .with_context(|| format!("cannot pin to CPU {cpu}"))?;

    let mut runs = Vec::with_capacity(PAIRS + SPARE);
    for pair in 0..PAIRS + SPARE {
        let identity = match entry {
            Entry::None => pair,
            Entry::Expired | Entry::ExpiredOfOtherBytes => pair % RING,
        };
        frame[TRANSACTION_ID..][..3].copy_from_slice(&identity.to_be_bytes()[5..]);
        if entry == Entry::ExpiredOfOtherBytes {
            frame[ELAPSED_TIME..][..2].copy_from_slice(&((pair / RING) as u16).to_be_bytes());
        }
        arrivals.fetch_add(1, Ordering::SeqCst);
        while arrivals.load(Ordering::SeqCst) < 2 * (pair as u64 + 1) {
            std::hint::spin_loop();
        }
        // One thread or the other sets out a little later, so that all steps meet one another.
        let late = pair / 2 % 64;
        if pair % 2 == side {
            (0..late).for_each(|_| std::hint::spin_loop());
        }
        let start = began.elapsed();
        let action = kernel.run(Program::Filter, &frame, 1);
        let end = began.elapsed();
        let dropped = match action {
            Ok(run) => run.action == XDP_DROP,
            Err(error) => {
                // The other thread must not wait for ever.
                arrivals.store(u64::MAX / 2, Ordering::SeqCst);
                return Err(error);
            }
        };
        runs.push(Run {
            start,
            end,
            dropped,
        });
    }
    Ok(runs)
}

/// What became of the pairs.
#[derive(Default)]
struct Outcome {
    /// Pairs that prove something.
    judged: usize,
    /// Of these, those whose system calls overlapped in time.
    overlapping: usize,
    /// Pairs of which both passed, or neither.
    twice: usize,
    never: usize,
    /// Pairs that took longer than the window, or began before their entry had expired.
    unclear: usize,
    took: Duration,
}

impl Outcome {
    fn of(entry: Entry, a: &[Run], b: &[Run]) -> Self {
        let window = Duration::from_micros(WINDOW.length().0);
        // The kernel's clock is read in whole microseconds.
        let tick = Duration::from_micros(1);
        let pairs: Vec<_> = a.iter().zip(b).collect();
        let mut outcome = Self::default();
        for (i, (a, b)) in pairs.iter().enumerate() {
            let (start, end) = (a.start.min(b.start), a.end.max(b.end));
            outcome.took = end - pairs[0].0.start.min(pairs[0].1.start);
            let expired = entry == Entry::None
                || i < RING
                || pairs[i - RING].0.end.max(pairs[i - RING].1.end) + window + tick <= start;
            if end - start + tick >= window || !expired {
                outcome.unclear += 1;
                continue;
            }
            outcome.judged += 1;
            outcome.overlapping += usize::from(a.start < b.end && b.start < a.end);
            match (a.dropped, b.dropped) {
                (false, false) => outcome.twice += 1,
                (true, true) => outcome.never += 1,
                _ => {}
            }
        }
        outcome
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} pairs in {:.1} s, {} of them with overlapping system calls: {} passed twice, {} not at \
             all; {} more count for nothing",
            self.judged,
            self.took.as_secs_f64(),
            self.overlapping,
            self.twice,
            self.never,
            self.unclear
        )
    }
}
