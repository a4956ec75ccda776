//! What only the kernel program has: its LRU table, its counters by interface, its action.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{net::Ipv6Addr, process::ExitCode};

use anyhow::{Result, ensure};
use bytemuck::Zeroable as _;
use testbed::{
    frame::{Checksum, ClientMessage, Frame, message_type, relayed, reported, reported_pair},
    harness::{self, needs_root, trial},
};
use xdp_dedup::{
    kernel::{Clock, Kernel, LoadOptions, Program, XDP_DROP, XDP_PASS},
    policy::{MAX_TRUSTED_RELAYS, Rules},
};
use xdp_dedup_common::{
    Packet as _, Policy, Reason, Verdict,
    counters::{InterfaceCounters, MAX_RELAYS, Traffic},
    description::Description,
    digest::DigestKey,
    event::{Event, Outcomes, Wanted},
    interface::MAX_INTERFACES,
    packet::Bytes,
    policy::{Untrusted, Window},
    time::{Microseconds, Timestamp},
    trusted::Prefix,
};

const FIRST: (Verdict, Reason) = (Verdict::Pass, Reason::First);
const DUPLICATE: (Verdict, Reason) = (Verdict::Drop, Reason::Duplicate);

type Test = fn() -> Result<()>;

fn main() -> ExitCode {
    let trials: [(_, Test); 14] = [
        (
            "in a table full of other messages a first one passes and is learned",
            a_full_table,
        ),
        (
            "a table holds a quarter of its capacity of live messages without fail",
            a_quarter_of_the_capacity,
        ),
        (
            "a table holds no more than its capacity",
            no_more_than_the_capacity,
        ),
        ("an interface counts in its own slot and in no other", slots),
        (
            "relays that find no room of their own count together, and the others go on",
            more_relays_than_have_room,
        ),
        (
            "counters and table survive a change of policy",
            a_change_of_policy,
        ),
        (
            "where nobody wrote a policy everything passes, whatever is in the table",
            no_policy,
        ),
        (
            "as many trusted relays as there may be give way to as many others",
            trusted_relays_give_way,
        ),
        (
            "trusted relays that find no room change nothing",
            trusted_relays_without_room,
        ),
        (
            "under the live clock the second copy is dropped, and passes when the window is over",
            the_live_clock,
        ),
        (
            "a full ring of events changes no action, and what it has no room for is counted",
            a_full_ring,
        ),
        (
            "an event tells of a frame of any length, of its first 2048 bytes what they are",
            events_of_all_lengths,
        ),
        (
            "nothing is told when a lease is over, nor of other interfaces or decisions",
            nothing_is_told,
        ),
        (
            "a frame of any length from 14 bytes on gets an action",
            frames_of_all_lengths,
        ),
    ];
    let trials = trials
        .into_iter()
        .map(|(name, test)| needs_root(trial(name, test)));
    harness::run(trials.collect())
}

fn load(capacity: u32, interface_slot: u32, clock: Clock) -> Result<Kernel> {
    let options = LoadOptions {
        capacity,
        interface_slot,
        clock,
        relay_counters: false,
        trace: false,
        pins: None,
    };
    Kernel::load(&options, &Policy::new(DigestKey::FIXED))
}

/// The reported pair as if it were of another transaction.
fn pair(transaction: u32) -> [Vec<u8>; 2] {
    reported_pair().map(|frame| {
        // The checksum's partial form does not cover the message.
        let mut bytes = frame.checksum(Checksum::Partial).bytes();
        bytes[101..104].copy_from_slice(&transaction.to_be_bytes()[1..]);
        bytes
    })
}

