//! Two servers with one virtual address. keepalived moves it in mid-exchange, so that the rest of
//! the exchange goes to a server, and to a filter, that know nothing of its beginning.
//!
//! Each filter has a table of its own, so it pairs a copy only with one that came to the same
//! server. When the takeover falls between two copies, both pass: nothing is lost, and the client
//! gets one answer too many.

mod stage;

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use self::stage::{Account, Departure, Stage};
use super::{Row, Scenario};
use crate::dhcp::{self, Message, MessageType};
use crate::play::{Play, Seen};
use crate::software::server::Lifetimes;
use crate::tally::{ClientSide, answers_to, copies};

pub const SCENARIO: Scenario = Scenario {
    name: "vrrp",
    expected: "two servers with one virtual address, moved by keepalived in mid-exchange: two answers \
               to each message, before and after; with the filter one; no client lost, and no \
               advertisement of VRRP's",
    at_once: 3,
    packages: &[],
    only_by_name: false,
    rows: |short| {
        let told = Takeover {
            before: MessageType::Solicit,
            after: MessageType::Request,
            by: Departure::Told,
            lifetimes: Lifetimes::LONG,
        };
        let cable_pulled = Takeover {
            before: MessageType::Request,
            after: MessageType::Renew,
            by: Departure::CablePulled,
            lifetimes: RENEWING,
        };
        let row = |name, takeover| Row::new(name, move |play| between_messages(play, takeover));
        let mut rows = vec![row("after the Advertise", told)];
        if !short {
            rows.push(row("after the Reply", cable_pulled));
        }
        rows.push(Row::new("between two copies", between_copies));
        rows
    },
};

/// Short enough to see the clients renew.
const RENEWING: Lifetimes = Lifetimes {
    renew: Duration::from_secs(2),
    ..Lifetimes::LONG
};

/// A takeover between two messages of an exchange.
#[derive(Clone, Copy, Debug)]
struct Takeover {
    /// The last that the master answers.
    before: MessageType,
    /// The first that the standby answers.
    after: MessageType,
    by: Departure,
    lifetimes: Lifetimes,
}

/// Three clients are held in mid-exchange until the address has moved.
fn between_messages(play: &Play<'_>, takeover: Takeover) -> Result<Seen> {
    let Takeover {
        before, after, by, ..
    } = takeover;
    let mut seen = Seen::default();
    let mut stage = Stage::new(play, takeover.lifetimes)?;
    let each = if play.filtered { 1 } else { 2 };
    let mut seats = stage.three_clients(play, after)?;
    for seat in &mut seats {
        seat.until_answered(before, each)?;
    }
    let took = stage.take_over(by)?;
    for seat in &seats {
        seat.let_go()?;
    }
    for seat in &mut seats {
        seat.until_answered(after, each)?;
    }
    let clients = seats.len();
    stage.until_standby_was_sent(2 * clients)?;
    for seat in seats {
        let messages = seat.finish()?;
        let side = ClientSide::of(&messages);
        seen.must(
            side.fewest_answers == each && side.most_answers == each,
            format!("not {each} to each message of a client, but {side:?}"),
        );
        must_have_kept_its_address(&mut seen, &messages, before, after);
    }
    let accounts = stage.accounts(by, &mut seen)?;
    let [server, standby] = &accounts;
    seen.say(format!("{clients} clients"));
    tell(&mut seen, took, &accounts);
    seen.figure("clients", clients);
    seen.must(
        server.kinds().iter().all(|kind| *kind != after)
            && standby.kinds().iter().all(|kind| *kind == after),
        "the takeover did not fall between the messages",
    );
    for account in &accounts {
        let lacks = |copies_of: &[Message], wanted| {
            copies(copies_of)
                .values()
                .any(|copies| copies.len() != wanted)
        };
        seen.must(
            !lacks(&account.relayed, 2),
            "the relays did not both send a copy of each message",
        );
        seen.must(
            !lacks(&account.reached, each),
            format!("not {each} of each message reached the {}", account.name),
        );
    }
    Ok(seen)
}

