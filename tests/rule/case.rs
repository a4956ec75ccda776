//! A case: frames at their times, what becomes of each, and nothing but that in the counters.

use std::collections::BTreeMap;

use anyhow::Result;
use testbed::frame::Frame;
use xdp_dedup::{
    kernel::{Clock, Kernel, LoadOptions},
    policy::Rules,
};
use xdp_dedup_common::{
    Policy, Reason, Verdict, counters::InterfaceCounters, decide, digest::DigestKey,
    exact_table::ExactTable, packet::Bytes, time::Timestamp, trusted::Prefix,
};

/// The counters' slot that the kernel program is loaded for.
const SLOT: u32 = 5;

/// Loads the kernel program for all cases: it takes half a second, a case a millisecond.
pub fn load_kernel() -> Result<Kernel> {
    let options = LoadOptions {
        capacity: 4096,
        interface_slot: SLOT,
        clock: Clock::Replay,
        relay_counters: false,
        trace: false,
        pins: None,
    };
    Kernel::load(&options, &DEFAULT)
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    verdict: Verdict,
    reason: Reason,
    /// Microseconds since the remembered copy, where the histogram has it.
    gap: Option<u64>,
}

pub const FIRST: Outcome = passes(Reason::First);

pub const fn passes(reason: Reason) -> Outcome {
    Outcome {
        verdict: Verdict::Pass,
        reason,
        gap: None,
    }
}

pub const fn dropped(gap: u64) -> Outcome {
    Outcome {
        verdict: Verdict::Drop,
        ..passes(Reason::Duplicate).after(gap)
    }
}

pub const fn would_drop(gap: u64) -> Outcome {
    Outcome {
        verdict: Verdict::WouldDrop,
        ..dropped(gap)
    }
}

pub const fn retransmission(gap: u64) -> Outcome {
    passes(Reason::Retransmission).after(gap)
}

pub const fn escalated(gap: u64) -> Outcome {
    passes(Reason::Escalated).after(gap)
}

impl Outcome {
    /// Bytes that are counted. Of a message that was read whole they are those of the first buffer:
    /// padding in a second one is not worth the 5 ns that it costs to ask for.
    fn counted(&self, frame: &[u8]) -> usize {
        use Reason::{Duplicate, Escalated, First, Retransmission};
        if [First, Duplicate, Retransmission, Escalated].contains(&self.reason) {
            frame.len().min(Kernel::linear_part_of_test_run())
        } else {
            frame.len()
        }
    }

    /// The same with another verdict.
    pub const fn but(self, verdict: Verdict) -> Self {
        Self { verdict, ..self }
    }

    const fn after(self, gap: u64) -> Self {
        Self {
            gap: Some(gap),
            ..self
        }
    }
}

/// The defaults of the command line.
pub const DEFAULT: Policy = Policy::new(DigestKey::FIXED);

#[derive(Clone, Debug)]
enum Step {
    Rules(Rules),
    Frame(u64, Vec<u8>, Outcome),
}

/// What happens, one thing after the other, from an empty table on.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    steps: Vec<Step>,
}

