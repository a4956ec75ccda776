//! What `run` gets from whoever starts it, and what it tells them.

use std::{
    fs, io,
    os::unix::{net::UnixDatagram, process::CommandExt as _},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use nix::{
    sys::{
        signal::Signal,
        stat::{Mode, umask},
    },
    unistd::close,
};
use testbed::{
    binary::binary,
    daemon::Daemon,
    harness::{needs_root, trial},
    namespace::Namespace,
    veth::{End, join},
};

/// Variables of an environment.
type Environment = &'static [(&'static str, &'static str)];

/// What the service manager asks by its environment, and whether it is then told again and again that
/// the daemon goes on.
const WATCHDOGS: &[(&str, Environment, bool)] = &[
    ("no watchdog", &[], false),
    ("a watchdog", &[("WATCHDOG_USEC", "100000")], true),
    ("a watchdog of nothing", &[("WATCHDOG_USEC", "0")], false),
    (
        "the watchdog of another process",
        &[("WATCHDOG_USEC", "100000"), ("WATCHDOG_PID", "1")],
        false,
    ),
];

/// What the environment says of standard error, in shell, and what an error then begins with.
const STREAMS: &[(&str, &str, &str)] = &[
    (
        "a journal",
        "$(stat --dereference --format=%d:%i /dev/fd/2)",
        "<3>xdp-dedup: ",
    ),
    ("another's journal", "1:1", "xdp-dedup: "),
    ("no journal", "", "xdp-dedup: "),
];

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![];
    for &(name, environment, is_fed) in WATCHDOGS {
        let what = if is_fed {
            "feeds it"
        } else {
            "says nothing to it"
        };
        trials.push(needs_root(trial(
            format!("where there is {name}, {what}"),
            move || watchdog(environment, is_fed),
        )));
    }
    for mask in [0o000, 0o022, 0o077] {
        trials.push(needs_root(trial(
            format!("its pins are its own under umask {mask:03o}, without standard input"),
            move || started_by(Mode::from_bits_truncate(mask)),
        )));
    }
    for &(name, stream, begin) in STREAMS {
        trials.push(trial(
            format!("to {name} an error begins with {begin:?}"),
            move || error_to(stream, begin),
        ));
    }
    trials
}

/// A server with an interface, and its other end.
fn bed() -> Result<(Namespace, Namespace)> {
    let (here, there) = (Namespace::new("server")?, Namespace::new("relays")?);
    let end = End::new(&here, "server0", [2, 0, 0, 0, 0, 1]);
    join(&end, &End::new(&there, "relay0", [2, 0, 0, 0, 0, 2]))?;
    Ok((here, there))
}

fn watchdog(environment: Environment, is_fed: bool) -> Result<()> {
    let (here, _there) = bed()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let told = || -> Result<String> {
        let mut datagram = [0; 512];
        let length = socket.recv(&mut datagram)?;
        Ok(String::from_utf8_lossy(&datagram[..length])
            .trim()
            .to_owned())
    };
    let daemon = Daemon::start_with(&binary()?, &here, &["-i", "server0"], |command| {
        command
            .env("NOTIFY_SOCKET", &path)
            .envs(environment.iter().copied());
    })?;
    ensure!(told()? == "READY=1");
    if is_fed {
        for _ in 0..5 {
            let said = told()?;
            ensure!(said == "WATCHDOG=1", "{said}");
        }
        return Ok(());
    }
    // The first one would come at once, the others between these.
    daemon.signal(Signal::SIGHUP)?;
    ensure!(told()?.starts_with("RELOADING=1"));
    ensure!(told()? == "READY=1");
    let (status, log) = daemon.stop_and_log(Signal::SIGTERM)?;
    ensure!(status.success(), "{log}");
    ensure!(told()? == "STOPPING=1");
    Ok(())
}

fn started_by(mask: Mode) -> Result<()> {
    let (here, _there) = bed()?;
    let daemon = Daemon::start_with(&binary()?, &here, &["-i", "server0"], |command| {
        let as_asked = move || -> io::Result<()> {
            umask(mask);
            Ok(close(0)?)
        };
        // SAFETY: between fork and exec this makes system calls only; nothing uses descriptor 0 there.
        unsafe { command.pre_exec(as_asked) };
    })?;
    let place = daemon.place()?;
    let mut list = place.command("sh");
    list.args([
        "-c",
        "stat --format=%a /sys/fs/bpf/xdp-dedup /sys/fs/bpf/xdp-dedup/netns-*",
    ]);
    let output = list.stdin(Stdio::null()).output()?;
    let modes = String::from_utf8_lossy(&output.stdout).into_owned();
    for mode in modes.lines() {
        let mode = u32::from_str_radix(mode, 8)?;
        ensure!(mode & 0o077 == 0, "{modes}");
    }
    ensure!(modes.lines().count() == 2, "{output:?}");
    // Whatever took the place of standard input, it is not a socket or a pin.
    let input = fs::read_link(format!("/proc/{}/fd/0", daemon.pid()))?;
    ensure!(input.as_os_str() == "/dev/null", "{}", input.display());
    let (status, log) = daemon.stop_and_log(Signal::SIGTERM)?;
    ensure!(status.success(), "{log}");
    Ok(())
}

fn error_to(stream: &str, begin: &str) -> Result<()> {
    let script = format!("JOURNAL_STREAM={stream} exec \"$0\" run -i nope");
    let output = Command::new("sh")
        .args(["-c", &script])
        .arg(binary()?)
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        said.starts_with(&format!("{begin}there is no interface nope")),
        "{said}"
    );
    Ok(())
}
