//! What `status` answers, as text and as JSON.

use std::{
    fs::{self},
    time::SystemTime,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use testbed::wait::until;

use crate::{
    Test,
    bed::{Answer, Bed, has_line, words},
};

pub const TESTS: &[(&str, Test)] = &[
    (
        "status tells where the filter is, since when, which program, under which policy",
        status,
    ),
    (
        "status tells of each interface by its name now, and of its mode",
        interfaces,
    ),
    ("status follows a policy that is changed", changed_policy),
];

fn status() -> Result<()> {
    let before = SystemTime::now();
    let bed = Bed::new(&["--capacity", "2048"])?;
    let status = bed.json_object(&["status"])?;
    let interface = &status["interfaces"][0];
    let since = interface["since"].as_str().context("no since")?;
    let time = humantime::parse_rfc3339(since)?;
    ensure!(before <= time && time <= SystemTime::now(), "{since}");
    ensure!(
        since.len() == "2026-11-22T15:32:01.937496Z".len(),
        "{since}"
    );
    let id = interface["program_id"].to_string();
    let tag = interface["program_tag"].as_str().context("no tag")?;
    let labels = [format!("id=\"{id}\""), format!("tag=\"{tag}\"")];
    let labels: Vec<_> = labels.iter().map(String::as_str).collect();
    let info = bed
        .daemon
        .metrics()?
        .value("xdp_dedup_program_info", &labels);
    ensure!(info == Some(1.0), "the exporter knows no {labels:?}");
    let pid = bed.daemon.pid().as_raw();
    let expected = json!({
        "daemon_running": true,
        "daemon_pid": pid,
        "interfaces": [{
            "interface": "server0",
            "index": bed.here.ip("-o link show server0")?.split(':').next().unwrap().parse::<u32>()?,
            "mode": "native",
            "attached": true,
            "since": since,
            "program_id": interface["program_id"],
            "program_tag": tag,
        }],
        "policy": {
            "window_seconds": 0.2,
            "identity": "client",
            "escalate_every": 3,
            "messages": "relayed",
            "observe": false,
            "trusted_relays": [],
            "untrusted": null,
        },
        "table": {"entries": 0, "capacity": 2048},
    });
    ensure!(status == expected, "{status:#} is not {expected:#}");

    let Answer {
        code,
        stdout,
        stderr,
    } = bed.ask(&["status"])?;
    ensure!(code == Some(0) && stderr.is_empty(), "{code:?}: {stderr}");
    let (seconds, _) = since.split_once('.').context("no fraction")?;
    for line in [
        &["interface", "mode", "attached", "since", "program", "tag"][..],
        &["server0", "native", "yes", &format!("{seconds}Z"), &id, tag],
        &["daemon", "running,", "process", &pid.to_string()],
        &["window", "200ms"],
        &["identity", "client"],
        &["escalate-every", "3"],
        &["messages", "relayed"],
        &["observe", "no"],
        &["trusted-relay", "all"],
        &["table", "0", "of", "2048", "entries"],
    ] {
        ensure!(has_line(&stdout, line), "no {line:?} in {stdout}");
    }
    Ok(())
}

fn interfaces() -> Result<()> {
    // Not by `Bed`, which has one interface.
    let bed = Bed::new(&["-i", "lo", "--mode", "lo=generic"])?;
    let shown = |status: &Value| -> Vec<(String, String, bool)> {
        let interfaces = status["interfaces"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        interfaces
            .iter()
            .map(|it| {
                (
                    text(&it["interface"]),
                    text(&it["mode"]),
                    it["attached"] == true,
                )
            })
            .collect()
    };
    let both = |first: &str, attached| {
        [(first, "native", attached), ("lo", "generic", true)]
            .map(|(name, mode, attached)| (name.to_owned(), mode.to_owned(), attached))
    };
    let status = bed.json_object(&["status"])?;
    ensure!(shown(&status) == both("server0", true), "{status:#}");

    bed.here.ip("link set server0 down")?;
    bed.here.ip("link set server0 name renamed0")?;
    let status = bed.json_object(&["status"])?;
    ensure!(shown(&status) == both("renamed0", true), "{status:#}");

    bed.here.ip("link del renamed0")?;
    let status = bed.json_object(&["status"])?;
    let gone = format!("ifindex-{}", status["interfaces"][0]["index"]);
    ensure!(shown(&status) == both(&gone, false), "{status:#}");
    let text = bed.ask(&["status"])?.stdout;
    let line = text
        .lines()
        .find(|line| line.starts_with(&gone))
        .context("no line")?;
    ensure!(
        words(line)[..3] == [gone.as_str(), "native", "no"],
        "{text}"
    );
    Ok(())
}

fn changed_policy() -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(&file, "window = \"1ms\"\n")?;
    let bed = Bed::new(&["--config", &file.path().to_string_lossy()])?;
    let policy =
        |bed: &Bed| -> Result<Value> { Ok(bed.json_object(&["status"])?["policy"].clone()) };
    ensure!(
        policy(&bed)?["window_seconds"] == 0.001,
        "{}",
        policy(&bed)?
    );
    fs::write(
        &file,
        "window = \"60s\"\nidentity = \"xid\"\nescalate-every = 0\nmessages = \"all\"\n\
         observe = true\nuntrusted = \"drop\"\ntrusted-relay = [\"2001:db8:b::a\", \"2001:db8::/32\"]\n",
    )?;
    bed.daemon.signal(Signal::SIGHUP)?;
    let expected = json!({
        "window_seconds": 60.0,
        "identity": "xid",
        "escalate_every": 0,
        "messages": "all",
        "observe": true,
        "trusted_relays": ["2001:db8::/32", "2001:db8:b::a"],
        "untrusted": "drop",
    });
    until("the new policy", || {
        Ok((policy(&bed)? == expected).then_some(()))
    })?;
    let text = bed.ask(&["status"])?.stdout;
    for line in [
        &["window", "1m"][..],
        &["identity", "xid"],
        &["escalate-every", "0,", "never"],
        &["messages", "all"],
        &["observe", "yes"],
        &["trusted-relay", "2001:db8::/32,", "2001:db8:b::a"],
        &["untrusted", "drop"],
    ] {
        ensure!(has_line(&text, line), "no {line:?} in {text}");
    }
    Ok(())
}
