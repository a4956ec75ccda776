//! Interfaces: what there is, in which state, and who is on it.

use std::process::Command;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use testbed::veth::cable;
use testbed::{
    binary::binary,
    daemon::Daemon,
    harness::{needs_root, trial},
    namespace::Namespace,
    veth::End,
};

use crate::report::{Complaint, Start};

/// What is done to the cable before.
type Change = fn(&Namespace, &End) -> Result<()>;

/// What is done before, the arguments, and what `check` then complains of.
type Row = (
    &'static str,
    Change,
    &'static [&'static str],
    &'static [Complaint<'static>],
);

const GENERIC: &str = "server0=generic";

const ROWS: &[Row] = &[
    (
        "finds nothing wrong with a plain cable",
        |_, _| Ok(()),
        &["-i", "server0"],
        &[],
    ),
    (
        "finds nothing wrong with it in generic mode",
        |_, _| Ok(()),
        &["-i", "server0", "--mode", "generic"],
        &[],
    ),
    (
        "finds nothing wrong with jumbo frames where the driver takes several buffers",
        |_, end| end.mtu(9000),
        &["-i", "server0"],
        &[],
    ),
    (
        "lists the interfaces that there are in place of one that there is not",
        |_, _| Ok(()),
        &["-i", "nope", "-i", "server0"],
        &[(
            "interface",
            Some("nope"),
            "fail",
            "there are lo, relay0, server0",
            "nsenter --net=/run/netns/NAME",
        )],
    ),
    (
        "warns of an interface that is down",
        |here, _| here.ip("link set server0 down").map(drop),
        &["-i", "server0"],
        &[(
            "link",
            Some("server0"),
            "warn",
            "down",
            "ip link set server0 up",
        )],
    ),
    (
        "warns of an interface without a carrier",
        |here, _| here.ip("link set relay0 down").map(drop),
        &["-i", "server0"],
        &[(
            "link",
            Some("server0"),
            "warn",
            "without a carrier",
            "cable",
        )],
    ),
    (
        "names generic mode where the driver has no XDP",
        |here, _| {
            let macvlan = "link add link server0 name above0 up type macvlan mode bridge";
            here.ip(macvlan).map(drop)
        },
        &["-i", "above0"],
        &[(
            "xdp_mode",
            Some("above0"),
            "fail",
            "native: the driver cannot",
            "--mode above0=generic",
        )],
    ),
    (
        "sees that a cable's other end has too many transmit queues for XDP",
        |here, _| {
            here.ip("link add name relay1 numtxqueues 4 up type veth peer name server1")?;
            here.ip("link set server1 up").map(drop)
        },
        &["-i", "server1"],
        &[(
            "xdp_mode",
            Some("server1"),
            "fail",
            "not as it is set up now",
            "ethtool -l server1",
        )],
    ),
    (
        "warns that GRO merges datagrams in generic mode",
        |_, end| end.feature("rx-gro-list", true),
        &["-i", "server0", "--mode", GENERIC],
        &[(
            "gro",
            Some("server0"),
            "warn",
            "rx-gro-list on: a frame may hold several datagrams",
            "ethtool -K server0 rx-gro-list off",
        )],
    ),
    (
        "warns that GRO merges datagrams to forward in generic mode",
        |_, end| end.feature("rx-udp-gro-forwarding", true),
        &["-i", "server0", "--mode", GENERIC],
        &[(
            "gro",
            Some("server0"),
            "warn",
            "rx-udp-gro-forwarding on",
            "ethtool -K server0 rx-udp-gro-forwarding off",
        )],
    ),
    (
        "lets GRO be in native mode, which comes before it",
        |_, end| end.feature("rx-gro-list", true),
        &["-i", "server0", "--mode", "native"],
        &[],
    ),
    (
        "refuses a bridge together with its port, in either order",
        |here, _| {
            here.ip("link add bridge0 up type bridge")?;
            here.ip("link set server0 master bridge0").map(drop)
        },
        &["-i", "bridge0", "-i", "server0", "--mode", "generic"],
        &[(
            "stacking",
            None,
            "fail",
            "bridge0 and server0 are stacked on one another",
            "attach to one of them only",
        )],
    ),
    (
        "takes two ports of one bridge",
        |here, _| {
            here.ip("link add bridge0 up type bridge")?;
            here.ip("link set server0 master bridge0")?;
            here.ip("link set relay0 master bridge0").map(drop)
        },
        &["-i", "server0", "-i", "relay0"],
        &[],
    ),
];

/// Command lines that contradict themselves, and what is said of them.
const WRONG: &[(&str, &[&str], &str)] = &[
    (
        "an interface twice",
        &["-i", "lo", "-i", "lo"],
        "lo is named twice",
    ),
    (
        "a mode for an interface that is not looked at",
        &["-i", "lo", "--mode", "eth1=generic"],
        "a mode for eth1",
    ),
    (
        "an unknown mode",
        &["--mode", "offload"],
        "native or generic",
    ),
];

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for &(name, change, arguments, complaints) in ROWS {
        trials.push(needs_root(trial(name, move || {
            let (here, end) = cable()?;
            change(&here, &end)?;
            Start::plainly(&here)
                .check(arguments)?
                .complains_of(complaints)
        })));
    }
    for &(name, arguments, text) in WRONG {
        trials.push(trial(format!("takes {name} for wrong usage"), move || {
            let output = Command::new(binary()?)
                .arg("check")
                .args(arguments)
                .output()?;
            let stderr = String::from_utf8_lossy(&output.stderr);
            ensure!(
                output.status.code() == Some(2),
                "{}: {stderr}",
                output.status
            );
            ensure!(stderr.contains(text), "no {text:?} in {stderr}");
            ensure!(output.stdout.is_empty(), "it looked all the same");
            Ok(())
        }));
    }
    trials.push(needs_root(trial(
        "names the program that is on an interface already",
        incumbent,
    )));
    trials.push(needs_root(trial(
        "describes an interface: driver, queues, MTU",
        description,
    )));
    trials
}

fn incumbent() -> Result<()> {
    let (here, _end) = cable()?;
    // On a BPF file system of its own, so it is a stranger here.
    let daemon = Daemon::start(&binary()?, &here, &["-i", "server0"])?;
    Start::plainly(&here)
        .check(&["-i", "server0", "-i", "relay0"])?
        .complains_of(&[
            ("metrics_port", None, "warn", "in use", "--metrics off"),
            (
                "xdp_program",
                Some("server0"),
                "fail",
                "program xdp_dedup (id ",
                "stop the tool that attached it",
            ),
        ])?;
    let attached = daemon.metrics()?.value("xdp_dedup_attached", &["server0"]);
    ensure!(attached == Some(1.0), "it was displaced");
    Ok(())
}

fn description() -> Result<()> {
    let (here, _end) = cable()?;
    here.ip("link add name server1 numrxqueues 3 up type veth peer name relay1")?;
    here.ip("link set relay1 up")?;
    let report = Start::plainly(&here).check(&["-i", "server1"])?;
    report.complains_of(&[])?;
    for (check, found) in [
        ("driver", "veth"),
        ("queues", "3, so up to 3 CPUs"),
        ("mtu", "1500"),
        ("xdp_mode", "native: the driver offers basic"),
        ("link", "up"),
    ] {
        let told = report.found(check)?;
        ensure!(told.contains(found), "{check}: {told}");
    }
    Ok(())
}