fn more_relays_than_have_room() -> Result<()> {
    const MORE: u16 = 3;
    const ROUNDS: u64 = 4;
    let options = LoadOptions {
        capacity: 4096,
        interface_slot: 0,
        clock: Clock::Replay,
        relay_counters: true,
        trace: false,
        pins: None,
    };
    let mut kernel = Kernel::load(&options, &Policy::new(DigestKey::FIXED))?;
    let room = u16::try_from(MAX_RELAYS)?;
    let address = |number| Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, number);
    for _ in 0..ROUNDS {
        for number in 0..room + MORE {
            let xid = [1, number.to_be_bytes()[0], number.to_be_bytes()[1]];
            let message = ClientMessage::new(message_type::SOLICIT, xid).elapsed_time(0);
            let relay = address(number);
            let frame = relayed(relay, reported::SERVER, reported::CLIENT, &message);
            kernel.decide_at(&frame.bytes(), Timestamp(0))?;
        }
    }
    let tally = kernel.maps.relays()?;
    ensure!(tally.relays.keys().copied().eq((0..room).map(address)));
    for (relay, counters) in &tally.relays {
        let counted = Verdict::ALL.map(|verdict| counters.packets(verdict));
        ensure!(
            counted.iter().sum::<u64>() == ROUNDS,
            "{relay}: {counted:?}"
        );
    }
    let others = Verdict::ALL.map(|verdict| tally.others.packets(verdict));
    let expected = u64::from(MORE) * ROUNDS;
    ensure!(others.iter().sum::<u64>() == expected, "{others:?}");
    Ok(())
}

fn a_full_table() -> Result<()> {
    const CAPACITY: u32 = 4096;
    let mut kernel = load(CAPACITY, 0, Clock::Replay)?;
    for transaction in 0..8 * CAPACITY {
        let [a, b] = pair(transaction);
        let time = u64::from(transaction) * 10;
        assert_eq!(
            kernel.decide_at(&a, Timestamp(time))?,
            FIRST,
            "{transaction}"
        );
        assert_eq!(
            kernel.decide_at(&b, Timestamp(time + 9))?,
            DUPLICATE,
            "{transaction}"
        );
    }
    // What came first has long been evicted, and is a first again.
    let time = Timestamp(u64::from(8 * CAPACITY) * 10);
    assert_eq!(kernel.decide_at(&pair(0)[1], time)?, FIRST);
    assert_eq!(kernel.decide_at(&pair(0)[0], time)?, DUPLICATE);
    Ok(())
}

fn a_quarter_of_the_capacity() -> Result<()> {
    const CAPACITY: u32 = 16_384;
    let mut kernel = load(CAPACITY, 0, Clock::Replay)?;
    // First others, so that the table is full.
    for transaction in CAPACITY..4 * CAPACITY {
        kernel.decide_at(&pair(transaction)[0], Timestamp(0))?;
    }
    for transaction in 0..CAPACITY / 4 {
        let outcome = kernel.decide_at(&pair(transaction)[0], Timestamp(10_000_000))?;
        assert_eq!(outcome, FIRST, "{transaction}");
    }
    for transaction in 0..CAPACITY / 4 {
        let outcome = kernel.decide_at(&pair(transaction)[1], Timestamp(10_199_999))?;
        assert_eq!(outcome, DUPLICATE, "{transaction}");
    }
    Ok(())
}

fn no_more_than_the_capacity() -> Result<()> {
    const CAPACITY: u32 = 4096;
    let mut kernel = load(CAPACITY, 0, Clock::Replay)?;
    assert_eq!(kernel.maps.table_entries(), 0);
    for transaction in 0..1000 {
        kernel.decide_at(&pair(transaction)[0], Timestamp(5))?;
    }
    assert_eq!(kernel.maps.table_entries(), 1000);
    assert_eq!(kernel.maps.table().len(), 1000);
    let (identity, sighting) = kernel.maps.table().into_iter().next().unwrap();
    assert_eq!(identity.message.transaction_id().0[0], 0);
    assert_eq!(
        std::net::Ipv6Addr::from(identity.peer),
        testbed::frame::reported::CLIENT
    );
    assert_eq!(sighting.transmission(), 1);
    for transaction in 1000..4 * CAPACITY {
        kernel.decide_at(&pair(transaction)[0], Timestamp(5))?;
    }
    let entries = kernel.maps.table_entries();
    assert!(entries <= CAPACITY as usize, "{entries} entries");
    assert!(entries >= CAPACITY as usize / 2, "{entries} entries");
    Ok(())
}

