//! The site as it was reported, with one server program a row.

use super::exchange::{self, Cast, WHOLE, WITHOUT_RENEWAL};
use super::{Row, Scenario};
use crate::dhcp::MessageType;
use crate::software::server::Server;

pub const SCENARIO: Scenario = Scenario {
    name: "servers",
    expected: "two relays, dhclient, one server program a row: two answers to each message; with \
               the filter exactly one",
    at_once: 6,
    packages: &[],
    only_by_name: false,
    rows,
};

fn rows(short: bool) -> Vec<Row> {
    let mut rows = vec![
        row("Kea", Server::Kea, WHOLE),
        row("ISC dhcpd", Server::Dhcpd, WHOLE),
    ];
    if short {
        rows.push(row("dnsmasq, no renewal", Server::Dnsmasq, WITHOUT_RENEWAL));
    } else {
        rows.extend([
            // Its clients renew after a minute.
            row("dnsmasq", Server::Dnsmasq, WHOLE),
            row("dibbler", Server::Dibbler, WHOLE),
            row("WIDE", Server::Wide, WHOLE),
            // Its clients renew after half an hour.
            row("coredhcp, no renewal", Server::Coredhcp, WITHOUT_RENEWAL),
        ]);
    }
    rows
}

fn row(name: &str, server: Server, steps: &'static [MessageType]) -> Row {
    let cast = Cast {
        server,
        steps,
        ..Cast::USUAL
    };
    Row::new(name, move |play| Ok(exchange::play(play, cast)?.seen()))
}
