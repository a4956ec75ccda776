//! What `seen` answers, as text and as JSON.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use testbed::frame::{ClientMessage, message_type};
use testbed::wait::until;

use crate::{
    Test,
    bed::{Answer, Bed, bed_with_three, solicit, words},
};

pub const TESTS: &[(&str, Test)] = &[
    (
        "seen lists what is remembered, the newest first, with its age and transmissions",
        seen,
    ),
    ("seen lists the newest only where more is not wanted", limit),
    (
        "seen tells of a transaction-id alone where that is the identity",
        seen_by_transaction_id,
    ),
];

fn seen() -> Result<()> {
    let bed = Bed::new(&["--window", "60s"])?;
    let nothing = bed.ask(&["seen"])?;
    ensure!(
        nothing.stdout == "no transaction is remembered\n",
        "{nothing:?}"
    );
    ensure!(bed.json(&["seen"])? == (vec![], Some(0)));

    let request = ClientMessage::new(message_type::REQUEST, [0xab, 0xcd, 0xef]);
    bed.send(&solicit(1))?;
    bed.wait_for("first", 1)?;
    bed.send(&request)?;
    bed.wait_for("first", 2)?;
    // The first client sends again.
    bed.send(&solicit(1).elapsed_time(100))?;
    bed.wait_for("retransmission", 1)?;

    let (lines, code) = bed.json(&["seen"])?;
    ensure!(code == Some(0));
    let text = bed.ask(&["seen", "--json"])?.stdout;
    let order = "{\"message\":\"solicit\",\"xid\":\"000001\",\"peer\":\"fe80::225:90ff:fefc:d38c\",\
                 \"destination\":\"2001:db8::b007\",\"transmissions\":2,\"age_seconds\":";
    ensure!(text.starts_with(order), "{text}");
    let mut ages = Vec::new();
    let mut rest = Vec::new();
    for mut line in lines {
        let age = line
            .as_object_mut()
            .and_then(|line| line.remove("age_seconds"));
        ages.push(age.and_then(|age| age.as_f64()).context("no age")?);
        rest.push(line);
    }
    let transaction = |message: &str, xid: &str, transmissions: u8| {
        json!({
            "message": message,
            "xid": xid,
            "peer": "fe80::225:90ff:fefc:d38c",
            "destination": "2001:db8::b007",
            "transmissions": transmissions,
            "within_window": true,
        })
    };
    let expected = [
        transaction("solicit", "000001", 2),
        transaction("request", "abcdef", 1),
    ];
    ensure!(rest == expected, "{rest:#?}");
    ensure!(
        ages.is_sorted() && ages[0] >= 0.0 && ages[1] < 60.0,
        "{ages:?}"
    );

    let text = bed.ask(&["seen"])?.stdout;
    let lines: Vec<_> = text.lines().map(words).collect();
    ensure!(
        lines[0]
            == [
                "age",
                "window",
                "sent",
                "message",
                "xid",
                "peer",
                "destination"
            ],
        "{text}"
    );
    let peer_and_server = ["fe80::225:90ff:fefc:d38c", "2001:db8::b007"];
    for (line, words) in [
        (1, ["within", "2", "solicit", "000001"]),
        (2, ["within", "1", "request", "abcdef"]),
    ] {
        ensure!(
            lines[line][1..] == [&words[..], &peer_and_server].concat(),
            "{text}"
        );
    }
    Ok(())
}

fn limit() -> Result<()> {
    let bed = bed_with_three()?;
    let Answer {
        code,
        stdout,
        stderr,
    } = bed.ask(&["seen", "--json", "--limit", "2"])?;
    ensure!(code == Some(0));
    let xids: Result<Vec<_>> = stdout
        .lines()
        .map(|line| Ok(serde_json::from_str::<Value>(line)?["xid"].clone()))
        .collect();
    ensure!(xids? == ["000003", "000002"], "{stdout}");
    ensure!(
        stderr == "xdp-dedup: note: the newest 2 of 3 transactions; --limit 3 lists all\n",
        "{stderr}"
    );
    let all = bed.ask(&["seen", "--json", "--limit", "3"])?;
    ensure!(
        all.stdout.lines().count() == 3 && all.stderr.is_empty(),
        "{all:?}"
    );
    Ok(())
}

fn seen_by_transaction_id() -> Result<()> {
    let bed = Bed::new(&["--identity", "xid", "--window", "1ms"])?;
    bed.send(&solicit(7))?;
    bed.wait_for("first", 1)?;
    let line = until("the end of the window", || {
        let line = bed.json_object(&["seen"])?;
        Ok((line["within_window"] == false).then_some(line))
    })?;
    for (key, value) in [
        ("message", Value::Null),
        ("xid", json!("000007")),
        ("peer", Value::Null),
        ("destination", Value::Null),
    ] {
        ensure!(line[key] == value, "{key}: {line:#}");
    }
    let text = bed.ask(&["seen"])?.stdout;
    let line = words(text.lines().nth(1).context("no line")?);
    ensure!(
        line[1] == "over" && line[3..] == ["-", "000007", "-", "-"],
        "{text}"
    );
    Ok(())
}