fn slots() -> Result<()> {
    let last = MAX_INTERFACES as u32 - 1;
    for slot in [0, 1, last] {
        let mut kernel = load(4096, slot, Clock::Replay)?;
        let [a, b] = pair(7);
        kernel.decide_at(&a, Timestamp(0))?;
        kernel.decide_at(&b, Timestamp(39))?;
        for other in 0..=last {
            let counters = kernel.maps.counters(other)?;
            if other == slot {
                let one = Traffic {
                    packets: 1,
                    bytes: 211,
                };
                assert_eq!(counters.traffic(Reason::First, Verdict::Pass), one);
                assert_eq!(counters.traffic(Reason::Duplicate, Verdict::Drop), one);
            } else {
                assert_eq!(counters, InterfaceCounters::default(), "slot {other}");
            }
        }
    }
    Ok(())
}

fn a_change_of_policy() -> Result<()> {
    let mut kernel = load(4096, 0, Clock::Replay)?;
    let [a, b] = pair(7);
    assert_eq!(kernel.decide_at(&a, Timestamp(0))?, FIRST);
    let before = kernel.maps.counters(0)?;
    let policy = Policy::new(DigestKey::FIXED)
        .with_window(Window::new(Microseconds::from_seconds(60)).unwrap());
    kernel.maps.set_policy(&policy)?;
    assert_eq!(kernel.maps.policy()?, policy);
    assert_eq!(kernel.maps.counters(0)?, before);
    assert_eq!(kernel.maps.table_entries(), 1);
    assert_eq!(kernel.decide_at(&b, Timestamp(59_999_999))?, DUPLICATE);
    kernel.maps.forget()?;
    assert_eq!(kernel.maps.table_entries(), 0);
    assert_eq!(kernel.decide_at(&b, Timestamp(59_999_999))?, FIRST);
    Ok(())
}

fn no_policy() -> Result<()> {
    let options = LoadOptions {
        capacity: 4096,
        interface_slot: 0,
        clock: Clock::Replay,
        relay_counters: false,
        pins: None,
        trace: false,
    };
    // As another tool than `run` loads it: the map as the kernel made it.
    let mut kernel = Kernel::load_without_policy(&options)?;
    assert_eq!(kernel.maps.policy()?, Policy::zeroed());
    let [a, b] = pair(7);
    let start = 1_000_000_000;
    assert_eq!(kernel.decide_at(&a, Timestamp(start))?, FIRST);
    // In the same instant, later and earlier: the table says each time that it just passed.
    for time in [start, start + 39, start + 200_000, start, start - 1_000_000] {
        for copy in [&a, &b] {
            let (verdict, reason) = kernel.decide_at(copy, Timestamp(time))?;
            assert_eq!(verdict, Verdict::Pass, "{reason:?} at {time}");
        }
    }
    // What a policy has let in, under the zeros that it may give way to.
    let longest = Policy::zeroed().with_window(Window::LONGEST);
    for remembered in [longest, Policy::new(DigestKey::FIXED)] {
        kernel.maps.set_policy(&remembered)?;
        kernel.maps.forget()?;
        assert_eq!(kernel.decide_at(&a, Timestamp(start))?, FIRST);
        assert_eq!(kernel.decide_at(&b, Timestamp(start))?, DUPLICATE);
        kernel.maps.set_policy(&Policy::zeroed())?;
        for copy in [&b, &a, &b] {
            let (verdict, reason) = kernel.decide_at(copy, Timestamp(start))?;
            assert_eq!(verdict, Verdict::Pass, "{reason:?}");
        }
    }
    Ok(())
}

/// So many relays, of a network of their own, under this policy.
fn rules(network: u16, relays: usize, policy: Policy) -> Rules {
    let relay = |relay| {
        let [.., high, low] = u32::try_from(relay).unwrap().to_be_bytes();
        let last = u16::from_be_bytes([high, low]);
        Prefix::new([0x2001, 0xdb8, network, 0, 0, 0, 0, last].into(), 128)
    };
    Rules {
        policy: policy.with_untrusted(Some(Untrusted::Drop)),
        trusted_relays: (0..relays).map(relay).collect(),
    }
}

fn trusted_relays_give_way() -> Result<()> {
    let kernel = load(4096, 0, Clock::Replay)?;
    for network in 1..=3 {
        let rules = rules(network, MAX_TRUSTED_RELAYS, Policy::new(DigestKey::FIXED));
        kernel.maps.set_rules(&rules)?;
        let mut found = kernel.maps.rules()?;
        found
            .trusted_relays
            .sort_unstable_by_key(|prefix| Ipv6Addr::from(prefix.address()));
        assert_eq!(found, rules, "network {network}");
    }
    Ok(())
}

