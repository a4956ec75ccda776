//! End to end over veth: the built program in network namespaces of each test's own, relays on the
//! one side, an ordinary UDP socket on port 547 on the other. What is counted is what the socket
//! received, and what the exporter says.

mod bed;
mod traffic;

use std::collections::BTreeMap;
use std::hint;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use testbed::frame::{Checksum, ClientMessage, message_type, relayed, reported};
use testbed::harness::{needs_root, run, trial};
use testbed::veth::XdpMode;

use bed::{Bed, Modes, Via};
use traffic::{Traffic, copies};

/// Longer than the default: the machine may be busy, and hold the second copy up.
const WINDOW: Duration = Duration::from_secs(1);

const MODES: [(Modes, &str); 2] = [
    ([XdpMode::Native; 2], "native"),
    ([XdpMode::Generic; 2], "generic"),
];
const MIXED: Modes = [XdpMode::Native, XdpMode::Generic];

fn main() -> ExitCode {
    let mut trials = Vec::new();
    trials.push(trial(
        "native on one NIC, generic on the other: of copies that arrive on both one passes",
        || one_copy_passes(MIXED, 2, Via::PacketSocket),
    ));
    trials.push(trial(
        "native on one NIC, generic on the other: of copies in the same instant one passes",
        || one_copy_passes_at_once(MIXED),
    ));
    for (modes, name) in MODES {
        for (cables, via, what) in [
            (1, Via::PacketSocket, "as from the wire"),
            (
                1,
                Via::UdpSocket { offload: true },
                "from sockets that leave the checksum to the NIC",
            ),
            (
                1,
                Via::UdpSocket { offload: false },
                "from sockets that compute the checksum",
            ),
            (2, Via::PacketSocket, "that arrive on two NICs"),
        ] {
            trials.push(trial(
                format!("{name}: of copies {what} one passes, of every transmission"),
                move || one_copy_passes(modes, cables, via),
            ));
        }
        trials.push(trial(
            format!("{name}: of copies on two NICs and two CPUs in the same instant one passes"),
            move || one_copy_passes_at_once(modes),
        ));
        trials.push(trial(
            format!("{name}: a damaged first copy does not take the good second one with it"),
            move || damaged_first_copy(modes),
        ));
        trials.push(trial(
            format!("{name}: in jumbo frames it drops the copies that it can read, and no others"),
            move || jumbo_frames(modes),
        ));
        trials.push(trial(
            format!("{name}: observing, it counts the copies and lets them pass"),
            move || observing(modes),
        ));
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
            trials.push(trial(
                format!("{name}: after {signal} nothing is attached, and copies pass again"),
                move || detaches(modes, signal),
            ));
        }
    }
    run(trials.into_iter().map(needs_root).collect())
}

fn jumbo_frames(modes: Modes) -> Result<()> {
    let bed = Bed::new(1, Via::PacketSocket)?;
    bed.mtu(9000)?;
    let filter = bed.filter(modes, &[])?;
    let sockets = bed.sockets()?;
    // The longest message whose copies are recognised, one more byte, and far more.
    for (number, length) in [(1, 1500), (2, 1501), (3, 8000)] {
        let message = ClientMessage::new(message_type::SOLICIT, [0, 0, number]).padded_to(length);
        for (relay, address) in [reported::RELAY_A, reported::RELAY_B]
            .into_iter()
            .enumerate()
        {
            let frame = relayed(address, reported::SERVER, reported::CLIENT, &message);
            bed.send(relay, &frame)?;
        }
    }
    let received = sockets.finish()?;
    ensure!(
        received.discarded == 0,
        "sockets lost {}",
        received.discarded
    );
    assert_eq!(received.messages.len(), 5, "copies that arrived");
    let expected = owned([
        (("drop", "duplicate"), 1),
        (("pass", "first"), 1),
        (("pass", "unverifiable"), 4),
    ]);
    assert_eq!(bed.counters(&filter)?, expected);
    Ok(())
}

/// Boots, retransmissions with other bytes and with the same ones, bystanders among them.
fn one_copy_passes(modes: Modes, cables: usize, via: Via) -> Result<()> {
    const MESSAGES: u16 = 70;
    let bed = Bed::new(cables, via)?;
    let filter = bed.filter(modes, &[])?;
    let sockets = bed.sockets()?;
    let mut traffic = Traffic::default();
    for message in 0..MESSAGES {
        traffic.send_pair(&bed, message, 0)?;
        bed.send_bystanders(message)?;
    }
    // Within the window, but the client has raised its elapsed-time.
    for message in (0..MESSAGES).step_by(5) {
        traffic.send_pair(&bed, message, 1)?;
    }
    // Beyond the window, also the very same bytes; the third transmission of 0 and of 35.
    thread::sleep(WINDOW + Duration::from_millis(200));
    for message in (0..MESSAGES).step_by(7) {
        traffic.send_pair(&bed, message, u16::from(message % 2 == 0))?;
    }

    let received = sockets.finish()?;
    ensure!(
        received.discarded == 0,
        "sockets lost {}",
        received.discarded
    );
    assert_eq!(
        traffic.arrived(&received.messages)?,
        traffic.expected(),
        "copies that arrived"
    );
    assert_eq!(
        received.bystanders,
        3 * usize::from(MESSAGES),
        "bystanders that arrived"
    );
    assert_eq!(bed.counters(&filter)?, traffic.counters());
    for cable in 0..cables {
        // Which of two NICs has the copy that passes is the CPUs' affair; that it counts is not.
        let frames: u64 = bed.counters_of(&filter, cable)?.values().sum();
        assert_eq!(frames, 2 * traffic.transmissions() / cables as u64);
    }
    Ok(())
}

