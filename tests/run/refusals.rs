//! What `run` refuses: in one line on stderr, with the right exit code, leaving nothing behind.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use libtest_mimic::Trial;
use testbed::veth::cable;
use testbed::{
    binary::binary,
    daemon::{Attempt, Daemon, attempt},
    harness::{needs_root, trial},
    veth::End,
};
use xdp_dedup::{
    attachment::{self, Mode},
    interfaces,
    kernel::{Clock, DEFAULT_CAPACITY, Kernel, LoadOptions},
    state::block_on,
};

/// What a trial runs.
type Test = fn() -> Result<()>;

const USAGE: i32 = 2;
const FAILED: i32 = 1;

/// The command line, and what its error must say; no privileges are needed to be refused.
const COMMAND_LINES: &[(&str, &[&str], i32, &str)] = &[
    ("no interface", &[], USAGE, "no interface to attach to"),
    (
        "an unknown interface",
        &["-i", "nope"],
        FAILED,
        "no interface nope here; there are lo",
    ),
    (
        "an interface twice",
        &["-i", "lo", "-i", "lo"],
        USAGE,
        "lo is named twice",
    ),
    (
        "a window without a unit",
        &["-i", "lo", "--window", "5"],
        USAGE,
        "such as 200ms",
    ),
    (
        "a window too short",
        &["-i", "lo", "--window", "999us"],
        USAGE,
        "1ms to 60s",
    ),
    (
        "a window too long",
        &["-i", "lo", "--window", "61s"],
        USAGE,
        "1ms to 60s",
    ),
    (
        "a window for ever",
        &["-i", "lo", "--window", "9999999y"],
        USAGE,
        "--window",
    ),
    (
        "an escalation too rare",
        &["-i", "lo", "--escalate-every", "64"],
        USAGE,
        "0 (never) to 63",
    ),
    (
        "a table too small",
        &["-i", "lo", "--capacity", "1023"],
        USAGE,
        "1024",
    ),
    (
        "a table too large",
        &["-i", "lo", "--capacity", "16777217"],
        USAGE,
        "16777216",
    ),
    (
        "metrics nowhere",
        &["-i", "lo", "--metrics", "9757"],
        USAGE,
        "[::1]:9757",
    ),
    (
        "an unknown mode",
        &["-i", "lo", "--mode", "offload"],
        USAGE,
        "native or generic",
    ),
    (
        "an unknown mode for one interface",
        &["-i", "lo", "--mode", "lo=offload"],
        USAGE,
        "native or generic",
    ),
    (
        "a mode for an interface that is not attached to",
        &["-i", "lo", "--mode", "eth1=generic"],
        USAGE,
        "a mode for eth1, which is not among the interfaces",
    ),
    (
        "two modes for all interfaces",
        &["-i", "lo", "--mode", "native", "--mode", "generic"],
        USAGE,
        "two modes for all interfaces",
    ),
    (
        "two modes for one interface",
        &["-i", "lo", "--mode", "lo=native", "--mode", "lo=native"],
        USAGE,
        "two modes for lo",
    ),
    (
        "a trusted relay that is no IPv6 prefix",
        &["-i", "lo", "--trusted-relay", "192.0.2.1"],
        USAGE,
        "such as 2001:db8:b::/64",
    ),
    (
        "untrusted relays where all are trusted",
        &["-i", "lo", "--untrusted", "drop"],
        USAGE,
        "--trusted-relay PREFIX",
    ),
    (
        "no such file",
        &["--config", "/nonexistent.toml"],
        FAILED,
        "/nonexistent.toml",
    ),
];

