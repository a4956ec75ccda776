//! One decision, two places: sequences of generated and captured frames, many of them mutated, go
//! through the kernel program and through the decision in userspace. Verdict and reason are the same
//! for each frame, and so are the counters in the end; and both are those of the model.
//!
//! `DIFFERENTIAL_SEED` chooses other sequences; `DIFFERENTIAL_SEQUENCE` runs that one alone.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod captures;
mod sequence;
#[path = "../settings.rs"]
mod settings;

use std::{collections::BTreeMap, env, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result, bail};
use testbed::{
    harness::{self, needs_root, trial},
    model::{Model, Settings},
};
use xdp_dedup::{
    kernel::{Clock, Kernel, LoadOptions},
    maps::RelayTally,
    policy::Rules,
};
use xdp_dedup_common::{
    Reason,
    counters::{InterfaceCounters, RelayCounters},
    decide,
    digest::DigestKey,
    exact_table::ExactTable,
    identity::Address,
    packet::Bytes,
    time::Timestamp,
};

use crate::{
    sequence::{Generator, Sequence},
    settings::{policy, trusted_relays},
};

const SEQUENCES: u64 = 100_000;
/// Sequences that share a table; their identities stay below a quarter of its capacity, where the
/// kernel's evicts nothing.
const BATCH: u64 = 4000;
const CAPACITY: u32 = 1 << 17;

const KEY: DigestKey = DigestKey::FIXED;

fn main() -> ExitCode {
    harness::run(vec![needs_root(trial(
        "kernel program, userspace and model decide the same of mutated sequences",
        the_same_everywhere,
    ))])
}

fn number_from(variable: &str) -> Result<Option<u64>> {
    env::var(variable)
        .ok()
        .map(|text| text.parse().with_context(|| format!("{variable}={text}")))
        .transpose()
}

fn the_same_everywhere() -> Result<()> {
    let seed = number_from("DIFFERENTIAL_SEED")?.unwrap_or(547);
    let alone = number_from("DIFFERENTIAL_SEQUENCE")?;
    let numbers = alone.map_or(0..SEQUENCES, |number| number..number + 1);
    let generator = Generator::new(seed, captures::all()?);
    let options = LoadOptions {
        capacity: CAPACITY,
        interface_slot: 0,
        clock: Clock::Replay,
        relay_counters: true,
        trace: false,
        pins: None,
    };
    let start = Instant::now();
    let mut kernel = Kernel::load(&options, &policy(&Default::default(), KEY))?;
    let mut places = Places::new();
    let mut counters = InterfaceCounters::default();
    let mut outcomes = BTreeMap::new();
    let mut relays = BTreeMap::new();
    let mut frames = 0_u64;
    for number in numbers {
        if number % BATCH == 0 {
            kernel.maps.forget()?;
            places.take_relays(&mut relays);
            places = Places::new();
        }
        // So far apart that to each sequence what the ones before left is as good as nothing.
        let sequence = generator.sequence(number, number % BATCH);
        let reproduce = || {
            format!("DIFFERENTIAL_SEED={seed} DIFFERENTIAL_SEQUENCE={number}, that is: {sequence}")
        };
        kernel.maps.set_rules(&rules(&sequence.settings))?;
        let expected = places.run(&sequence, &mut counters);
        for (i, (time, frame)) in sequence.frames.iter().enumerate() {
            let (verdict, reason) = kernel
                .decide_at(frame, Timestamp(*time))
                .with_context(reproduce)?;
            let outcome = (verdict.name(), reason.name());
            if outcome != expected[i] {
                bail!(
                    "frame {i}: the kernel says {outcome:?}, userspace {:?}\n{}",
                    expected[i],
                    reproduce()
                );
            }
            *outcomes.entry(outcome).or_insert(0_u64) += 1;
            frames += 1;
        }
        places
            .compare_with_model(&sequence, &expected)
            .with_context(reproduce)?;
    }
    println!(
        "{} sequences of {frames} frames in {:.1} s, seed {seed}:",
        alone.map_or(SEQUENCES, |_| 1),
        start.elapsed().as_secs_f64()
    );
    for ((verdict, reason), count) in &outcomes {
        println!("  {verdict:10} {reason:18} {count:8}");
    }
    if kernel.maps.counters(0)? != counters {
        bail!("the kernel's counters are not userspace's (seed {seed})");
    }
    places.take_relays(&mut relays);
    compare_relays(&kernel.maps.relays()?, relays).with_context(|| format!("seed {seed}"))?;
    if alone.is_none() {
        for reason in Reason::ALL {
            // The table has room for all.
            let cannot_occur = *reason == Reason::TableError;
            for verdict in reason.verdicts() {
                let outcome = (verdict.name(), reason.name());
                if !cannot_occur && !outcomes.contains_key(&outcome) {
                    bail!("the sequences never reached {outcome:?}");
                }
            }
        }
    }
    Ok(())
}