/// Two threads, each on a CPU and a NIC of its own, wait for one another before each message, and
/// then send its two copies.
fn one_copy_passes_at_once(modes: Modes) -> Result<()> {
    const MESSAGES: u16 = 2000;
    let bed = Bed::new(2, Via::PacketSocket)?;
    // A thread may be held up for a while between the meeting and the sending.
    let filter = bed.filter(modes, &["--window", "30s"])?;
    let sockets = bed.sockets()?;
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let cpus: Vec<usize> = (0..CpuSet::count())
        .filter(|&cpu| allowed.is_set(cpu).unwrap_or(false))
        .collect();

    let meetings = [AtomicU16::new(0), AtomicU16::new(0)];
    let send_all = |relay: usize| -> Result<()> {
        let mut only = CpuSet::new();
        only.set(cpus[relay % cpus.len()])?;
        sched_setaffinity(Pid::from_raw(0), &only)?;
        for message in 0..MESSAGES {
            let frame = bed.addressed(&copies(message, 0)[relay], relay).bytes();
            meetings[relay].store(message, Ordering::Release);
            meet(&meetings[1 - relay], message);
            bed.sender(relay).send(&frame)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let (send_all, meetings) = (&send_all, &meetings);
        let threads = [0, 1].map(|relay| {
            scope.spawn(move || {
                let result = send_all(relay);
                // Whatever happened, nobody need wait for this one any more.
                meetings[relay].store(u16::MAX, Ordering::Release);
                result
            })
        });
        let join = |thread: ScopedJoinHandle<'_, Result<()>>| thread.join().expect("no panic");
        threads.into_iter().try_for_each(join)
    })?;

    let received = sockets.finish()?;
    ensure!(
        received.discarded == 0,
        "sockets lost {}",
        received.discarded
    );
    let mut traffic = Traffic::default();
    (0..MESSAGES).for_each(|message| traffic.note(message, 0));
    assert_eq!(
        traffic.arrived(&received.messages)?,
        traffic.expected(),
        "copies that arrived"
    );
    assert_eq!(bed.counters(&filter)?, traffic.counters());
    Ok(())
}

/// Waits until the other thread has come as far: spinning, unless it does not get to run.
fn meet(other: &AtomicU16, message: u16) {
    let mut spins = 0_u32;
    while other.load(Ordering::Acquire) < message {
        spins += 1;
        if spins.is_multiple_of(4096) {
            thread::yield_now();
        } else {
            hint::spin_loop();
        }
    }
}

fn damaged_first_copy(modes: Modes) -> Result<()> {
    const MESSAGES: u16 = 10;
    let bed = Bed::new(1, Via::PacketSocket)?;
    let filter = bed.filter(modes, &[])?;
    let sockets = bed.sockets()?;
    for message in 0..MESSAGES {
        let [first, second] = copies(message, 0);
        bed.send(0, &first.checksum(Checksum::Wrong))?;
        bed.send(1, &second)?;
    }
    let received = sockets.finish()?;
    assert_eq!(received.messages.len(), usize::from(MESSAGES));
    assert_eq!(
        received.discarded,
        u32::from(MESSAGES),
        "the stack's own verdict on the first"
    );
    let expected = [(("pass", "bad_checksum"), 10), (("pass", "first"), 10)];
    assert_eq!(bed.counters(&filter)?, owned(expected));
    Ok(())
}

fn observing(modes: Modes) -> Result<()> {
    const MESSAGES: u16 = 10;
    let bed = Bed::new(1, Via::PacketSocket)?;
    let filter = bed.filter(modes, &["--observe"])?;
    let sockets = bed.sockets()?;
    let mut traffic = Traffic::default();
    for message in 0..MESSAGES {
        traffic.send_pair(&bed, message, 0)?;
    }
    let received = sockets.finish()?;
    assert_eq!(received.messages.len(), 2 * usize::from(MESSAGES));
    let expected = [(("pass", "first"), 10), (("would_drop", "duplicate"), 10)];
    assert_eq!(bed.counters(&filter)?, owned(expected));
    Ok(())
}

fn detaches(modes: Modes, signal: Signal) -> Result<()> {
    let bed = Bed::new(2, Via::PacketSocket)?;
    let filter = bed.filter(modes, &[])?;
    let mut traffic = Traffic::default();
    let sockets = bed.sockets()?;
    traffic.send_pair(&bed, 1, 0)?;
    assert_eq!(
        sockets.finish()?.messages.len(),
        1,
        "copies that pass the filter"
    );

    let status = filter.stop(signal)?;
    ensure!(
        status.success() || signal == Signal::SIGKILL,
        "it ended with {status}"
    );
    bed.expect_xdp([None; 2])?;
    let sockets = bed.sockets()?;
    traffic.send_pair(&bed, 2, 0)?;
    assert_eq!(
        sockets.finish()?.messages.len(),
        2,
        "copies that pass without it"
    );
    Ok(())
}

fn owned<const N: usize>(counters: [((&str, &str), u64); N]) -> BTreeMap<(String, String), u64> {
    counters
        .into_iter()
        .map(|((verdict, reason), count)| ((verdict.to_owned(), reason.to_owned()), count))
        .collect()
}
