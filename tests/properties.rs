//! The decision in userspace against the model of the rule, over generated scenes: a few clients and
//! relays, mutated frames, clocks that jump, policies changed live.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod settings;

use bytemuck::Zeroable as _;
use proptest::{prelude::*, sample::select};
use testbed::{
    frame::{
        Checksum, ClientMessage, ExtensionHeader, Frame, RelayForward,
        ethertype::{IEEE_8021AD, IEEE_8021Q},
        next_header,
        reported::{CLIENT, RELAY_A, RELAY_B, SERVER},
    },
    model::{Model, Settings},
};
use xdp_dedup_common::{
    Policy, Reason, Verdict, decide, digest::DigestKey, exact_table::ExactTable, packet::Bytes,
    time::Timestamp,
};

use crate::settings::{policy, trusted_relays};

const SECOND: i64 = 1_000_000;
const IDLE: i64 = 70 * 60 * SECOND;

/// What happens in a scene.
#[derive(Clone, Debug)]
enum Event {
    Settings(Settings),
    /// A frame so many microseconds after the one before.
    Frame(i64, Vec<u8>),
}

prop_compose! {
    fn settings()(
        window in select(vec![1_000, 200_000, 250_000, 60_000_000]),
        escalate_every in select(vec![0, 1, 2, 3, 3, 3, 5, 63]),
        by_transaction_id in prop::bool::weighted(0.1),
        all_messages in any::<bool>(),
        observe in prop::bool::weighted(0.1),
        trusted_relay in prop::option::weighted(0.2, trusted_relay()),
        drop_untrusted in any::<bool>(),
    ) -> Settings {
        Settings {
            window,
            escalate_every,
            by_transaction_id,
            all_messages,
            observe,
            trusted_relay,
            drop_untrusted,
        }
    }
}

/// Both relays, one of them, or neither: they differ in the last bit.
fn trusted_relay() -> impl Strategy<Value = ([u8; 16], u8)> {
    (
        select(vec![RELAY_A, CLIENT]),
        select(vec![0_u8, 1, 127, 128]),
    )
        .prop_map(|(address, length)| (address.octets(), length))
}

/// Gaps about everything that the rule draws a line at; some go backwards.
fn gap() -> impl Strategy<Value = i64> {
    let lines = select(vec![
        0,
        1_000,
        200_000,
        250_000,
        SECOND,
        60 * SECOND,
        IDLE,
        -SECOND,
    ]);
    prop_oneof![
        4 => 0_i64..300,
        4 => (lines, -1_i64..=1).prop_map(|(line, offset)| line + offset),
        1 => 0_i64..2 * IDLE,
        1 => -2 * SECOND..0,
    ]
}

/// Messages of few identities, so that many are equal.
fn client_message() -> impl Strategy<Value = ClientMessage> {
    let message_type = prop_oneof![4 => select(vec![1, 3]), 1 => select(vec![2, 5, 13, 20, 36])];
    let length = prop_oneof![3 => Just(60_usize), 1 => 20_usize..100];
    (message_type, 0..2_u8, 0..3_u16, length).prop_map(|(number, id, elapsed, length)| {
        ClientMessage::new(number, [0xab, id, 0xcd])
            .elapsed_time(elapsed)
            .padded_to(length)
    })
}

/// The message in one to three envelopes with options in any place, or as the client sent it.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let options = || prop::collection::vec((select(vec![17_u16, 18, 79]), 0_usize..9), 0..3);
    let layer = (options(), options());
    let client = select(vec![CLIENT, CLIENT, RELAY_A]);
    let layers = prop_oneof![
        1 => Just(vec![]),
        9 => prop::collection::vec(layer, 1..4),
    ];
    (client_message(), client, layers).prop_map(|(message, client, layers)| {
        let mut peer = client;
        layers
            .into_iter()
            .fold(message.bytes(), |inner, (before, after)| {
                let mut envelope = RelayForward::new(RELAY_A, peer, &inner);
                for (code, length) in before {
                    envelope = envelope.before(code, &vec![9; length]);
                }
                for (code, length) in after {
                    envelope = envelope.after(code, &vec![9; length]);
                }
                peer = RELAY_B;
                envelope.bytes()
            })
    })
}

