//! Sequences of a few frames each: captured or generated, some of them mutated, at times about
//! everything that the rule draws a line at.

use std::{fmt, net::Ipv6Addr};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use testbed::{
    frame::{
        Checksum, ClientMessage, ExtensionHeader, Frame, RelayForward,
        ethertype::{IEEE_8021AD, IEEE_8021Q},
        next_header,
        reported::{CLIENT, RELAY_A, RELAY_B, SERVER},
    },
    model::Settings,
};
use xdp_dedup::kernel::Kernel;

const SECOND: i64 = 1_000_000;
const IDLE: i64 = 70 * 60 * SECOND;
/// Between the first frames of two sequences: more than a sequence takes, and 70 idle minutes.
const SPACING: u64 = 16 * 3600 * SECOND as u64;
/// Where the bits of a stamp start over.
const TURN: u64 = 1 << 42;
/// `BPF_PROG_TEST_RUN` refuses shorter frames.
const SHORTEST: usize = 14;
const ETHERNET_HEADER: usize = 14;
const UDP: usize = 54;

/// A few frames at their times, in microseconds.
pub struct Sequence {
    pub settings: Settings,
    pub frames: Vec<(u64, Vec<u8>)>,
    /// Whether the model, which knows but one buffer and has whole times, can judge it.
    pub suits_the_model: bool,
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", self.settings)?;
        for (time, frame) in &self.frames {
            write!(f, "  {time:14} ")?;
            frame.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

pub struct Generator {
    seed: u64,
    captures: Vec<Vec<Vec<u8>>>,
}

impl Generator {
    pub fn new(seed: u64, captures: Vec<Vec<Vec<u8>>>) -> Self {
        Self { seed, captures }
    }

    /// The sequence of this number, the `place`-th that shares a table.
    pub fn sequence(&self, number: u64, place: u64) -> Sequence {
        let mut rng = StdRng::seed_from_u64(self.seed.rotate_left(32) ^ number);
        let settings = settings(&mut rng);
        let captured = rng.random_bool(0.5);
        let mut pool = if captured {
            self.captured(&mut rng)
        } else {
            generated(&mut rng)
        };
        for frame in &mut pool {
            freshen(frame, place as u16);
        }
        let mut time = start(place);
        let mut frames = Vec::new();
        for _ in 0..rng.random_range(2..=6) {
            let mut frame = pool.choose(&mut rng).unwrap().clone();
            if rng.random_bool(0.35) {
                mutate(&mut rng, &mut frame);
            }
            frame.resize(frame.len().max(SHORTEST), 0);
            frames.push((time, frame));
            time = time.saturating_add_signed(gap(&mut rng, &settings));
        }
        let linear = Kernel::linear_part_of_test_run();
        Sequence {
            settings,
            suits_the_model: frames.iter().all(|(_, frame)| frame.len() <= linear)
                // Transaction-ids come again in other sequences, maybe a turn of time later.
                && !settings.by_transaction_id,
            frames,
        }
    }

    /// Frames that followed one another: mostly a message through two relays.
    fn captured(&self, rng: &mut StdRng) -> Vec<Vec<u8>> {
        let capture = self.captures.choose(rng).unwrap();
        let first = rng.random_range(0..capture.len());
        let count = rng.random_range(1..=4);
        capture[first..].iter().take(count).cloned().collect()
    }
}

/// A sequence's first time. Where a turn of time falls between two, it begins just before that.
fn start(place: u64) -> u64 {
    let slot = (place + 1) * SPACING;
    let turn = slot.next_multiple_of(TURN);
    if turn - slot < SPACING / 4 {
        turn - 100
    } else {
        slot
    }
}

fn settings(rng: &mut StdRng) -> Settings {
    if rng.random_bool(0.5) {
        return Settings::default();
    }
    Settings {
        window: *[1_000, 200_000, 250_000, 60_000_000].choose(rng).unwrap(),
        escalate_every: *[0, 1, 2, 3, 63].choose(rng).unwrap(),
        by_transaction_id: rng.random_bool(0.1),
        all_messages: rng.random_bool(0.4),
        observe: rng.random_bool(0.1),
        trusted_relay: rng.random_bool(0.2).then(|| {
            // Both generated relays, one of them, the captured ones, or none.
            let address = [
                RELAY_A,
                CLIENT,
                Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 0xa),
            ]
            .choose(rng)
            .unwrap()
            .octets();
            (address, *[0, 48, 127, 128].choose(rng).unwrap())
        }),
        drop_untrusted: rng.random_bool(0.5),
    }
}

fn gap(rng: &mut StdRng, settings: &Settings) -> i64 {
    let lines = [
        0,
        settings.window as i64,
        settings.window as i64,
        SECOND,
        IDLE,
        -SECOND,
    ];
    match rng.random_range(0..8) {
        0..4 => rng.random_range(0..200),
        4..6 => lines.choose(rng).unwrap() + rng.random_range(-1..=1),
        6 => rng.random_range(0..2 * IDLE),
        _ => rng.random_range(-2 * SECOND..2 * SECOND),
    }
}

/// A message by one client through two relays, with some more of them by chance.
fn generated(rng: &mut StdRng) -> Vec<Vec<u8>> {
    let number = *[1, 1, 3, 4, 5, 6, 8, 9, 11, 36, 2, 13, 20]
        .choose(rng)
        .unwrap();
    let length = match rng.random_range(0..10) {
        0 => rng.random_range(1490..1510),
        1 => rng.random_range(14..40),
        _ => rng.random_range(40..400),
    };
    let id = rng.random();
    let layers = match rng.random_range(0..20) {
        0 => 0,
        1 => rng.random_range(4..70),
        2..5 => rng.random_range(2..4),
        _ => 1,
    };
    let elapsed: u16 = rng.random();
    let mut frames = Vec::new();
    for (relay, later) in [(RELAY_A, 0), (RELAY_B, 0), (RELAY_B, 1)] {
        let message = ClientMessage::new(number, id)
            .elapsed_time(elapsed.wrapping_add(later))
            .padded_to(length);
        let mut peer = CLIENT;
        let payload = (0..layers).fold(message.bytes(), |inner, _| {
            let mut envelope = RelayForward::new(relay, peer, &inner);
            for _ in 0..options(rng) {
                envelope = envelope.before(18, &vec![7; rng.random_range(0..12)]);
            }
            for _ in 0..options(rng) {
                envelope = envelope.after(17, &vec![7; rng.random_range(0..12)]);
            }
            if rng.random_bool(0.01) {
                envelope = envelope.after(17, &vec![7; rng.random_range(3000..4000)]);
            }
            peer = relay;
            envelope.bytes()
        });
        let mut frame = Frame::new(relay, SERVER, payload);
        if rng.random_bool(0.1) {
            frame.checksum = *[Checksum::Partial, Checksum::Wrong, Checksum::Zero]
                .choose(rng)
                .unwrap();
        }
        if rng.random_bool(0.1) {
            for _ in 0..rng.random_range(1..4) {
                frame = frame.tag(*[IEEE_8021Q, IEEE_8021AD].choose(rng).unwrap(), 100);
            }
        }
        if rng.random_bool(0.15) {
            for _ in 0..*[1, 2, 8, 9].choose(rng).unwrap() {
                frame = frame.extension_header(extension_header(rng));
            }
        }
        if rng.random_bool(0.1) {
            frame.padding = vec![0xee; rng.random_range(1..60)];
        }
        frames.push(frame.bytes());
    }
    frames
}

/// How many options stand on one side of the message: few, or about as many as are walked.
fn options(rng: &mut StdRng) -> usize {
    match rng.random_range(0..40) {
        0 => rng.random_range(60..68),
        1..8 => rng.random_range(1..4),
        _ => 0,
    }
}

fn extension_header(rng: &mut StdRng) -> ExtensionHeader {
    match rng.random_range(0..8) {
        0..2 => ExtensionHeader::authentication(rng.random_range(0..6)),
        2 => ExtensionHeader::fragment(rng.random_range(0..2), rng.random()),
        _ => {
            let kinds = [
                next_header::HOP_BY_HOP,
                next_header::ROUTING,
                next_header::DESTINATION_OPTIONS,
            ];
            ExtensionHeader::of_units(*kinds.choose(rng).unwrap(), rng.random_range(0..4))
        }
    }
}

/// Gives the frame a destination of its own, so that no sequence meets another's messages. Two words
/// change by the same amount up and down, which no checksum notices.
fn freshen(frame: &mut [u8], place: u16) {
    let mut ipv6 = ETHERNET_HEADER;
    while frame.get(ipv6 - 2..ipv6).is_some_and(|ethertype| {
        [IEEE_8021Q, IEEE_8021AD].contains(&u16::from_be_bytes([ethertype[0], ethertype[1]]))
    }) {
        ipv6 += 4;
    }
    for (offset, amount) in [(ipv6 + 26, place), (ipv6 + 28, 0xffff - place)] {
        if let Some([high, low]) = frame.get_mut(offset..offset + 2) {
            let word = u32::from(u16::from_be_bytes([*high, *low])) + u32::from(amount);
            [*high, *low] = ((word % 0xffff) as u16).to_be_bytes();
        }
    }
}

fn mutate(rng: &mut StdRng, frame: &mut Vec<u8>) {
    for _ in 0..rng.random_range(1..4) {
        if frame.is_empty() {
            return;
        }
        let at = match rng.random_range(0..3) {
            0 => rng.random_range(0..frame.len().min(UDP + 50)),
            _ => rng.random_range(0..frame.len()),
        };
        match rng.random_range(0..12) {
            0..4 => frame[at] ^= 1 << rng.random_range(0..8),
            4..6 => frame[at] = *[0, 1, 4, 9, 12, 34, 255].choose(rng).unwrap(),
            6 => frame.truncate(at),
            7 => {
                let bytes: [u8; 8] = rng.random();
                frame.splice(at..at, bytes[..rng.random_range(1..=8)].iter().copied());
            }
            8 => drop(frame.drain(at..(at + rng.random_range(1..9)).min(frame.len()))),
            // What most often is a length.
            _ => {
                let at = *[18, UDP + 4, 98, at].choose(rng).unwrap();
                if let Some([high, low]) = frame.get_mut(at..at + 2) {
                    let length = u16::from_be_bytes([*high, *low]);
                    let length = length.wrapping_add_signed(rng.random_range(-9..=9));
                    [*high, *low] = length.to_be_bytes();
                }
            }
        }
    }
    if rng.random_bool(0.4) {
        mend(frame);
    }
}

/// Puts lengths and checksum of a plain frame right, so that what changed inside matters.
fn mend(frame: &mut [u8]) {
    if frame.len() < UDP + 8 || frame[12..15] != [0x86, 0xdd, 0x60] || frame[20] != next_header::UDP
    {
        return;
    }
    let length = ((frame.len() - UDP) as u16).to_be_bytes();
    frame[18..20].copy_from_slice(&length);
    frame[UDP + 4..UDP + 6].copy_from_slice(&length);
    frame[UDP + 6..UDP + 8].fill(0);
    let words: u64 = frame[22..]
        .chunks(2)
        .map(|word| u64::from(word[0]) << 8 | word.get(1).copied().map_or(0, u64::from))
        .sum();
    let mut sum = words + (frame.len() - UDP) as u64 + u64::from(next_header::UDP);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = match !(sum as u16) {
        0 => 0xffff,
        checksum => checksum,
    };
    frame[UDP + 6..UDP + 8].copy_from_slice(&checksum.to_be_bytes());
}
