//! What `status`, `stats` and `seen` answer, as text and as JSON.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
    time::SystemTime,
};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use testbed::{
    binary::binary,
    frame::{ClientMessage, message_type},
    harness::{needs_root, trial},
    namespace::Namespace,
};

use crate::bed::{Answer, Bed, ask, until};

/// What a trial runs.
type Test = fn() -> Result<()>;

const FAILED: i32 = 1;
const NOTHING_ATTACHED: i32 = 3;
const NOBODY: &str = "65534";

pub fn trials() -> Vec<Trial> {
    let tests: &[(&str, Test)] = &[
        (
            "status tells where the filter is, since when, which program, under which policy",
            status,
        ),
        (
            "status tells of each interface by its name now, and of its mode",
            interfaces,
        ),
        ("status follows a policy that is changed", changed_policy),
        ("stats counts what the exporter counts", stats),
        (
            "stats --watch --json tells what came each second, in a line each, until SIGTERM",
            watch_in_lines,
        ),
        (
            "stats --watch --json ends with a line on standard error when the filter is gone",
            watch_to_the_end,
        ),
        (
            "seen lists what is remembered, the newest first, with its age and transmissions",
            seen,
        ),
        ("seen lists the newest only where more is not wanted", limit),
        (
            "seen tells of a transaction-id alone where that is the identity",
            seen_by_transaction_id,
        ),
        (
            "all three read what a killed daemon has left, and status says that it is attached nowhere",
            left_over,
        ),
        (
            "where nothing is, status says so and exits with 3, and stats and seen fail with a line",
            nothing,
        ),
        (
            "where the BPF file system is hidden, all three say so instead of finding nothing",
            hidden,
        ),
        (
            "a folder that another user may have made is believed by none of them",
            forged,
        ),
        (
            "without privileges all three say what they lack in one line",
            no_privileges,
        ),
        ("a reader who has enough is no error", enough),
    ];
    tests
        .iter()
        .map(|&(name, test)| needs_root(trial(name, test)))
        .collect()
}

fn solicit(number: u8) -> ClientMessage {
    ClientMessage::new(message_type::SOLICIT, [0, 0, number]).elapsed_time(0)
}

/// A line of text as its words.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// Whether a line consists of these words.
fn has_line(text: &str, wanted: &[&str]) -> bool {
    text.lines().any(|line| words(line) == wanted)
}

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

/// Three first copies and three duplicates within a window of a minute.
fn bed_with_three() -> Result<Bed> {
    let bed = Bed::new(&["--window", "60s"])?;
    for number in 1..=3 {
        bed.send(&solicit(number))?;
    }
    bed.wait_for("duplicate", 3)?;
    Ok(bed)
}

/// Series of the exporter as `{interface="server0",...} 3`, and the same of the JSON.
fn exported(bed: &Bed, metric: &str) -> Result<BTreeMap<String, u64>> {
    let metrics = bed.daemon.metrics()?;
    let series = metrics.lines(metric).map(|line| {
        let (labels, value) = line[metric.len()..].split_once(' ').context("no value")?;
        Ok((labels.to_owned(), value.parse()?))
    });
    series.collect()
}