fn extension_header() -> impl Strategy<Value = ExtensionHeader> {
    let number = select(vec![
        next_header::HOP_BY_HOP,
        next_header::ROUTING,
        next_header::DESTINATION_OPTIONS,
    ]);
    prop_oneof![
        8 => (number, 0..3_u8).prop_map(|(n, units)| ExtensionHeader::of_units(n, units)),
        4 => (0..5_u8).prop_map(ExtensionHeader::authentication),
        1 => (0..2_u16, any::<bool>()).prop_map(|(at, more)| ExtensionHeader::fragment(at, more)),
    ]
}

fn frame() -> impl Strategy<Value = Frame> {
    let tags = prop_oneof![
        3 => Just(vec![]),
        1 => prop::collection::vec(select(vec![IEEE_8021Q, IEEE_8021AD]), 1..4),
    ];
    let extension_headers = prop_oneof![
        3 => Just(vec![]),
        1 => prop::collection::vec(extension_header(), 1..10),
    ];
    let checksum = prop_oneof![
        8 => Just(Checksum::Complete),
        2 => Just(Checksum::Partial),
        1 => Just(Checksum::Wrong),
        1 => Just(Checksum::Zero),
    ];
    let addresses = (
        select(vec![RELAY_A, RELAY_B]),
        select(vec![SERVER, SERVER, SERVER, RELAY_A]),
    );
    let tail = (tags, extension_headers, checksum, 0..9_usize);
    (addresses, payload(), tail).prop_map(
        |((source, destination), payload, (tags, extension_headers, checksum, padding))| Frame {
            tags: tags.into_iter().map(|tag| (tag, 100)).collect(),
            extension_headers,
            checksum,
            padding: vec![0; padding],
            ..Frame::new(source, destination, payload)
        },
    )
}

/// Changes in a frame's bytes, places as parts of its length.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(f64, u8),
    Set(f64, u8),
    Cut(f64),
    Insert(f64, Vec<u8>),
    Remove(f64, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let place = || 0.0..1.0;
    let byte = prop_oneof![select(vec![0, 1, 3, 4, 8, 9, 12, 34, 255]), any::<u8>()];
    prop_oneof![
        (place(), 0..8_u8).prop_map(|(place, bit)| Mutation::Flip(place, 1 << bit)),
        (place(), byte).prop_map(|(place, byte)| Mutation::Set(place, byte)),
        place().prop_map(Mutation::Cut),
        (place(), prop::collection::vec(any::<u8>(), 1..9))
            .prop_map(|(place, bytes)| Mutation::Insert(place, bytes)),
        (place(), 1..9_usize).prop_map(|(place, count)| Mutation::Remove(place, count)),
    ]
}

fn mutate(mut bytes: Vec<u8>, mutations: Vec<Mutation>) -> Vec<u8> {
    for mutation in mutations {
        let at = |place: f64| (place * bytes.len() as f64) as usize;
        match mutation {
            Mutation::Flip(place, bits) => {
                let at = at(place);
                bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= bits);
            }
            Mutation::Set(place, value) => {
                let at = at(place);
                bytes.get_mut(at).into_iter().for_each(|byte| *byte = value);
            }
            Mutation::Cut(place) => bytes.truncate(at(place)),
            Mutation::Insert(place, new) => {
                let at = at(place);
                bytes.splice(at..at, new);
            }
            Mutation::Remove(place, count) => {
                let at = at(place);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
        }
    }
    bytes
}

fn frame_bytes() -> impl Strategy<Value = Vec<u8>> {
    let mutations = prop_oneof![
        3 => Just(vec![]),
        1 => prop::collection::vec(mutation(), 1..4),
    ];
    prop_oneof![
        30 => (frame(), mutations).prop_map(|(frame, changes)| mutate(frame.bytes(), changes)),
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ]
}

fn scene() -> impl Strategy<Value = Vec<Event>> {
    // The same frames come again and again.
    prop::collection::vec(frame_bytes(), 1..6).prop_flat_map(|frames| {
        let event = prop_oneof![
            1 => settings().prop_map(Event::Settings),
            9 => (gap(), select(frames)).prop_map(|(gap, frame)| Event::Frame(gap, frame)),
        ];
        prop::collection::vec(event, 1..40)
    })
}

