//! Counts what captures hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::Duration;

use crate::dhcp::{self, Message, MessageType};

/// What the client's own capture says of an exchange.
#[derive(Debug, Default)]
pub struct ClientSide {
    /// Messages that the client sent.
    pub sent: usize,
    /// How many of each type, in the order of the first of each.
    pub kinds: Vec<(MessageType, usize)>,
    /// Answers that came.
    pub answers: usize,
    /// The most answers to messages of one type and transaction-id, per time that the client sent it,
    /// rounded up.
    pub most_answers: usize,
    /// The fewest, rounded down.
    pub fewest_answers: usize,
    /// The most different addresses that were offered, or granted at once, for one Solicit.
    pub addresses_offered: usize,
    /// Answers that complained, such as "NoBinding to a Release".
    pub complaints: Vec<String>,
}

impl ClientSide {
    /// Counts the messages of one client's capture.
    pub fn of(messages: &[Message]) -> Self {
        struct Transaction {
            kind: MessageType,
            sent: usize,
            answers: usize,
            offered: BTreeSet<Ipv6Addr>,
        }
        let mut side = Self::default();
        let mut open: BTreeMap<[u8; 3], Vec<Transaction>> = BTreeMap::new();
        for message in messages {
            let transactions = open.entry(message.transaction_id).or_default();
            if message.outgoing {
                side.sent += 1;
                match side
                    .kinds
                    .iter_mut()
                    .find(|(kind, _)| *kind == message.kind)
                {
                    Some((_, sent)) => *sent += 1,
                    None => side.kinds.push((message.kind, 1)),
                }
                // Some clients use the transaction-id of their Solicit for the Request too.
                match transactions.last_mut() {
                    Some(transaction) if transaction.kind == message.kind => transaction.sent += 1,
                    _ => transactions.push(Transaction {
                        kind: message.kind,
                        sent: 1,
                        answers: 0,
                        offered: BTreeSet::new(),
                    }),
                }
            } else if let Some(transaction) = transactions.last_mut() {
                side.answers += 1;
                transaction.answers += 1;
                if transaction.kind == MessageType::Solicit {
                    transaction.offered.extend(&message.addresses);
                }
                // A server may say it of the message and of each address in it.
                if let Some(status) = message.complaints.first() {
                    let question = dhcp::name(transaction.kind);
                    side.complaints.push(format!("{status:?} to a {question}"));
                }
            }
        }
        let transactions: Vec<Transaction> = open.into_values().flatten().collect();
        let most = |open: &Transaction| open.answers.div_ceil(open.sent);
        let fewest = |open: &Transaction| open.answers / open.sent;
        side.most_answers = transactions.iter().map(most).max().unwrap_or(0);
        side.fewest_answers = transactions.iter().map(fewest).min().unwrap_or(0);
        side.addresses_offered = transactions
            .iter()
            .map(|transaction| transaction.offered.len())
            .max()
            .unwrap_or(0);
        side
    }

    /// How many messages of this type the client sent.
    pub fn sent_of(&self, kind: MessageType) -> usize {
        let of_the_type = self.kinds.iter().find(|(other, _)| *other == kind);
        of_the_type.map_or(0, |(_, sent)| *sent)
    }
}

/// A message of a client's, and what became of each transmission of it.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its type.
    pub kind: MessageType,
    /// Its transaction-id.
    pub transaction_id: [u8; 3],
    /// The first one, and those that followed for want of an answer.
    pub transmissions: Vec<Transmission>,
}

/// One sending of a message by the client.
#[derive(Clone, Debug)]
pub struct Transmission {
    /// When the client sent it, since 1970.
    pub time: Duration,
    /// Who sent its copies towards the server, in the order in which they came there.
    pub relayed: Vec<Ipv6Addr>,
    /// Whose copies reached the server's stack.
    pub reached: Vec<Ipv6Addr>,
    /// Answers that the client got before it sent the message again.
    pub answers: usize,
}

impl Sent {
    /// The number of the first transmission that was answered, from 1, and how long after the very
    /// first one it was sent.
    pub fn answered(&self) -> Option<(usize, Duration)> {
        let is_answered = |transmission: &Transmission| transmission.answers > 0;
        let at = self.transmissions.iter().position(is_answered)?;
        let waited = self.transmissions[at].time - self.transmissions[0].time;
        Some((at + 1, waited))
    }

    /// All answers that the client got to it.
    pub fn answers(&self) -> usize {
        self.transmissions
            .iter()
            .map(|transmission| transmission.answers)
            .sum()
    }
}

/// The messages of a client, out of its own capture, of what the relays sent to the server, and of
/// what of it reached the server's stack.
pub fn sent(client: &[Message], relayed: &[Message], reached: &[Message]) -> Vec<Sent> {
    let mut all: Vec<Sent> = Vec::new();
    for (number, question) in client.iter().enumerate() {
        if !question.outgoing {
            continue;
        }
        let is_same = |other: &Message| other.transaction_id == question.transaction_id;
        let again = client[number + 1..]
            .iter()
            .find(|later| later.outgoing && is_same(later));
        let span = question.time..again.map_or(Duration::MAX, |later| later.time);
        let during = |other: &&Message| is_same(other) && span.contains(&other.time);
        let sources = |copies: &[Message]| {
            copies
                .iter()
                .filter(during)
                .filter(|copy| copy.peer() == Some(question.source))
                .map(|copy| copy.source)
                .collect()
        };
        let transmission = Transmission {
            time: question.time,
            relayed: sources(relayed),
            reached: sources(reached),
            answers: client
                .iter()
                .filter(during)
                .filter(|answer| !answer.outgoing)
                .count(),
        };
        let known = all.iter_mut().find(|sent| {
            (sent.kind, sent.transaction_id) == (question.kind, question.transaction_id)
        });
        match known {
            Some(sent) => sent.transmissions.push(transmission),
            None => all.push(Sent {
                kind: question.kind,
                transaction_id: question.transaction_id,
                transmissions: vec![transmission],
            }),
        }
    }
    all
}

/// How often each transmission of a client's message is in a capture: its copies by who it is of and
/// what it says, byte for byte.
pub fn copies(messages: &[Message]) -> BTreeMap<(Ipv6Addr, Vec<u8>), Vec<&Message>> {
    let mut copies: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for message in messages {
        if let Some(peer) = message.peer().filter(|_| message.is_of_client()) {
            copies
                .entry((peer, message.bytes.clone()))
                .or_default()
                .push(message);
        }
    }
    copies
}

/// How long after the first copy of each transmission the others came, in order of length.
pub fn gaps(messages: &[Message]) -> Vec<Duration> {
    let mut gaps = Vec::new();
    for copies in copies(messages).into_values() {
        let [first, others @ ..] = &copies[..] else {
            continue;
        };
        gaps.extend(others.iter().map(|copy| copy.time.abs_diff(first.time)));
    }
    gaps.sort_unstable();
    gaps
}

/// What so many in a hundred of these are not longer than; they are in order.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let place = (sorted.len() * percent).div_ceil(100);
    let found = sorted.get(place.saturating_sub(1));
    found.copied().unwrap_or_default()
}

/// The answers in a client's capture to what it sent of this type.
pub fn answers_to(messages: &[Message], kind: MessageType) -> impl Iterator<Item = &Message> {
    messages.iter().filter(move |answer| {
        let is_question = |message: &Message| {
            message.outgoing
                && message.kind == kind
                && message.transaction_id == answer.transaction_id
        };
        !answer.outgoing && messages.iter().any(is_question)
    })
}
