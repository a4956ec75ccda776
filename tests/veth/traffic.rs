//! What the clients send through the two relays, and what of it must arrive.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use anyhow::{Context as _, Result};
use testbed::frame::{ClientMessage, Frame, message_type, option_code, relayed, reported};
use testbed::receiver::Arrival;

use crate::bed::Bed;
use crate::owned;

/// What a client's message says: its number and its elapsed-time.
pub type Bytes = (u16, u16);

/// Both relays' copies of a client's message.
pub fn copies(message: u16, elapsed: u16) -> [Frame; 2] {
    let [high, low] = message.to_be_bytes();
    let client = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x225, 0x90ff, 0xfe00, message);
    let inner = ClientMessage::new(message_type::SOLICIT, [0x1b, high, low])
        .elapsed_time(elapsed)
        .client_id(&[0, 3, 0, 1, 0, 0x25, 0x90, 0, high, low])
        .option(option_code::IA_NA, &[0; 12]);
    [reported::RELAY_A, reported::RELAY_B]
        .map(|relay| relayed(relay, reported::SERVER, client, &inner))
}

/// What has been sent.
#[derive(Default)]
pub struct Traffic {
    /// The bytes of each message's transmissions.
    sent: BTreeMap<u16, Vec<u16>>,
    payloads: BTreeMap<Vec<u8>, Bytes>,
}

impl Traffic {
    /// Sends both copies of a message; either relay may be the faster one.
    pub fn send_pair(&mut self, bed: &Bed, message: u16, elapsed: u16) -> Result<()> {
        self.note(message, elapsed);
        let copies = copies(message, elapsed);
        let order = if message.is_multiple_of(3) {
            [1, 0]
        } else {
            [0, 1]
        };
        order
            .into_iter()
            .try_for_each(|relay| bed.send(relay, &copies[relay]))
    }

    /// Notes that both copies were sent.
    pub fn note(&mut self, message: u16, elapsed: u16) {
        self.sent.entry(message).or_default().push(elapsed);
        for copy in copies(message, elapsed) {
            self.payloads.insert(copy.payload, (message, elapsed));
        }
    }

    /// How often each message's bytes arrived.
    pub fn arrived(&self, arrivals: &[Arrival]) -> Result<BTreeMap<Bytes, usize>> {
        let mut counts = BTreeMap::new();
        for arrival in arrivals {
            let bytes = self.payloads.get(&arrival.payload).context("never sent")?;
            *counts.entry(*bytes).or_default() += 1;
        }
        Ok(counts)
    }

    /// How often they must: once for each transmission, twice for every third one.
    pub fn expected(&self) -> BTreeMap<Bytes, usize> {
        let mut counts = BTreeMap::new();
        for (message, transmissions) in &self.sent {
            for (nth, elapsed) in (1..).zip(transmissions) {
                *counts.entry((*message, *elapsed)).or_default() += 1 + usize::from(nth % 3 == 0);
            }
        }
        counts
    }

    pub fn transmissions(&self) -> u64 {
        self.sent.values().map(Vec::len).sum::<usize>() as u64
    }

    /// What the filter must have counted.
    pub fn counters(&self) -> BTreeMap<(String, String), u64> {
        let first = self.sent.len() as u64;
        let escalated = self.sent.values().map(|sent| sent.len() / 3).sum::<usize>() as u64;
        let all = [
            (("pass", "first"), first),
            (("pass", "retransmission"), self.transmissions() - first),
            (("pass", "escalated"), escalated),
            (("drop", "duplicate"), self.transmissions() - escalated),
        ];
        owned(all)
            .into_iter()
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}