/// The configuration file, the line that its error must name, and what it must say of it.
const FILES: &[(&str, &str, usize, &str)] = &[
    (
        "an unknown key",
        "interface = \"lo\"\nwindw = \"1s\"\n",
        2,
        "no key `windw`",
    ),
    (
        "the file's own flag",
        "config = \"other.toml\"\n",
        1,
        "no key `config`",
    ),
    (
        "a window without a unit",
        "\n\nwindow = 200\n",
        3,
        "--window",
    ),
    (
        "a window too long",
        "# a comment\nwindow = \"2m\"\n",
        2,
        "1ms to 60s",
    ),
    (
        "a table as a value",
        "metrics = { port = 1 }\n",
        1,
        "`metrics` wants a string",
    ),
    (
        "an empty list",
        "interface = \"lo\"\nwindw = []\n",
        2,
        "`windw` has an empty list",
    ),
    (
        "an unknown mode in a list",
        "interface = \"lo\"\nmode = [\"native\", \"lo=offload\"]\n",
        2,
        "native or generic",
    ),
    ("a list that does not end", "interface = [\n", 1, ""),
    (
        "an escalation below zero",
        "escalate-every = -1\n",
        1,
        "0 (never) to 63",
    ),
    (
        "a truth that is none",
        "observe = \"maybe\"\n",
        1,
        "--observe",
    ),
    (
        "a key twice",
        "window = \"1s\"\nwindow = \"2s\"\n",
        2,
        "duplicate key",
    ),
];

/// What stands in a file, and on the command line beside it, that cannot be together; whether the
/// error is to name the file, and what it must say.
const CONTRADICTIONS: &[(&str, &str, &[&str], bool, &str)] = &[
    (
        "untrusted relays where all are trusted",
        "interface = \"lo\"\nuntrusted = \"drop\"\n",
        &[],
        true,
        "--trusted-relay PREFIX",
    ),
    (
        "an interface twice",
        "interface = [\"lo\", \"lo\"]\n",
        &[],
        true,
        "lo is named twice",
    ),
    (
        "no interface",
        "window = \"1s\"\n",
        &[],
        true,
        "no interface to attach to",
    ),
    (
        "a mode for another interface than the command line's",
        "mode = \"eth1=generic\"\n",
        &["-i", "lo"],
        true,
        "a mode for eth1",
    ),
    (
        "nothing wrong, beside a command line that names an interface twice",
        "interface = \"lo\"\n",
        &["-i", "lo", "-i", "lo"],
        false,
        "lo is named twice",
    ),
];

