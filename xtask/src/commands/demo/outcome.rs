//! What became of what was sent, and whether that is as it must be.

use std::collections::BTreeMap;
use std::time::Duration;

use super::scene::{Owner, Scene};

/// Frames by verdict and reason.
pub type Counters = BTreeMap<(String, String), u64>;

/// What of one run reached the server.
#[derive(Debug, Default)]
pub struct Outcome {
    /// When, since any one moment, copies of each owner arrived; no entry for what did not.
    arrived: BTreeMap<Owner, Vec<Duration>>,
}

impl Outcome {
    /// Notes an arrival.
    pub fn add(&mut self, owner: Owner, time: Duration) {
        self.arrived.entry(owner).or_default().push(time);
    }

    /// Copies of messages that reached the server.
    pub fn delivered(&self) -> usize {
        self.messages().map(|(_, copies)| copies).sum()
    }

    /// Of these, those that repeat one that had come already.
    pub fn repeated(&self) -> usize {
        self.messages().map(|(_, copies)| copies - 1).sum()
    }

    /// Transmissions of which no copy reached the server.
    pub fn lost(&self, scene: &Scene) -> usize {
        scene.transmissions.len() - self.messages().count()
    }

    /// Bystanders that reached the server; one that came twice counts twice.
    pub fn bystanders(&self) -> usize {
        let is_bystander = |owner: &Owner| matches!(owner, Owner::Bystander(_));
        let arrived = self.arrived.iter().filter(|(owner, _)| is_bystander(owner));
        arrived.map(|(_, times)| times.len()).sum()
    }

    /// How far apart the two copies of a message arrived.
    pub fn gaps(&self) -> String {
        let mut gaps: Vec<Duration> = self
            .arrived
            .iter()
            .filter_map(|(owner, times)| match (owner, times.as_slice()) {
                (Owner::Transmission(_), [one, other]) => Some(one.abs_diff(*other)),
                _ => None,
            })
            .collect();
        gaps.sort();
        match gaps.as_slice() {
            [] => "no message came twice".to_owned(),
            [least, .., most] => format!(
                "Unfiltered, the second copy came {} to {} us after the first, {} us as a rule.",
                least.as_micros(),
                most.as_micros(),
                gaps[gaps.len() / 2].as_micros()
            ),
            [only] => format!(
                "The second copy came {} us after the first.",
                only.as_micros()
            ),
        }
    }

    fn messages(&self) -> impl Iterator<Item = (usize, usize)> {
        self.arrived
            .iter()
            .filter_map(|(owner, times)| match owner {
                Owner::Transmission(number) => Some((*number, times.len())),
                Owner::Bystander(_) => None,
            })
    }
}

/// The same scene without the filter and with it.
pub struct Comparison {
    /// What reached the server unfiltered.
    pub without: Outcome,
    /// What reached it through the filter.
    pub with: Outcome,
    /// What the filter counted; zeros left out.
    pub counters: Counters,
}

impl Comparison {
    /// Copies that the filter says it dropped.
    pub fn dropped(&self) -> u64 {
        self.by_verdict("drop")
    }

    fn by_verdict(&self, wanted: &str) -> u64 {
        let counted = self.counters.iter();
        counted
            .filter(|((verdict, _), _)| verdict == wanted)
            .map(|(_, count)| count)
            .sum()
    }

    /// What is not as it must be; empty if all is.
    pub fn complaints(&self, scene: &Scene) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut expect = |what: &str, found: usize, expected: usize| {
            if found != expected {
                complaints.push(format!("{what}: {found} instead of {expected}"));
            }
        };
        let copies = scene.copies();
        expect(
            "delivered without the filter",
            self.without.delivered(),
            copies,
        );
        for (outcome, run) in [(&self.without, "without"), (&self.with, "with")] {
            expect(&format!("lost {run} the filter"), outcome.lost(scene), 0);
            let bystanders = format!("bystanders delivered {run} the filter");
            expect(&bystanders, outcome.bystanders(), scene.bystanders());
        }
        let wrong = self.with.messages().filter(|(number, copies)| {
            let escalated = scene.transmissions[*number].is_escalated();
            *copies != 1 + usize::from(escalated)
        });
        expect(
            "messages delivered too often or too seldom",
            wrong.count(),
            0,
        );
        let passed = self.by_verdict("pass") as usize;
        expect("passed as the filter counts", passed, self.with.delivered());
        let expected = expected_counters(scene);
        if self.counters != expected {
            complaints.push(format!(
                "counters: {:?} instead of {expected:?}",
                self.counters
            ));
        }
        complaints
    }
}

/// What the filter has to count for the scene.
fn expected_counters(scene: &Scene) -> Counters {
    let transmissions = scene.transmissions.len();
    [
        ("pass", "first", transmissions - scene.retransmissions()),
        ("pass", "retransmission", scene.retransmissions()),
        ("pass", "escalated", scene.escalated()),
        ("drop", "duplicate", transmissions - scene.escalated()),
    ]
    .into_iter()
    .map(|(verdict, reason, count)| ((verdict.to_owned(), reason.to_owned()), count as u64))
    .collect()
}
