//! A steady stream of pairs: each message is a new one, and both relays forward it.

use std::collections::BTreeMap;
use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testbed::daemon::Daemon;
use testbed::receiver::Receiver;
use testbed::sender::Sender;
use testbed::veth::End;

use crate::bed::{copies, number_of, wait_for_counts};

/// Between a message and the next one.
const INTERVAL: Duration = Duration::from_micros(500);

/// Between the copies of a message.
const GAP: Duration = Duration::from_micros(50);

/// A thread that sends, and the server's socket.
pub struct Stream {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    sender: JoinHandle<Result<()>>,
    receiver: Receiver,
}

/// What became of a stream.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Messages that were sent, each twice.
    pub messages: u32,
    /// Those of which no copy arrived.
    pub lost: Vec<u32>,
    /// Those of which both did.
    pub doubled: Vec<u32>,
}

impl Stream {
    /// Begins to send from `relays`, the other end of the server's cable, to `server`.
    pub fn start(sender: Sender, server: &End) -> Result<Self> {
        let receiver = Receiver::udp(&server.namespace, 547)?;
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
        let thread = thread::spawn({
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            move || send(&sender, &stop, &sent)
        });
        let stream = Self {
            stop,
            sent,
            sender: thread,
            receiver,
        };
        stream.wait_for(100)?;
        Ok(stream)
    }

    /// Waits until so many more messages were sent.
    pub fn wait_for(&self, more: u32) -> Result<()> {
        let until = self.sent.load(Ordering::Relaxed) + more;
        while self.sent.load(Ordering::Relaxed) < until {
            ensure!(!self.sender.is_finished(), "the sender gave up");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Stops, and tells what arrived.
    pub fn finish(self) -> Result<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.sender.join().map_err(|_| anyhow::anyhow!("panicked"));
        ended?.context("the sender gave up")?;
        let messages = self.sent.load(Ordering::Relaxed);
        let received = self.receiver.finish()?;
        ensure!(
            received.discarded == 0,
            "the socket lost {}",
            received.discarded
        );
        let mut copies = BTreeMap::new();
        for arrival in &received.arrivals {
            *copies.entry(number_of(&arrival.payload)?).or_insert(0) += 1;
        }
        let with = |wanted: u32| -> Vec<u32> {
            (0..messages)
                .filter(|number| copies.get(number).copied().unwrap_or(0) == wanted)
                .collect()
        };
        Ok(Outcome {
            messages,
            lost: with(0),
            doubled: with(2),
        })
    }

    /// Stops; each message must have arrived once.
    pub fn expect_no_gap(self) -> Result<u32> {
        let Outcome {
            messages,
            lost,
            doubled,
        } = self.finish()?;
        let first = |numbers: &[u32]| format!("{:?}", &numbers[..numbers.len().min(10)]);
        ensure!(
            lost.is_empty() && doubled.is_empty(),
            "of {messages} messages {} were lost ({}) and {} arrived twice ({})",
            lost.len(),
            first(&lost),
            doubled.len(),
            first(&doubled)
        );
        Ok(messages)
    }

    /// The same, and the daemon at work now must have counted each copy since the first daemon's start.
    pub fn expect_no_gap_counted_by(self, daemon: &Daemon) -> Result<u32> {
        let messages = self.expect_no_gap()?;
        wait_for_counts(
            daemon,
            &format!("drop duplicate {messages}, pass first {messages}"),
        )?;
        Ok(messages)
    }
}

fn send(sender: &Sender, stop: &AtomicBool, sent: &AtomicU32) -> Result<()> {
    let start = Instant::now();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let [first, second] = copies(number);
        // Late wake-ups are made up for, so that the rate is what it should be.
        thread::sleep((INTERVAL * number).saturating_sub(start.elapsed()));
        sender.send(&first)?;
        let gap = Instant::now();
        while gap.elapsed() < GAP {
            hint::spin_loop();
        }
        sender.send(&second)?;
        sent.store(number + 1, Ordering::Relaxed);
    }
    Ok(())
}
