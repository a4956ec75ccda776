//! The site as it was reported, with one client program a row.

use super::exchange::{self, Cast};
use super::{Row, Scenario};
use crate::software::client::Client;

pub const SCENARIO: Scenario = Scenario {
    name: "mlag",
    expected: "two relays, Kea, each client's whole exchange: two answers to each message; with the \
               filter exactly one",
    at_once: 4,
    packages: &[],
    only_by_name: false,
    rows: |_| vec![row("dhclient", Client::Dhclient)],
};

fn row(name: &str, client: Client) -> Row {
    let cast = Cast {
        client,
        ..Cast::USUAL
    };
    Row::new(name, move |play| Ok(exchange::play(play, cast)?.seen()))
}