fn trusted_relays_without_room() -> Result<()> {
    let kernel = load(4096, 0, Clock::Replay)?;
    let policy = Policy::new(DigestKey::FIXED);
    let before = rules(1, 3, policy);
    kernel.maps.set_rules(&before)?;
    let too_many = rules(2, 2 * MAX_TRUSTED_RELAYS, policy.with_observe(true));
    ensure!(kernel.maps.set_rules(&too_many).is_err());
    let mut found = kernel.maps.rules()?;
    found
        .trusted_relays
        .sort_unstable_by_key(|prefix| Ipv6Addr::from(prefix.address()));
    assert_eq!(found, before);
    Ok(())
}

fn the_live_clock() -> Result<()> {
    let kernel = load(4096, 0, Clock::Live)?;
    let window = Window::new(Microseconds::from_seconds(1)).unwrap();
    kernel
        .maps
        .set_policy(&Policy::new(DigestKey::FIXED).with_window(window))?;
    let [a, b] = pair(7);
    let began = std::time::Instant::now();
    let action =
        |frame: &[u8]| Ok::<_, anyhow::Error>(kernel.run(Program::Filter, frame, 1)?.action);
    assert_eq!(action(&a)?, XDP_PASS);
    let second = action(&b)?;
    ensure!(
        began.elapsed().as_millis() < 1000,
        "this machine took a second for two system calls"
    );
    assert_eq!(second, XDP_DROP);
    std::thread::sleep(std::time::Duration::from_millis(1001));
    assert_eq!(action(&b)?, XDP_PASS);
    assert_eq!(action(&a)?, XDP_DROP);
    let counters = kernel.maps.counters(0)?;
    assert_eq!(counters.traffic(Reason::First, Verdict::Pass).packets, 1);
    assert_eq!(
        counters
            .traffic(Reason::Retransmission, Verdict::Pass)
            .packets,
        1
    );
    assert_eq!(
        counters.traffic(Reason::Duplicate, Verdict::Drop).packets,
        2
    );
    Ok(())
}

fn frames_of_all_lengths() -> Result<()> {
    let mut kernel = load(4096, 0, Clock::Replay)?;
    let [frame, _] = reported_pair();
    let frame = Frame {
        padding: vec![0; 20_000],
        ..frame
    }
    .bytes();
    let mut time = 0;
    for length in (14..300).chain((300..frame.len()).step_by(97)) {
        // Each is a first, if it holds the whole datagram.
        time += 2 * 70 * 60 * 1_000_000;
        let (verdict, reason) = kernel.decide_at(&frame[..length], Timestamp(time))?;
        let expected = match length {
            ..62 => Reason::NotDhcp,
            62..211 => Reason::Malformed,
            _ => Reason::First,
        };
        assert_eq!(
            (verdict, reason),
            (Verdict::Pass, expected),
            "{length} bytes"
        );
    }
    Ok(())
}

/// Every outcome on the first interface, for as long as any test runs.
fn everything() -> Wanted {
    Wanted::new(
        Outcomes::of(&Verdict::ALL, Reason::ALL),
        [0].into_iter().collect(),
        u64::MAX,
    )
}

/// A filter under the live clock with a window that no pause is longer than.
fn load_live(interface_slot: u32) -> Result<Kernel> {
    let kernel = load(4096, interface_slot, Clock::Live)?;
    let policy = Policy::new(DigestKey::FIXED).with_window(Window::LONGEST);
    kernel.maps.set_policy(&policy)?;
    Ok(kernel)
}

