//! The lab's reading of captures, on those whose story their README tells: a lab that misreads shows
//! what it likes.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use pcap_file::pcap::PcapReader;
use xdp_dedup_lab::dhcp::{Message, MessageType};
use xdp_dedup_lab::tally::{self, ClientSide};

/// The messages of a capture; those of clients count as sent where it was taken.
fn capture(name: &str) -> Vec<Message> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../captures");
    let file = File::open(folder.join(name).with_extension("pcap")).unwrap();
    let mut reader = PcapReader::new(file).unwrap();
    let mut messages = Vec::new();
    while let Some(frame) = reader.next_packet() {
        let frame = frame.unwrap();
        let message = Message::read(frame.timestamp, false, &frame.data).unwrap();
        let outgoing = message.is_of_client();
        messages.push(Message {
            outgoing,
            ..message
        });
    }
    messages
}

#[test]
fn each_client_at_two_relays_has_two_answers_to_each_message() {
    for client in ["dhclient", "dhcpcd", "networkd", "odhcp6c", "wide"] {
        let side = ClientSide::of(&capture(&format!("01-tworelays-{client}-client")));
        assert!(side.sent >= 1, "{client}: {side:?}");
        assert_eq!(side.answers, 2 * side.sent, "{client}");
        assert_eq!((side.fewest_answers, side.most_answers), (2, 2), "{client}");
        assert!(side.complaints.is_empty(), "{client}");
    }
}

#[test]
fn one_transaction_id_for_solicit_and_request_makes_two_transactions() {
    let messages = capture("01-tworelays-udhcpc6-client");
    let ids: BTreeSet<_> = messages.iter().map(|m| m.transaction_id).collect();
    let side = ClientSide::of(&messages);
    assert!(ids.len() < side.sent, "{ids:?}");
    assert_eq!((side.fewest_answers, side.most_answers), (2, 2));
}

#[test]
fn clients_that_nobody_answers_have_no_answers() {
    for client in [
        "dhclient", "dhcpcd", "networkd", "odhcp6c", "udhcpc6", "wide",
    ] {
        let side = ClientSide::of(&capture(&format!("04-retrans-{client}-client")));
        assert!(side.sent > 2, "{client}: {side:?}");
        assert_eq!((side.answers, side.most_answers), (0, 0), "{client}");
    }
}

#[test]
fn retransmissions_are_one_message_with_a_growing_elapsed_time() {
    let client = capture("04-retrans-dhclient-client");
    let server = capture("04-retrans-dhclient-server");
    let sent = tally::sent(&client, &server, &[]);
    let [solicit] = &sent[..] else {
        panic!("{} messages", sent.len());
    };
    assert_eq!(solicit.kind, MessageType::Solicit);
    assert_eq!(solicit.transmissions.len(), client.len());
    assert_eq!(solicit.answered(), None);
    for transmission in &solicit.transmissions {
        let relays: BTreeSet<_> = transmission.relayed.iter().collect();
        assert_eq!((transmission.relayed.len(), relays.len()), (2, 2));
        assert!(transmission.reached.is_empty());
    }
    let elapsed: Vec<_> = client.iter().map(|message| message.elapsed_time).collect();
    assert!(elapsed.is_sorted() && elapsed[0] < *elapsed.last().unwrap());
}

#[test]
fn the_second_release_is_answered_no_binding() {
    let side = ClientSide::of(&capture("07-renew-rebind-release-dhclient-client"));
    assert!(
        side.complaints
            .iter()
            .any(|status| status == "NoBinding to a Release"),
        "{side:?}"
    );
}

#[test]
fn envelopes_are_opened_where_each_relay_puts_the_message() {
    for (name, envelopes, offsets) in [
        ("01-tworelays-dhclient-server", 1, &[38][..]),
        ("02-relaykinds-A_isc-B_isc-iid-server", 1, &[46]),
        ("02-relaykinds-A_dnsmasq-B_dnsmasq-server", 1, &[50]),
        ("03-nested2-server", 2, &[76]),
        ("03-nested3-server", 3, &[114]),
    ] {
        let mut messages = capture(name);
        messages.retain(|message| message.is_relay_forward());
        let found: BTreeSet<_> = messages.iter().map(|message| message.offset).collect();
        assert_eq!(Vec::from_iter(found), offsets, "{name}");
        assert!(
            messages
                .iter()
                .all(|message| message.envelopes.len() == envelopes),
            "{name}"
        );
        for copies in tally::copies(&messages).values() {
            let gap = copies[1].time - copies[0].time;
            assert_eq!(copies.len(), 2, "{name}");
            assert!(gap < Duration::from_millis(150), "{name}: {gap:?}");
        }
        assert_eq!(tally::gaps(&messages).len() * 2, messages.len(), "{name}");
    }
}

#[test]
fn tags_are_counted() {
    for (name, tags) in [("05-vlan100", 1), ("05-qinq-88a8-8100", 2)] {
        assert!(
            capture(name).iter().all(|message| message.tags == tags),
            "{name}"
        );
    }
}

#[test]
fn a_percentile_is_the_smallest_value_that_so_many_do_not_exceed() {
    let ten: Vec<Duration> = (1..=10).map(Duration::from_secs).collect();
    for (percent, expected) in [(0, 1), (10, 1), (11, 2), (50, 5), (99, 10), (100, 10)] {
        let found = tally::percentile(&ten, percent);
        assert_eq!(found, Duration::from_secs(expected), "{percent}");
    }
    assert_eq!(tally::percentile(&[], 50), Duration::ZERO);
}