/// One relay is held up, so that the address moves between its copy of a Solicit and the other's.
fn between_copies(play: &Play<'_>) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut stage = Stage::new(play, Lifetimes::LONG)?;
    let each = if play.filtered { 1 } else { 2 };
    let late = 1;
    stage.relays[late].signal(Signal::SIGSTOP)?;
    let mut seat = stage.client(play, MessageType::Request)?;
    seat.until_answered(MessageType::Solicit, 1)?;
    let took = stage.take_over(Departure::Told)?;
    stage.relays[late].signal(Signal::SIGCONT)?;
    seat.until_answered(MessageType::Solicit, 2)?;
    seat.let_go()?;
    seat.until_answered(MessageType::Request, each)?;
    stage.until_standby_was_sent(3)?;

    let messages = seat.finish()?;
    let [solicits, requests] =
        [MessageType::Solicit, MessageType::Request].map(|kind| stage::sent(&messages, kind));
    let [to_solicit, to_request] = [MessageType::Solicit, MessageType::Request]
        .map(|kind| answers_to(&messages, kind).count());
    must_have_kept_its_address(
        &mut seen,
        &messages,
        MessageType::Solicit,
        MessageType::Request,
    );
    let accounts = stage.accounts(Departure::Told, &mut seen)?;
    let [server, standby] = &accounts;
    seen.say(format!(
        "{to_solicit} answers to the Solicit, {to_request} to the Request"
    ));
    tell(&mut seen, took, &accounts);
    seen.figure("answers_to_solicit", to_solicit);
    seen.figure("answers_to_request", to_request);
    seen.must(
        server.relayed.len() == solicits && standby.relayed.len() == solicits + 2 * requests,
        "the takeover did not fall between the copies of the Solicit",
    );
    seen.must(
        to_solicit == 2 * solicits,
        "not both copies of the Solicit were answered",
    );
    seen.must(
        to_request == each * requests,
        format!("not {each} to the Request"),
    );
    Ok(seen)
}

/// The lease is what was offered, or granted, before the takeover.
fn must_have_kept_its_address(
    seen: &mut Seen,
    messages: &[Message],
    before: MessageType,
    after: MessageType,
) {
    let addresses = |kind| -> BTreeSet<Ipv6Addr> {
        answers_to(messages, kind)
            .filter(|answer| answer.complaints.is_empty())
            .flat_map(|answer| answer.addresses.clone())
            .collect()
    };
    let leased = addresses(after);
    seen.must(
        leased.len() == 1 && leased.is_subset(&addresses(before)),
        format!("the {} was not granted: {leased:?}", dhcp::name(after)),
    );
}

/// Tells what each server saw, and demands what holds wherever the takeover falls.
fn tell(seen: &mut Seen, took: Duration, accounts: &[Account; 2]) {
    seen.say(format!("address moved in {} ms", took.as_millis()));
    seen.figure("takeover_milliseconds", took.as_millis() as u64);
    for account in accounts {
        let Account { name, answers, .. } = account;
        seen.excuse_if_busy(&account.relayed);
        let messages = account.kinds().len();
        seen.say(format!(
            "{name}: {}, {}",
            count(messages, "message"),
            count(*answers, "answer")
        ));
        seen.figure(&format!("messages_to_{name}"), messages);
        seen.figure(&format!("answers_of_{name}"), *answers);
        seen.must(
            account.times_master == 1,
            format!("the {name} became master {} times", account.times_master),
        );
        let dropped = account.dropped();
        let Some(counters) = &account.counters else {
            seen.must(dropped == 0, format!("a frame was lost before the {name}"));
            continue;
        };
        seen.figure(&format!("duplicates_dropped_at_{name}"), dropped);
        let duplicates = counters.get(&("drop".to_owned(), "duplicate".to_owned()));
        seen.must(
            counters.values().sum::<u64>() == account.relayed.len() as u64
                && duplicates.copied().unwrap_or(0) == dropped as u64,
            format!("the {name}'s counters do not tell what became of each frame: {counters:?}"),
        );
    }
    if accounts[0].counters.is_some() {
        let [server, standby] = accounts.each_ref().map(Account::dropped);
        seen.say(format!("{server} and {standby} copies dropped"));
    }
    let mut heard = Vec::new();
    for account in accounts {
        let name = account.name;
        let Some([at_relay, at_other]) = account.advertisements else {
            continue;
        };
        heard.push(format!("{at_other} of the {name}'s {at_relay}"));
        seen.figure(&format!("advertisements_of_{name}"), at_relay);
        seen.figure(&format!("advertisements_of_{name}_heard"), at_other);
        seen.must(
            at_relay > 0 && at_relay == at_other,
            format!("an advertisement of the {name}'s is missing"),
        );
    }
    seen.say(format!("advertisements heard: {}", heard.join(", ")));
}

fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
