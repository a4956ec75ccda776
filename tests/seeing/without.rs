//! What the commands say where something lacks: a daemon, privileges, a file system, anybody who reads.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testbed::{binary::binary, namespace::Namespace};

use crate::{
    Test,
    bed::{Answer, Bed, ask, bed_with_three},
};

const FAILED: i32 = 1;
const NOTHING_ATTACHED: i32 = 3;
const NOBODY: &str = "65534";

pub const TESTS: &[(&str, Test)] = &[
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