fn stats() -> Result<()> {
    let bed = bed_with_three()?;
    let stats = bed.json_object(&["stats"])?;
    let series = |list: &str, labels: &[&str], value: &str| -> BTreeMap<String, u64> {
        let rows = stats[list].as_array().unwrap().iter();
        rows.map(|row| {
            let label = |name: &&str| format!("{name}={}", row[*name]);
            let labels: Vec<_> = labels.iter().map(label).collect();
            (
                format!("{{{}}}", labels.join(",")),
                row[value].as_u64().unwrap(),
            )
        })
        .collect()
    };
    for (metric, list, labels, value) in [
        (
            "xdp_dedup_packets_total",
            "counters",
            &["interface", "verdict", "reason"][..],
            "packets",
        ),
        (
            "xdp_dedup_bytes_total",
            "counters",
            &["interface", "verdict", "reason"],
            "bytes",
        ),
        (
            "xdp_dedup_relay_packets_total",
            "relays",
            &["relay", "verdict"],
            "packets",
        ),
    ] {
        let (exported, told) = (exported(&bed, metric)?, series(list, labels, value));
        ensure!(exported == told, "{metric}: {exported:#?} is not {told:#?}");
        ensure!(
            told.values().sum::<u64>() > 0,
            "{metric}: nothing was counted"
        );
    }
    ensure!(
        stats["table"] == json!({"entries": 3, "capacity": 65536}),
        "{stats:#}"
    );
    ensure!(stats["window_seconds"] == 60.0, "{stats:#}");
    let gaps = &stats["gaps"];
    ensure!(gaps["packets"] == 3, "{gaps:#}");
    let buckets = gaps["buckets"].as_array().context("no buckets")?;
    let in_buckets: u64 = buckets
        .iter()
        .map(|it| it["packets"].as_u64().unwrap())
        .sum();
    ensure!(in_buckets == 3 && buckets.len() == 22, "{gaps:#}");
    let median = gaps["median_seconds"].as_f64().context("no median")?;
    ensure!(gaps["largest_seconds"].as_f64() >= Some(median), "{gaps:#}");

    let text = bed.ask(&["stats"])?.stdout;
    let bytes = |reason: &str| {
        let rows = stats["counters"].as_array().unwrap().iter();
        let mut rows = rows.filter(|row| row["reason"] == reason && row["packets"] == 3);
        rows.next().unwrap()["bytes"].to_string()
    };
    for line in [
        &["interface", "verdict", "reason", "packets", "bytes"][..],
        &["server0", "pass", "first", "3", &bytes("first")],
        &["server0", "drop", "duplicate", "3", &bytes("duplicate")],
        &["relay", "verdict", "packets"],
        &["2001:db8:1::fffe", "pass", "3"],
        &["2001:db8:1::ffff", "drop", "3"],
        &["table", "3", "of", "65536", "entries"],
    ] {
        ensure!(has_line(&text, line), "no {line:?} in {text}");
    }
    ensure!(text.contains("gaps   3: median at most "), "{text}");
    ensure!(
        text.contains("(bounds of the histogram's buckets)"),
        "{text}"
    );
    ensure!(
        !text.contains("malformed") && !text.contains("other"),
        "more than counted: {text}"
    );
    Ok(())
}

fn watch_in_lines() -> Result<()> {
    let bed = Bed::new(&["--window", "60s"])?;
    let mut command = bed.command(&["stats", "--watch", "--json"])?;
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    let mut next = || -> Result<Value> {
        let line = lines.next().context("no more lines")??;
        Ok(serde_json::from_str(&line)?)
    };
    let counter = |line: &Value| -> Value {
        let mut rows = line["counters"].as_array().unwrap().iter();
        rows.find(|row| row["reason"] == "duplicate" && row["verdict"] == "drop")
            .unwrap()
            .clone()
    };
    let quiet = next()?;
    ensure!(counter(&quiet)["packets_per_second"] == 0.0, "{quiet:#}");
    for number in 1..=3 {
        bed.send(&solicit(number))?;
    }
    // Whatever part of the three each line tells of, they make up all of them.
    let (mut sum, mut packets) = (0.0, 0);
    while packets < 3 {
        let line = next()?;
        let interval = line["interval_seconds"].as_f64().context("no interval")?;
        let rate = counter(&line)["packets_per_second"]
            .as_f64()
            .context("no rate")?;
        sum += rate * interval;
        packets = counter(&line)["packets"].as_u64().context("no packets")?;
        let relay = &line["relays"][0]["packets_per_second"];
        ensure!(relay.is_number(), "no rate of relays: {line:#}");
    }
    ensure!(
        (sum - 3.0).abs() < 0.1,
        "{sum} packets by their rates, not 3"
    );
    ensure!(
        counter(&next()?)["packets_per_second"] == 0.0,
        "nothing came any more"
    );
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)?;
    let status = child.wait()?;
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .context("no stderr")?
        .read_to_string(&mut stderr)?;
    ensure!(status.success() && stderr.is_empty(), "{status}: {stderr}");
    Ok(())
}

fn watch_to_the_end() -> Result<()> {
    let bed = Bed::new(&[])?;
    let mut command = bed.command(&["stats", "--watch", "--json"])?;
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
    lines.next().context("no line")??;
    bed.daemon.signal(Signal::SIGTERM)?;
    let mut stderr = String::new();
    let mut errors = child.stderr.take().context("no stderr")?;
    errors.read_to_string(&mut stderr)?;
    let status = child.wait()?;
    ensure!(status.code() == Some(FAILED), "{status}: {stderr}");
    ensure!(
        stderr == "xdp-dedup: nothing is attached in this network namespace\n",
        "{stderr}"
    );
    Ok(())
}

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

