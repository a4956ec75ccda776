//! The site as it was reported, with one client program a row.

use super::exchange::{self, Cast};
use super::{Row, Scenario};
use crate::dhcp::MessageType;
use crate::software::client::Client;

pub const SCENARIO: Scenario = Scenario {
    name: "mlag",
    expected: "two relays, Kea, each client's whole exchange: two answers to each message; with the \
               filter exactly one",
    at_once: 4,
    packages: &["connman", "dbus", "network-manager"],
    only_by_name: false,
    rows,
};

/// The longest first; NetworkManager and networkd renew when they like, up to ten seconds late.
const LONG: [(&str, Client); 4] = [
    ("systemd-networkd", Client::Networkd),
    ("NetworkManager", Client::NetworkManager),
    ("ConnMan", Client::Connman),
    ("dibbler-client", Client::Dibbler),
];

const QUICK: [(&str, Client); 3] = [
    ("dhclient", Client::Dhclient),
    ("dhcpcd", Client::Dhcpcd),
    ("WIDE dhcp6c", Client::Wide),
];

fn rows(short: bool) -> Vec<Row> {
    let long = if short { &[] } else { &LONG[..] };
    let clients = long.iter().chain(&QUICK);
    clients.map(|(name, client)| row(name, *client)).collect()
}

fn row(name: &str, client: Client) -> Row {
    let cast = Cast {
        client,
        ..Cast::USUAL
    };
    Row::new(name, move |play| {
        let exchange = exchange::play(play, cast)?;
        let releases = exchange.client.sent_of(MessageType::Release);
        let refused = exchange.client.complaints.len();
        let mut seen = exchange.seen();
        if releases == 0 {
            seen.say("it sends no Release");
        }
        // Kea's own harm: the first copy of a Release takes the lease away from the second.
        seen.must(
            play.filtered || refused >= releases,
            format!("{refused} of {releases} second Releases were refused"),
        );
        Ok(seen)
    })
}