fn a_full_ring() -> Result<()> {
    const DROPS: u64 = 10_000;
    let kernel = load_live(0)?;
    kernel.maps.want_events(everything())?;
    let [first, copy] = pair(1);
    ensure!(kernel.run(Program::Filter, &first, 1)?.action == XDP_PASS);
    for number in 0..DROPS {
        let action = kernel.run(Program::Filter, &copy, 1)?.action;
        ensure!(action == XDP_DROP, "copy {number}: {action}");
    }
    let counted = kernel.maps.counters(0)?;
    let drops = counted.traffic(Reason::Duplicate, Verdict::Drop).packets;
    ensure!(drops == DROPS, "{drops} counted");

    let mut ring = kernel.maps.events()?;
    let mut told = 0;
    let mut before = 0;
    while let Some(record) = ring.next() {
        let event = Event::read(&record).unwrap();
        let expected = if told == 0 { FIRST } else { DUPLICATE };
        let decided = (event.decision.verdict(), event.decision.reason());
        ensure!(decided == expected, "{event:?}");
        ensure!(event.slot == 0 && event.time >= before, "{event:?}");
        (told, before) = (told + 1, event.time);
    }
    let lost = kernel.maps.lost_events()?;
    ensure!(
        lost > 0 && told + lost == DROPS + 1,
        "{told} told, {lost} lost"
    );
    // There is room again.
    kernel.run(Program::Filter, &copy, 1)?;
    ensure!(ring.next().is_some() && kernel.maps.lost_events()? == lost);
    Ok(())
}

fn events_of_all_lengths() -> Result<()> {
    let kernel = load_live(0)?;
    kernel.maps.want_events(everything())?;
    let mut ring = kernel.maps.events()?;
    // Around the sizes of both records, and beyond the first buffer.
    for length in (200..300)
        .chain(1500..1530)
        .chain(2030..2070)
        .chain([3000, 3600, 9000])
    {
        let [_, high, low] = [0, (length >> 8) as u8, length as u8];
        let message = ClientMessage::new(message_type::SOLICIT, [7, high, low]);
        let base = relayed(
            reported::RELAY_A,
            reported::SERVER,
            reported::CLIENT,
            &message,
        );
        let padding = vec![0xaa; length - base.bytes().len() - 4];
        let message = message.option(1000, &padding);
        let frame = relayed(
            reported::RELAY_A,
            reported::SERVER,
            reported::CLIENT,
            &message,
        );
        let bytes = frame.bytes();
        ensure!(bytes.len() == length, "{} bytes, not {length}", bytes.len());
        kernel.run(Program::Filter, &bytes, 1)?;
        let record = ring.next().unwrap();
        let event = Event::read(&record).unwrap();
        let packet = event.packet();
        ensure!(packet.length() == length, "{length}: {event:?}");
        let captured = length.min(2048);
        ensure!(packet.is_linear(captured) && !packet.is_linear(captured + 1));
        for (offset, byte) in bytes[..captured].iter().enumerate() {
            let told = packet.read::<u8>(offset);
            ensure!(told == Some(*byte), "{length}: byte {offset}");
        }
        ensure!(
            Description::of(&packet) == Description::of(&Bytes::new(&bytes)),
            "{length}: {:?}",
            Description::of(&packet)
        );
    }
    ensure!(kernel.maps.lost_events()? == 0);
    Ok(())
}

fn nothing_is_told() -> Result<()> {
    let of = |outcomes, slot, until| Wanted::new(outcomes, [slot].into_iter().collect(), until);
    let all = Outcomes::of(&Verdict::ALL, Reason::ALL);
    let drops = Outcomes::of(&[Verdict::Drop], Reason::ALL);
    for (what, wanted, told, is_wanted_still) in [
        ("everything", of(all, 3, u64::MAX), true, true),
        ("of another interface", of(all, 2, u64::MAX), false, true),
        ("other decisions", of(drops, 3, u64::MAX), false, true),
        (
            "till a nanosecond after the boot",
            of(all, 3, 1),
            false,
            false,
        ),
        ("nothing", Wanted::default(), false, false),
    ] {
        let kernel = load_live(3)?;
        kernel.maps.want_events(wanted)?;
        let [first, _] = pair(1);
        kernel.run(Program::Filter, &first, 1)?;
        let mut ring = kernel.maps.events()?;
        ensure!(ring.next().is_some() == told, "{what}");
        // A lease that is over is ended by the first frame that finds it so.
        let still = !kernel.maps.wanted_events()?.is_nothing();
        ensure!(still == is_wanted_still, "{what}");
        ensure!(kernel.maps.lost_events()? == 0, "{what}");
    }
    Ok(())
}
