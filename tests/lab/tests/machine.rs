//! The lab's machines: each has what is its own, and nothing of them outlives the one who holds them.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use testbed::harness::{needs_root, run, trial};
use xdp_dedup_lab::machine::{Machine, boot};

/// Makes this program hold a machine of this kind until it is killed.
const HOLD: &str = "XDP_DEDUP_LAB_HOLD";
const PLAIN: &str = "plain";
const BOOTED: &str = "booted";

const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    if let Some(kind) = env::var_os(HOLD) {
        return match hold(kind == BOOTED) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let mut trials = vec![
        trial(
            "a machine has a host name, a process table, files and interfaces of its own",
            own_things,
        ),
        trial(
            "a program that gives up is told of by its last words",
            last_words,
        ),
        trial(
            "a program that does not end when told to is told of",
            deaf_program,
        ),
    ];
    for signal in [Signal::SIGKILL, Signal::SIGINT, Signal::SIGTERM] {
        trials.push(trial(
            format!("nothing of a machine outlives its holder's {signal}"),
            move || outlives(signal, PLAIN),
        ));
    }
    let booted = trial(
        "nothing of a machine that systemd booted outlives its holder's SIGKILL",
        || outlives(Signal::SIGKILL, BOOTED),
    );
    trials.push(booted.with_ignored_flag(boot::can_boot().is_err()));
    run(trials.into_iter().map(needs_system).collect())
}

/// What the set-up of `cargo xtask lab` made.
fn system() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/setup/lab")
}

/// The trial, ignored without root and where the lab's system is not set up.
fn needs_system(trial: Trial) -> Trial {
    if system().join("packages").is_file() {
        needs_root(trial)
    } else {
        eprintln!("skipped: the lab is not set up (`cargo xtask test` does it)");
        trial.with_ignored_flag(true)
    }
}

fn own_things() -> Result<()> {
    let [one, other] = ["one", "other"].map(|name| Machine::new(&system(), name));
    let (one, other) = (one?, other?);
    ensure!(one.run("uname", ["-n"])?.trim() == "one");
    ensure!(other.run("uname", ["-n"])?.trim() == "other");

    one.write("/etc/only-here", "text")?;
    ensure!(one.run("cat", ["/etc/only-here"])? == "text");
    ensure!(!other.path("/etc/only-here").exists());
    ensure!(!system().join("root/etc/only-here").exists());

    let shown = one.namespace.ip("-o link show")?;
    ensure!(shown.lines().count() == 1, "more than a loopback: {shown}");

    // Its init, and the one that lists the processes.
    let processes = one.run("sh", ["-c", "echo /proc/[0-9]*"])?;
    ensure!(processes.split_whitespace().count() == 2, "{processes}");
    Ok(())
}

fn last_words() -> Result<()> {
    let machine = Machine::new(&system(), "machine")?;
    let mut process = machine.start("sh", ["-c", "echo no paper >&2; exit 3"])?;
    let Err(error) = process.until_it_says("ready", PATIENCE) else {
        bail!("it counts as ready");
    };
    let error = error.to_string();
    ensure!(
        error.contains("exit status: 3") && error.contains("no paper"),
        "{error}"
    );
    let Err(error) = machine.run("sh", ["-c", "echo no ink; exit 1"]) else {
        bail!("it counts as done");
    };
    ensure!(error.to_string().contains("no ink"), "{error}");
    Ok(())
}

fn deaf_program() -> Result<()> {
    let machine = Machine::new(&system(), "machine")?;
    let mut process = machine.start("sleep", ["1000"])?;
    let Err(error) = process.wait(Duration::from_millis(20)) else {
        bail!("it counts as ended");
    };
    ensure!(error.to_string().contains("sleep has not ended"), "{error}");
    Ok(())
}

fn outlives(signal: Signal, kind: &str) -> Result<()> {
    let mut holder = Command::new(env::current_exe()?)
        .env(HOLD, kind)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let stdout = holder.stdout.take().context("no output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    let pids: Vec<u32> = line
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    ensure!(
        pids.len() >= 3 && pids.iter().all(|pid| is_alive(*pid)),
        "{line}"
    );

    let pid = nix::unistd::Pid::from_raw(holder.id().cast_signed());
    nix::sys::signal::kill(pid, signal)?;
    holder.wait()?;
    let start = Instant::now();
    while pids.iter().any(|pid| is_alive(*pid)) {
        ensure!(
            start.elapsed() < PATIENCE,
            "something of {line} is still there"
        );
        thread::sleep(Duration::from_millis(5));
    }
    if kind == BOOTED {
        // What the killed one could not remove, the next one does.
        boot::can_boot()?;
    }
    Ok(())
}

/// Holds a machine with a program and with a daemon that has left its parent, and says the process
/// ids of its init, of both, and of what else runs in it.
fn hold(is_booted: bool) -> Result<()> {
    let mut machine = Machine::new(&system(), "held")?;
    if is_booted {
        machine = machine.boot()?;
    }
    let _sleep = machine.start("sleep", ["1000"])?;
    machine.run("sh", ["-c", "sleep 1000 & exit 0"])?;
    let init = machine.pid();
    let mut pids = vec![init];
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        if let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>()
            && fs::read_link(entry.path().join("ns/pid")).ok()
                == fs::read_link(format!("/proc/{init}/ns/pid")).ok()
            && pid != init
        {
            pids.push(pid);
        }
    }
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    println!("{}", pids.join(" "));
    loop {
        thread::park();
    }
}

/// Whether a process goes on; one that nobody has asked about since it ended does not.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}