fn left_over() -> Result<()> {
    let bed = bed_with_three()?;
    let [status, stats, seen] = [["status"], ["stats"], ["seen"]].map(|command| bed.json(&command));
    let (before, stats, seen) = (status?.0.remove(0), stats?.0.remove(0), seen?.0);
    let Bed {
        here,
        daemon,
        place,
        ..
    } = bed;
    daemon.stop(Signal::SIGKILL)?;
    let json = |command: &str| -> Result<(Vec<Value>, Option<i32>)> {
        let mut process = place.command(binary()?);
        process.args([command, "--json"]);
        let answer = ask(process)?;
        let lines: Result<_, _> = answer.stdout.lines().map(serde_json::from_str).collect();
        Ok((lines.with_context(|| format!("{answer:?}"))?, answer.code))
    };

    let mut expected = before;
    expected["daemon_running"] = json!(false);
    expected["daemon_pid"] = Value::Null;
    expected["interfaces"][0]["attached"] = json!(false);
    let (status, code) = json("status")?;
    ensure!(status == [expected], "{status:#?}");
    ensure!(code == Some(NOTHING_ATTACHED), "exit code {code:?}");
    let mut command = place.command(binary()?);
    command.arg("status");
    let text = ask(command)?;
    ensure!(text.code == Some(NOTHING_ATTACHED), "{text:?}");
    ensure!(
        text.stdout
            .contains("not running; what it left is not attached: start `xdp-dedup run`"),
        "{text:?}"
    );

    let (later, code) = json("stats")?;
    ensure!(
        code == Some(0) && later[0]["counters"] == stats["counters"],
        "{later:#?}"
    );
    let (later, code) = json("seen")?;
    let xids = |lines: &[Value]| lines.iter().map(|it| it["xid"].clone()).collect::<Vec<_>>();
    ensure!(code == Some(0) && xids(&later) == xids(&seen), "{later:#?}");
    drop(here);
    Ok(())
}

/// A command in a fresh network namespace, after `set_up` of its own mounts.
fn in_fresh_place(set_up: &str, arguments: &[&str]) -> Result<Answer> {
    let here = Namespace::new("nothing")?;
    let mut command = here.command("unshare");
    command
        .args(["--mount", "sh", "-c"])
        .arg(format!("{set_up} && exec \"$0\" \"$@\""))
        .arg(binary()?)
        .args(arguments)
        .stdin(Stdio::null());
    ask(command)
}

/// Arguments of all three and of `events`, each with what JSON makes of them.
const ALL: [&[&str]; 9] = [
    &["status"],
    &["status", "--json"],
    &["stats"],
    &["stats", "--json"],
    &["stats", "--json", "--watch"],
    &["seen"],
    &["seen", "--json"],
    &["events"],
    &["events", "--json"],
];

fn nothing() -> Result<()> {
    const NOTHING: &str = "nothing is attached in this network namespace";
    for set_up in [
        "mount -t bpf bpf /sys/fs/bpf",
        // Half of what belongs to a filter, as at the moment of its start: the folder alone.
        "mount -t bpf bpf /sys/fs/bpf && \
         mkdir -p /sys/fs/bpf/xdp-dedup/netns-$(stat -L -c %i /proc/self/ns/net)",
    ] {
        for arguments in ALL {
            let answer = in_fresh_place(set_up, arguments)?;
            let case = format!("{set_up}: {arguments:?}: {answer:?}");
            match arguments {
                ["status"] => ensure!(
                    answer.code == Some(NOTHING_ATTACHED)
                        && answer.stdout == format!("{NOTHING}\n")
                        && answer.stderr.is_empty(),
                    "{case}"
                ),
                ["status", _] => {
                    let status: Value = serde_json::from_str(&answer.stdout)?;
                    let expected = json!({
                        "daemon_running": false,
                        "daemon_pid": null,
                        "interfaces": [],
                        "policy": null,
                        "table": null,
                    });
                    ensure!(answer.code == Some(NOTHING_ATTACHED), "{case}");
                    ensure!(status == expected && answer.stderr.is_empty(), "{case}");
                }
                _ => {
                    ensure!(
                        answer.code == Some(FAILED) && answer.stdout.is_empty(),
                        "{case}"
                    );
                    ensure!(answer.stderr.contains(NOTHING), "{case}");
                    ensure!(answer.stderr.lines().count() == 1, "{case}");
                }
            }
        }
    }
    Ok(())
}