pub fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for &(name, arguments, code, text) in COMMAND_LINES {
        trials.push(trial(format!("refuses {name}"), move || {
            let output = Command::new(binary()?)
                .arg("run")
                .args(arguments)
                .output()?;
            let stderr = String::from_utf8_lossy(&output.stderr);
            ensure!(
                output.status.code() == Some(code),
                "{}: {stderr}",
                output.status
            );
            ensure!(stderr.contains(text), "no {text:?} in {stderr}");
            ensure!(stderr.lines().count() == 1, "more than a line: {stderr}");
            Ok(())
        }));
    }
    for &(name, content, line, text) in FILES {
        trials.push(trial(
            format!("refuses a file with {name}, and names the line"),
            move || {
                let file = tempfile::NamedTempFile::new()?;
                fs::write(&file, content)?;
                let output = Command::new(binary()?)
                    .args(["run", "--config"])
                    .arg(file.path())
                    .output()?;
                let stderr = String::from_utf8_lossy(&output.stderr);
                let place = format!("{}, line {line}: ", file.path().display());
                ensure!(
                    output.status.code() == Some(FAILED),
                    "{}: {stderr}",
                    output.status
                );
                ensure!(stderr.contains(&place), "no {place:?} in {stderr}");
                ensure!(stderr.contains(text), "no {text:?} in {stderr}");
                ensure!(stderr.lines().count() == 1, "more than a line: {stderr}");
                Ok(())
            },
        ));
    }
    for &(name, content, arguments, named, text) in CONTRADICTIONS {
        let whether = if named {
            "names it"
        } else {
            "does not blame it"
        };
        trials.push(trial(
            format!("refuses a file with {name}, and {whether}"),
            move || {
                let file = tempfile::NamedTempFile::new()?;
                fs::write(&file, content)?;
                let output = Command::new(binary()?)
                    .args(["run", "--config"])
                    .arg(file.path())
                    .args(arguments)
                    .output()?;
                let stderr = String::from_utf8_lossy(&output.stderr);
                let place = format!("xdp-dedup: {}: ", file.path().display());
                ensure!(
                    output.status.code() == Some(USAGE),
                    "{}: {stderr}",
                    output.status
                );
                ensure!(stderr.starts_with(&place) == named, "{place:?} in {stderr}");
                ensure!(stderr.contains(text), "no {text:?} in {stderr}");
                ensure!(stderr.lines().count() == 1, "more than a line: {stderr}");
                Ok(())
            },
        ));
    }
    let with_root: &[(&str, Test)] = &[
        (
            "refuses native mode where the driver cannot, and names generic",
            no_native_mode,
        ),
        (
            "refuses an interface with another XDP program, and names the program",
            incumbent,
        ),
        (
            "refuses an interface below one with an XDP program, and names both",
            program_above,
        ),
        (
            "says so where an interface goes before the program is on it",
            gone_meanwhile,
        ),
        (
            "refuses a bridge together with its port, in either order",
            bridge_and_port,
        ),
        (
            "refuses interfaces stacked over another one between",
            stacked_at_a_distance,
        ),
        ("takes two ports of one bridge", two_ports),
        (
            "refuses a second daemon in the same network namespace",
            second_daemon,
        ),
        (
            "refuses a pin folder that somebody else made, and touches nothing through it",
            planted,
        ),
        ("refuses a metrics port that is in use", port_in_use),
        ("names the capabilities that it lacks", no_capabilities),
    ];
    trials.extend(
        with_root
            .iter()
            .map(|&(name, test)| needs_root(trial(name, test))),
    );
    trials
}

/// Refused in one line that contains `text`; nothing attached to `end`, nothing pinned.
fn refused(end: &End, arguments: &[&str], text: &str) -> Result<()> {
    let Attempt { code, stderr, left } = attempt(&binary()?, &end.namespace, arguments)?;
    ensure!(code == Some(FAILED), "exit code {code:?}: {stderr}");
    let errors: Vec<_> = stderr
        .lines()
        .filter(|line| line.starts_with("xdp-dedup: "))
        .collect();
    ensure!(
        errors.len() == 1 && errors[0].contains(text),
        "no {text:?} in {stderr}"
    );
    ensure!(
        end.xdp()?.is_none(),
        "the program is still attached: {stderr}"
    );
    ensure!(left.is_empty(), "left on the BPF file system: {left}");
    Ok(())
}

fn no_native_mode() -> Result<()> {
    let (here, end) = cable()?;
    here.ip("link add bridge0 type bridge")?;
    // The first interface can, the second cannot: neither keeps the program.
    refused(&end, &["-i", "server0", "-i", "bridge0"], "--mode generic")
}

fn incumbent() -> Result<()> {
    let (here, _end) = cable()?;
    let daemon = Daemon::start(&binary()?, &here, &["-i", "server0"])?;
    // On a BPF file system of its own, so not stopped by the first one's lock.
    let arguments = ["-i", "server0", "--metrics", "off"];
    let Attempt { code, stderr, left } = attempt(&binary()?, &here, &arguments)?;
    ensure!(code == Some(FAILED), "exit code {code:?}: {stderr}");
    ensure!(
        stderr.contains("already has an XDP program: program xdp_dedup (id "),
        "{stderr}"
    );
    ensure!(left.is_empty(), "left on the BPF file system: {left}");
    let attached = daemon.metrics()?.value("xdp_dedup_attached", &["server0"]);
    ensure!(attached == Some(1.0), "the first one was displaced");
    Ok(())
}