/// The first event at which the decision under `key` and the model differ.
fn difference(events: &[Event], start: u64, key: DigestKey) -> Option<String> {
    let mut model = Model::default();
    let mut table = ExactTable::new(policy(&model.settings, key));
    let mut time = start;
    for (i, event) in events.iter().enumerate() {
        match event {
            Event::Settings(settings) => {
                model.settings = *settings;
                table.set_policy(policy(settings, key));
                table.set_trusted_relays(&trusted_relays(settings));
            }
            Event::Frame(gap, frame) => {
                time = time.saturating_add_signed(*gap);
                table.set_time(Timestamp(time));
                let decision = decide(&Bytes::new(frame), &table);
                let got = (decision.verdict().name(), decision.reason().name());
                let expected = model.judge(frame, time);
                if got != expected {
                    return Some(format!(
                        "event {i} at {time} us: {got:?}, but by the rule {expected:?}"
                    ));
                }
            }
        }
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_decision_is_that_of_the_model(
        events in scene(),
        start in select(vec![3 * IDLE as u64, (1 << 42) - 1_000_000, 1 << 50]),
    ) {
        let other_key = |shift: usize| DigestKey::new(std::array::from_fn(|i| 0x1234_5678_9abc_def1 << i >> shift));
        let keys = [DigestKey::FIXED, other_key(0), other_key(7)];
        // Of 2^16 pairs of messages one has one digest: under three keys at once none will.
        let differences: Vec<_> = keys
            .into_iter()
            .map_while(|key| difference(&events, start, key))
            .collect();
        prop_assert!(differences.len() < keys.len(), "{}", differences[0]);
    }

    #[test]
    fn what_the_first_buffer_does_not_hold_passes(frame in frame_bytes(), part in 0.0..1.0) {
        let reason = |linear| {
            let table = ExactTable::new(policy(&Settings::default(), DigestKey::FIXED));
            decide(&Bytes::with_linear_part(&frame, linear), &table).reason()
        };
        let linear = (part * frame.len() as f64) as usize;
        let got = reason(linear);
        prop_assert!(
            [Reason::Unverifiable, Reason::NotDhcp, reason(frame.len())].contains(&got),
            "{got:?} of {linear} of {} bytes",
            frame.len()
        );
    }

    #[test]
    fn without_a_policy_everything_passes(
        events in scene(),
        start in select(vec![3 * IDLE as u64, (1 << 42) - 1_000_000, 1 << 50]),
    ) {
        let mut policy_in_force = policy(&Settings::default(), DigestKey::FIXED);
        let mut table = ExactTable::new(policy_in_force);
        let mut time = start;
        for event in &events {
            match event {
                Event::Settings(settings) => {
                    policy_in_force = policy(settings, DigestKey::FIXED);
                    table.set_trusted_relays(&trusted_relays(settings));
                }
                Event::Frame(gap, frame) => {
                    time = time.saturating_add_signed(*gap);
                    table.set_time(Timestamp(time));
                    // The table is as the policy has it; then the frame comes once more.
                    table.set_policy(policy_in_force);
                    decide(&Bytes::new(frame), &table);
                    table.set_policy(Policy::zeroed());
                    let decision = decide(&Bytes::new(frame), &table);
                    prop_assert_eq!(decision.verdict(), Verdict::Pass, "{:?}", decision);
                }
            }
        }
    }

    #[test]
    fn any_bytes_pass(bytes in prop::collection::vec(any::<u8>(), 0..10_000)) {
        let table = ExactTable::new(policy(&Settings::default(), DigestKey::FIXED));
        let decision = decide(&Bytes::new(&bytes), &table);
        prop_assert_eq!(decision.reason(), Reason::NotDhcp);
    }
}

#[test]
fn the_scenes_reach_every_outcome() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut outcomes = std::collections::BTreeMap::new();
    for _ in 0..500 {
        let events = scene().new_tree(&mut runner).unwrap().current();
        let mut model = Model::default();
        let mut time = 3 * IDLE as u64;
        for event in events {
            match event {
                Event::Settings(settings) => model.settings = settings,
                Event::Frame(gap, frame) => {
                    time = time.saturating_add_signed(gap);
                    *outcomes.entry(model.judge(&frame, time)).or_insert(0) += 1;
                }
            }
        }
    }
    println!("{outcomes:#?}");
    for reason in Reason::ALL {
        // None can occur with an exact table in frames of few options and bytes.
        let rare = [Reason::TableError, Reason::Unverifiable, Reason::TooDeep];
        for verdict in reason.verdicts() {
            let outcome = (verdict.name(), reason.name());
            assert!(
                rare.contains(reason) || outcomes.contains_key(&outcome),
                "never {outcome:?}"
            );
        }
    }
}