fn hidden() -> Result<()> {
    for arguments in ALL {
        // As under `ip netns exec`.
        let answer = in_fresh_place("mount -t tmpfs none /sys/fs/bpf", arguments)?;
        let case = format!("{arguments:?}: {answer:?}");
        ensure!(
            answer.code == Some(FAILED) && answer.stdout.is_empty(),
            "{case}"
        );
        ensure!(
            answer
                .stderr
                .contains("no BPF file system is mounted at /sys/fs/bpf"),
            "{case}"
        );
        ensure!(answer.stderr.lines().count() == 1, "{case}");
    }
    Ok(())
}

fn forged() -> Result<()> {
    const FOLDER: &str = "/sys/fs/bpf/xdp-dedup/netns-$(stat -L -c %i /proc/self/ns/net)";
    for forgery in [
        &format!("mkdir -p {FOLDER} && chown -R 65534 /sys/fs/bpf/xdp-dedup"),
        &format!("mkdir -p {FOLDER} && chown 65534 {FOLDER}"),
        &format!("mkdir -p {FOLDER} && chmod 777 {FOLDER}"),
        &format!("mkdir /sys/fs/bpf/xdp-dedup /sys/fs/bpf/mine && ln -s /sys/fs/bpf/mine {FOLDER}"),
    ] {
        for arguments in ALL {
            let answer = in_fresh_place(
                &format!("mount -t bpf bpf /sys/fs/bpf && {forgery}"),
                arguments,
            )?;
            let case = format!("{forgery}: {arguments:?}: {answer:?}");
            ensure!(
                answer.code == Some(FAILED) && answer.stdout.is_empty(),
                "{case}"
            );
            ensure!(answer.stderr.contains("belongs to somebody else"), "{case}");
            ensure!(answer.stderr.lines().count() == 1, "{case}");
        }
    }
    Ok(())
}

fn no_privileges() -> Result<()> {
    let bed = Bed::new(&[])?;
    // Where everybody can execute it.
    let folder = tempfile::tempdir()?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
    let copy = folder.path().join("xdp-dedup");
    fs::copy(binary()?, &copy)?;
    let run = |capabilities: &str, arguments: &[&str]| -> Result<Answer> {
        let mut command: Command = bed.place.command("setpriv");
        command
            .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
            .arg(format!("--inh-caps={capabilities}"))
            .arg(format!("--ambient-caps={capabilities}"))
            .arg(&copy)
            .args(arguments)
            .stdin(Stdio::null());
        ask(command)
    };
    for arguments in ALL {
        for (capabilities, lacking) in [
            ("-all", "CAP_DAC_OVERRIDE"),
            ("-all,+bpf", "CAP_DAC_OVERRIDE"),
            // Enough to find the maps, but not to open them.
            ("-all,+dac_read_search", "CAP_BPF, CAP_DAC_OVERRIDE"),
        ] {
            let answer = run(capabilities, arguments)?;
            let case = format!("{capabilities}: {arguments:?}: {answer:?}");
            ensure!(
                answer.code == Some(FAILED) && answer.stdout.is_empty(),
                "{case}"
            );
            let text = format!("this process lacks {lacking}; run it as root");
            ensure!(answer.stderr.contains(&text), "no {text:?}: {case}");
            ensure!(answer.stderr.lines().count() == 1, "{case}");
        }
    }
    // These two are all that it takes.
    for arguments in [["status"], ["stats"], ["seen"]] {
        let answer = run("-all,+bpf,+dac_override", &arguments)?;
        ensure!(
            answer.code == Some(0) && answer.stderr.is_empty(),
            "{arguments:?}: {answer:?}"
        );
    }
    Ok(())
}

fn enough() -> Result<()> {
    let bed = bed_with_three()?;
    for arguments in [
        "seen",
        "seen --json",
        "stats",
        "status",
        "stats --watch --json",
    ] {
        let mut command = bed.place.command("bash");
        command
            .arg("-c")
            .arg(format!(
                "\"$0\" {arguments} | true; exit ${{PIPESTATUS[0]}}"
            ))
            .arg(binary()?)
            .stdin(Stdio::null());
        let answer = ask(command)?;
        ensure!(answer.code == Some(0), "{arguments}: {answer:?}");
        ensure!(answer.stderr.is_empty(), "{arguments}: {answer:?}");
    }
    Ok(())
}
