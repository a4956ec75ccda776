//! The number of the maps' layout.

use std::fmt::Write as _;
use std::net::Ipv6Addr;

use anyhow::{Context as _, Result, ensure};
use bytemuck::{Pod, Zeroable as _, bytes_of};
use testbed::frame::{reported, reported_pair};
use xdp_dedup::layout::shapes;
use xdp_dedup::maps::{LAYOUT, NAMES};
use xdp_dedup_common::counters::{InterfaceCounters, RelayCounters};
use xdp_dedup_common::digest::DigestKey;
use xdp_dedup_common::event::{Header, Outcomes, Wanted};
use xdp_dedup_common::exact_table::ExactTable;
use xdp_dedup_common::identity::Address;
use xdp_dedup_common::interface::InterfaceNote;
use xdp_dedup_common::message::MessageHeader;
use xdp_dedup_common::packet::Bytes;
use xdp_dedup_common::policy::{EscalateEvery, IdentityBy, Messages, Untrusted, Window};
use xdp_dedup_common::time::{Microseconds, Timestamp};
use xdp_dedup_common::{Entry as _, Identity, Policy, Reason, Surroundings as _, Verdict, decide};

/// What [`LAYOUT`] stands for: the maps, and a sample of what is in them, byte by byte. A change of
/// anything here takes another number, for a program must not read what it would misunderstand.
const NUMBER: u32 = 2;
const DESCRIPTION: &str = include_str!("layout.txt");

pub fn the_number_stands_for_this_layout() -> Result<()> {
    let found = description()?;
    ensure!(
        found == DESCRIPTION,
        "the maps have another layout now: count LAYOUT up (xdp-dedup/src/maps.rs), and put the new \
         number and this text into tests/persist/layout.rs and layout.txt:\n{found}"
    );
    ensure!(
        LAYOUT == NUMBER,
        "LAYOUT is {LAYOUT}, but tests/persist/layout.rs has layout {NUMBER}"
    );
    Ok(())
}

fn description() -> Result<String> {
    let mut text = String::new();
    let shapes = shapes(65536);
    let names = shapes.map(|(name, _)| name);
    ensure!(names == NAMES, "{names:?} have a shape, of {NAMES:?}");
    for (name, shape) in shapes {
        writeln!(text, "{name}: {shape}")?;
    }
    let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    let verdicts: Vec<_> = Verdict::ALL.iter().map(|verdict| verdict.name()).collect();
    writeln!(text, "reasons: {}", reasons.join(" "))?;
    writeln!(text, "verdicts: {}", verdicts.join(" "))?;

    let policy = Policy::new(DigestKey::FIXED);
    let table = ExactTable::new(policy);
    let mut counters = InterfaceCounters::zeroed();
    let mut event = Header {
        time: 0x0505_0505,
        slot: 6,
        length: 0x0707,
        captured: 0x0808,
        ..Header::zeroed()
    };
    let drops = Outcomes::of(&[Verdict::Drop], Reason::ALL);
    let wanted = Wanted::new(drops, [0, 9].into_iter().collect(), 0x0a0a_0a0a);
    let [first, second] = reported_pair().map(|frame| frame.bytes());
    for (frame, time) in [(&first, 1_000_000_000_000), (&second, 1_000_000_000_039)] {
        table.set_time(Timestamp(time));
        let decision = decide(&Bytes::new(frame), &table);
        counters.count(&decision, frame.len());
        event.decision = decision;
    }
    let [a, b, c] = reported::TRANSACTION_ID;
    let identity = Identity {
        destination: reported::SERVER.into(),
        peer: reported::CLIENT.into(),
        message: MessageHeader::from_wire([1, a, b, c]),
    };
    let sighting = table.recall(&identity).context("not in the table")?.load();
    let relays = table.relays();
    let (relay, relay_counters): (&Address, &RelayCounters) =
        relays.first_key_value().context("no relay")?;
    ensure!(Ipv6Addr::from(*relay) == reported::RELAY_A);
    let every = EscalateEvery::new(5).context("no such number")?;
    let policy = policy
        .with_window(Window::new(Microseconds(0x0123_4567)).context("no such window")?)
        .with_escalate_every(every)
        .with_identity(IdentityBy::TransactionId)
        .with_messages(Messages::All)
        .with_observe(true)
        .with_untrusted(Some(Untrusted::Drop));
    let note = InterfaceNote {
        index: 0x0101,
        generic: 1,
        program_id: 0x0202,
        namespace: 0x0505,
        program_tag: 0x0303_0303,
        since: 0x0404_0404,
    };
    for (what, bytes) in [
        ("TABLE key", hex(&identity)),
        ("TABLE value", hex(&sighting)),
        ("POLICY value", hex(&policy)),
        ("COUNTERS value", hex(&counters)),
        ("INTERFACES value", hex(&note)),
        ("RELAYS key", hex(relay)),
        ("RELAYS value", hex(relay_counters)),
        ("EVENTS record", hex(&event)),
        ("EVENTS_WANTED value", hex(&wanted)),
    ] {
        writeln!(text, "{what}: {bytes}")?;
    }
    Ok(text)
}

/// Bytes in hexadecimal; of zeros how many.
fn hex(value: &impl Pod) -> String {
    let bytes = bytes_of(value);
    let mut text = String::new();
    for run in bytes.chunk_by(|a, b| (*a == 0) == (*b == 0)) {
        // Writing to a string cannot fail.
        let _ = match run {
            [0, ..] if run.len() > 4 => write!(text, "({} zeros)", run.len()),
            _ => run.iter().try_for_each(|byte| write!(text, "{byte:02x}")),
        };
    }
    text
}