/// That each relay that has counters of its own has those of userspace, and the others together.
fn compare_relays(tally: &RelayTally, mut relays: BTreeMap<Address, RelayCounters>) -> Result<()> {
    for (relay, counters) in &tally.relays {
        let expected = relays.remove(&Address::from(*relay)).unwrap_or_default();
        if *counters != expected {
            bail!("the kernel counted {counters:?} of {relay}, userspace {expected:?}");
        }
    }
    let mut others = RelayCounters::default();
    relays.values().for_each(|counters| others.add(counters));
    if tally.others != others {
        bail!(
            "the kernel counted {:?} of other relays, userspace {others:?}",
            tally.others
        );
    }
    Ok(())
}

type Outcome = (&'static str, &'static str);

/// The places besides the kernel where a sequence is judged.
struct Places {
    table: ExactTable,
    model: Model,
}

impl Places {
    fn new() -> Self {
        Self {
            table: ExactTable::new(policy(&Default::default(), KEY)),
            model: Model::default(),
        }
    }

    /// Adds what the table has counted by relay.
    fn take_relays(&self, sum: &mut BTreeMap<Address, RelayCounters>) {
        for (relay, counters) in self.table.relays() {
            sum.entry(relay).or_default().add(&counters);
        }
    }

    /// What userspace decides of each frame.
    fn run(&mut self, sequence: &Sequence, counters: &mut InterfaceCounters) -> Vec<Outcome> {
        self.table.set_policy(policy(&sequence.settings, KEY));
        self.table
            .set_trusted_relays(&trusted_relays(&sequence.settings));
        run(&self.table, sequence, counters)
    }

    /// That the model judges each frame that fits one buffer in the same way.
    fn compare_with_model(&mut self, sequence: &Sequence, outcomes: &[Outcome]) -> Result<()> {
        if !sequence.suits_the_model {
            return Ok(());
        }
        self.model.settings = sequence.settings;
        let judged: Vec<_> = sequence
            .frames
            .iter()
            .map(|(time, frame)| self.model.judge(frame, *time))
            .collect();
        if judged == outcomes {
            return Ok(());
        }
        // One pair of messages in 2^16 has one digest; not under three keys at once.
        for shift in [0, 7] {
            let key = std::array::from_fn(|i| 0x1234_5678_9abc_def1 << i >> shift);
            let mut table = ExactTable::new(policy(&sequence.settings, DigestKey::new(key)));
            table.set_trusted_relays(&trusted_relays(&sequence.settings));
            if run(&table, sequence, &mut InterfaceCounters::default()) == judged {
                return Ok(());
            }
        }
        bail!("the filter says {outcomes:?}, the model {judged:?}")
    }
}

fn rules(settings: &Settings) -> Rules {
    Rules {
        policy: policy(settings, KEY),
        trusted_relays: trusted_relays(settings),
    }
}

fn run(table: &ExactTable, sequence: &Sequence, counters: &mut InterfaceCounters) -> Vec<Outcome> {
    let linear = Kernel::linear_part_of_test_run();
    sequence
        .frames
        .iter()
        .map(|(time, frame)| {
            table.set_time(Timestamp(*time));
            let decision = decide(&Bytes::with_linear_part(frame, linear), table);
            // As the kernel program does: padding in a second buffer is not counted.
            let bytes = if decision.is_sighting() {
                linear.min(frame.len())
            } else {
                frame.len()
            };
            counters.count(&decision, bytes);
            (decision.verdict().name(), decision.reason().name())
        })
        .collect()
}