fn program_above() -> Result<()> {
    let (here, end) = cable()?;
    for (above, made) in [
        ("bridge0", "link add bridge0 type bridge"),
        ("above0", "link add link server0 name above0 type macvlan"),
    ] {
        here.ip(made)?;
        if above == "bridge0" {
            here.ip("link set server0 master bridge0")?;
        }
        let arguments = ["--mode", "generic", "-i", above];
        let daemon = Daemon::start(&binary()?, &here, &arguments)?;
        let text = format!("{above} above it already has an XDP program: program xdp_dedup (id ");
        refused(&end, &["-i", "server0", "--metrics", "off"], &text)?;
        let attached = daemon.metrics()?.value("xdp_dedup_attached", &[above]);
        ensure!(attached == Some(1.0), "the one on {above} was displaced");
        drop(daemon);
        here.ip(&format!("link del {above}"))?;
    }
    Ok(())
}

fn gone_meanwhile() -> Result<()> {
    let (here, _end) = cable()?;
    let refusal = here.inside(|| -> Result<String> {
        let mut kernel = Kernel::load_without_policy(&LoadOptions {
            capacity: DEFAULT_CAPACITY,
            interface_slot: 0,
            clock: Clock::Live,
            relay_counters: false,
            trace: false,
            pins: None,
        })?;
        let all = block_on(interfaces::all())?;
        let [server] = &interfaces::choose(["server0"], &all)?[..] else {
            bail!("not one interface");
        };
        here.ip("link del server0")?;
        match attachment::attach(&mut kernel, server, Mode::Native) {
            Ok(_) => bail!("it is attached"),
            Err(error) => Ok(format!("{error:#}")),
        }
    })??;
    let text = "cannot attach to server0 in native mode: the interface is gone: ";
    ensure!(refusal.starts_with(text), "{refusal}");
    Ok(())
}

fn bridge_and_port() -> Result<()> {
    let (here, end) = cable()?;
    here.ip("link add bridge0 type bridge")?;
    here.ip("link set server0 master bridge0")?;
    for pair in [["server0", "bridge0"], ["bridge0", "server0"]] {
        let arguments = ["--mode", "generic", "-i", pair[0], "-i", pair[1]];
        let text = format!("{} and {} are stacked on one another", pair[1], pair[0]);
        refused(&end, &arguments, &text)?;
    }
    Ok(())
}

fn stacked_at_a_distance() -> Result<()> {
    let (here, end) = cable()?;
    here.ip("link add bridge0 type bridge")?;
    here.ip("link set server0 master bridge0")?;
    here.ip("link add link bridge0 name above0 type macvlan mode bridge")?;
    let arguments = ["--mode", "generic", "-i", "server0", "-i", "above0"];
    refused(&end, &arguments, "stacked on one another")
}

fn two_ports() -> Result<()> {
    let (here, _end) = cable()?;
    here.ip("link add server1 type veth peer name other1")?;
    here.ip("link add bridge0 type bridge")?;
    for port in ["server0", "server1"] {
        here.ip(&format!("link set {port} master bridge0 up"))?;
    }
    let daemon = Daemon::start(&binary()?, &here, &["-i", "server0", "-i", "server1"])?;
    for port in ["server0", "server1"] {
        let attached = daemon.metrics()?.value("xdp_dedup_attached", &[port]);
        ensure!(
            attached == Some(1.0),
            "not attached to {port}: {}",
            daemon.log()
        );
    }
    Ok(())
}