impl Case {
    /// Under the policy's defaults.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            steps: Vec::new(),
        }
    }

    /// From here on under this policy.
    pub fn policy(self, policy: Policy) -> Self {
        self.trusting(policy, &[])
    }

    /// From here on under this policy, with these trusted relays.
    pub fn trusting(mut self, policy: Policy, trusted_relays: &[Prefix]) -> Self {
        self.steps.push(Step::Rules(Rules {
            policy,
            trusted_relays: trusted_relays.to_vec(),
        }));
        self
    }

    /// A frame at this time in microseconds.
    pub fn at(self, time: u64, frame: &Frame, outcome: Outcome) -> Self {
        self.bytes_at(time, frame.bytes(), outcome)
    }

    /// Bytes at this time in microseconds.
    pub fn bytes_at(mut self, time: u64, frame: Vec<u8>, outcome: Outcome) -> Self {
        self.steps.push(Step::Frame(time, frame, outcome));
        self
    }

    /// Runs it through the decision in userspace.
    pub fn in_userspace(&self) -> Result<()> {
        let mut table = ExactTable::new(DEFAULT);
        let mut counters = InterfaceCounters::default();
        let linear = Kernel::linear_part_of_test_run();
        for (i, step) in self.steps.iter().enumerate() {
            match step {
                Step::Rules(rules) => {
                    table.set_policy(rules.policy);
                    table.set_trusted_relays(&rules.trusted_relays);
                }
                Step::Frame(time, frame, outcome) => {
                    table.set_time(Timestamp(*time));
                    let decision = decide(&Bytes::with_linear_part(frame, linear), &table);
                    let got = Outcome {
                        verdict: decision.verdict(),
                        reason: decision.reason(),
                        gap: decision.gap().map(|gap| gap.0),
                    };
                    assert_eq!(got, *outcome, "step {i}, at {time} us");
                    counters.count(&decision, outcome.counted(frame));
                }
            }
        }
        self.check(&InterfaceCounters::default(), &counters);
        Ok(())
    }

    /// Runs it through the kernel program, whose table is emptied first.
    pub fn in_the_kernel(&self, kernel: &mut Kernel) -> Result<()> {
        kernel.maps.forget()?;
        kernel.maps.set_rules(&Rules {
            policy: DEFAULT,
            trusted_relays: Vec::new(),
        })?;
        let before = kernel.maps.counters(SLOT)?;
        for (i, step) in self.steps.iter().enumerate() {
            match step {
                Step::Rules(rules) => kernel.maps.set_rules(rules)?,
                Step::Frame(time, frame, outcome) => {
                    let (verdict, reason) = kernel.decide_at(frame, Timestamp(*time))?;
                    assert_eq!(
                        (verdict, reason),
                        (outcome.verdict, outcome.reason),
                        "step {i}, at {time} us"
                    );
                }
            }
        }
        self.check(&before, &kernel.maps.counters(SLOT)?);
        Ok(())
    }

    /// That the counters went up by what the outcomes say, and by nothing else.
    fn check(&self, before: &InterfaceCounters, after: &InterfaceCounters) {
        /// A frame's place in the histogram: 1, 2, 5 ... from 10 us on, then 60 s, then all beyond.
        fn bucket(gap: u64) -> usize {
            (1..=6)
                .flat_map(|power| [1, 2, 5].map(|digit| digit * 10_u64.pow(power)))
                .chain([10_000_000, 20_000_000, 60_000_000])
                .position(|bound| gap <= bound)
                .unwrap_or(21)
        }
        let mut traffic = BTreeMap::<_, (u64, u64)>::new();
        let mut buckets = [0; 22];
        let mut gaps = 0;
        for step in &self.steps {
            let Step::Frame(_, frame, outcome) = step else {
                continue;
            };
            if outcome.reason == Reason::NotDhcp {
                continue;
            }
            let (packets, bytes) = traffic
                .entry((outcome.reason, outcome.verdict))
                .or_default();
            *packets += 1;
            *bytes += outcome.counted(frame) as u64;
            if let Some(gap) = outcome.gap {
                buckets[bucket(gap)] += 1;
                gaps += gap;
            }
        }
        let mut counted = BTreeMap::new();
        for reason in Reason::ALL {
            for verdict in Verdict::ALL {
                let [before, after] = [before, after].map(|c| c.traffic(*reason, verdict));
                let counts = (after.packets - before.packets, after.bytes - before.bytes);
                if counts != (0, 0) {
                    counted.insert((*reason, verdict), counts);
                }
            }
        }
        let counted_buckets: [_; 22] =
            std::array::from_fn(|i| after.gaps.buckets[i] - before.gaps.buckets[i]);
        assert_eq!(counted, traffic, "packets and bytes by reason and verdict");
        assert_eq!(counted_buckets, buckets, "frames by gap in the histogram");
        assert_eq!(after.gaps.sum - before.gaps.sum, gaps, "sum of the gaps");
    }
}