fn second_daemon() -> Result<()> {
    let (here, end) = cable()?;
    here.ip("link add server1 type veth peer name other1")?;
    // Both on one BPF file system: the second is started by hand inside the first's attempt.
    let script = r#""$1" run -i server1 2>/dev/null & first=$!; echo "first is $first"
        for i in $(seq 100); do ip link show server1 | grep -q xdp && break; sleep 0.05; done
        "$1" run -i server0; code=$?
        kill $first; wait $first; echo "first: $?"; exit $code"#;
    let output = here
        .command("unshare")
        .args(["--mount", "sh", "-c"])
        .arg(format!("mount -t bpf bpf /sys/fs/bpf\n{script}"))
        .arg("sh")
        .arg(binary()?)
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(FAILED),
        "{}: {stderr}",
        output.status
    );
    ensure!(end.xdp()?.is_none(), "the second is attached");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let first = stdout
        .lines()
        .find_map(|line| line.strip_prefix("first is "));
    let text = format!(
        "another xdp-dedup (process {}) is at work",
        first.context("no id")?
    );
    ensure!(stderr.contains(&text), "no {text:?} in {stderr}");
    ensure!(
        stdout.contains("first: 0"),
        "the first did not end well: {stdout}"
    );
    Ok(())
}

fn planted() -> Result<()> {
    let (here, end) = cable()?;
    let victim = tempfile::tempdir()?;
    let file = victim.path().join("TABLE");
    for plant in [
        // A link in place of the folder, and a folder of another user's.
        "ln -s $VICTIM /sys/fs/bpf/xdp-dedup",
        "mkdir /sys/fs/bpf/xdp-dedup && chown 65534 /sys/fs/bpf/xdp-dedup",
        "mkdir -m 777 /sys/fs/bpf/xdp-dedup",
        "mkdir /sys/fs/bpf/xdp-dedup && \
         ln -s $VICTIM /sys/fs/bpf/xdp-dedup/netns-$(stat -L -c %i /proc/self/ns/net)",
    ] {
        fs::write(&file, "kept")?;
        let output = here
            .command("unshare")
            .args(["--mount", "sh", "-c"])
            .arg(format!(
                "mount -t bpf bpf /sys/fs/bpf && {plant} && exec \"$0\" run -i server0"
            ))
            .arg(binary()?)
            .env("VICTIM", victim.path())
            .output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(FAILED),
            "{plant}: {}: {stderr}",
            output.status
        );
        ensure!(
            stderr.contains("/sys/fs/bpf/xdp-dedup"),
            "{plant}: {stderr}"
        );
        ensure!(
            stderr.lines().count() == 1,
            "{plant}: more than a line: {stderr}"
        );
        ensure!(
            fs::read_to_string(&file)? == "kept",
            "{plant}: the file is gone"
        );
        ensure!(end.xdp()?.is_none(), "{plant}: attached");
    }
    Ok(())
}

fn port_in_use() -> Result<()> {
    let (here, end) = cable()?;
    let taken = here.inside(|| std::net::TcpListener::bind("[::1]:9757"))??;
    refused(
        &end,
        &["-i", "server0"],
        "cannot serve metrics at [::1]:9757",
    )?;
    drop(taken);
    Ok(())
}

fn no_capabilities() -> Result<()> {
    let (here, end) = cable()?;
    for (kept, lacking) in [
        ("-all", "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"),
        ("-all,+bpf,+perfmon", "CAP_NET_ADMIN"),
        ("-all,+net_admin", "CAP_BPF, CAP_PERFMON"),
    ] {
        // The folder on the BPF file system is root's, as this user is.
        let output = here
            .command("unshare")
            .args(["--mount", "sh", "-c"])
            .arg(format!(
                "mount -t bpf bpf /sys/fs/bpf && \
                 exec setpriv --bounding-set={kept} --inh-caps={kept} \"$0\" run -i server0"
            ))
            .arg(binary()?)
            .output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(FAILED),
            "{kept}: {}: {stderr}",
            output.status
        );
        let text = format!("this process lacks {lacking}; run it as root");
        ensure!(stderr.contains(&text), "{kept}: no {text:?} in {stderr}");
        ensure!(end.xdp()?.is_none(), "{kept}: attached");
    }
    Ok(())
}
