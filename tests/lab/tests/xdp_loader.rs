//! Debian's `xdp-loader` and the filter: it loads the object, which then passes everything; behind
//! libxdp's dispatcher the program has its place; and neither tool displaces the other.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use testbed::binary::binary;
use testbed::daemon::{Attempt, Daemon, attempt};
use testbed::frame::reported_pair;
use testbed::harness::{needs_root, run, trial};
use testbed::namespace::Namespace;
use testbed::sender::Sender;
use testbed::veth::{End, XdpMode, join};
use xdp_dedup_lab::dhcp::Message;
use xdp_dedup_lab::kernel_object;
use xdp_dedup_lab::machine::Machine;
use xdp_dedup_lab::software::xdp_tools::{self, Loaded};
use xdp_dedup_lab::tap::Tap;

const SERVER0: &str = "server0";

/// What `xdp-loader` and others put several programs behind.
const DISPATCHER: &str = "xdp_dispatcher";

/// Where xdp-tools keeps its own programs.
const PROGRAMS: &str = "/usr/lib/x86_64-linux-gnu/bpf";

const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let with_loader = [
        trial(
            "xdp-loader attaches the program natively, and without a policy every copy passes",
            alone,
        ),
        trial(
            "`run` and `check` tell of libxdp's dispatcher, and leave it alone",
            dispatcher_in_the_way,
        ),
        trial(
            "while `run` is at work xdp-loader gets nothing onto its interface",
            run_in_the_way,
        ),
    ];
    let mut trials: Vec<_> = with_loader.into_iter().map(needs_loader).collect();
    trials.push(needs_dispatcher(trial(
        "behind the dispatcher the program comes after xdp-filter's, and what passes one passes both",
        beside_another,
    )));
    run(trials)
}

/// What the set-up of `cargo xtask lab` made.
fn system() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/setup/lab")
}

fn has_loader() -> bool {
    system().join("root/usr/sbin/xdp-loader").is_file()
}

/// The trial, ignored without root and where the lab's system has no xdp-tools.
fn needs_loader(trial: Trial) -> Trial {
    if has_loader() {
        needs_root(trial)
    } else {
        eprintln!("skipped: the lab is not set up with xdp-tools (`cargo xtask test` does it)");
        trial.with_ignored_flag(true)
    }
}

/// The same, also ignored where the kernel takes no program into the dispatcher.
fn needs_dispatcher(trial: Trial) -> Trial {
    if !has_loader() || !nix::unistd::geteuid().is_root() {
        return needs_loader(trial);
    }
    match refusal() {
        Ok(None) => trial,
        Ok(Some(reason)) => {
            eprintln!("skipped: libxdp's dispatcher does not work in this kernel: {reason}");
            trial.with_ignored_flag(true)
        }
        // The trial itself will say it.
        Err(_) => trial,
    }
}

/// Why libxdp went without its dispatcher, in its own words, if it did.
fn refusal() -> Result<Option<String>> {
    let bed = Bed::new()?;
    let said = bed.load(&[OBJECT])?;
    if bed
        .status()?
        .iter()
        .any(|loaded| loaded.program == DISPATCHER)
    {
        return Ok(None);
    }
    let lines: Vec<_> = said
        .lines()
        .filter_map(|line| line.trim().strip_prefix("libxdp: "))
        .collect();
    Ok(Some(lines.join("; ")))
}

/// Where a bed's machine has the object.
const OBJECT: &str = "/root/xdp_dedup.bpf.o";

/// A machine with xdp-tools and the object, and a cable to it.
struct Bed {
    machine: Machine,
    server: End,
    relay: End,
}

impl Bed {
    fn new() -> Result<Self> {
        let machine = Machine::new(&system(), "server")?;
        machine.run("mount", ["-t", "bpf", "bpf", "/sys/fs/bpf"])?;
        machine.write(OBJECT, kernel_object::of(&binary()?)?)?;
        let server = End::new(&machine.namespace, SERVER0, [2, 0, 0, 0, 0, 1]);
        let relay = End::new(&Namespace::new("relay")?, "relay0", [2, 0, 0, 0, 0, 2]);
        join(&server, &relay)?;
        Ok(Self {
            machine,
            server,
            relay,
        })
    }

    /// `xdp-loader load`, natively.
    fn load(&self, arguments: &[&str]) -> Result<String> {
        let load = ["load", "--verbose", "--mode", "native", SERVER0];
        self.machine.run("xdp-loader", [&load, arguments].concat())
    }

    fn status(&self) -> Result<Vec<Loaded>> {
        xdp_tools::status(&self.machine, SERVER0)
    }

    fn unload(&self) -> Result<()> {
        self.machine
            .run("xdp-loader", ["unload", SERVER0, "--all"])?;
        ensure!(self.status()?.is_empty(), "{:?} is left", self.status()?);
        ensure!(self.server.xdp()?.is_none(), "a program is left");
        Ok(())
    }

    /// Sends the reported pair three times, and demands that all six arrive.
    fn all_copies_pass(&self) -> Result<()> {
        let tap = Tap::new(&self.server, None)?;
        let sender = Sender::new(&self.relay)?;
        for _ in 0..3 {
            for frame in reported_pair() {
                sender.send(&frame.bytes())?;
            }
        }
        tap.until("six Relay-forwards", PATIENCE, |messages| {
            messages
                .iter()
                .filter(|m| Message::is_relay_forward(m))
                .count()
                == 6
        })
    }
}

fn alone() -> Result<()> {
    let bed = Bed::new()?;
    // Without saying which of the object's programs.
    let said = bed.load(&[OBJECT])?;
    let place = "Run prio: 20. Chain call actions: XDP_PASS\n";
    ensure!(said.contains(place), "no {place:?} in {said}");
    let status = bed.status()?;
    let filters = status.iter().filter(|loaded| loaded.program == "xdp_dedup");
    ensure!(filters.count() == 1, "{status:?}");
    ensure!(bed.server.xdp()? == Some(XdpMode::Native));
    bed.all_copies_pass()?;
    bed.unload()
}

fn dispatcher_in_the_way() -> Result<()> {
    let bed = Bed::new()?;
    // The dispatcher itself, which loads where programs do not get into it, too.
    let object = format!("{PROGRAMS}/xdp-dispatcher.o");
    bed.load(&["--prog-name", DISPATCHER, &object])?;
    let before = bed.status()?;
    ensure!(before.first().is_some_and(|it| it.program == DISPATCHER));
    let arguments = ["-i", SERVER0, "--metrics", "off"];
    let Attempt { code, stderr, left } = attempt(&binary()?, &bed.machine.namespace, &arguments)?;
    ensure!(code == Some(1), "exit code {code:?}: {stderr}");
    for text in [
        "server0 already has an XDP program: program xdp_dispatcher (id ",
        "`xdp-loader status server0`",
        "`xdp-loader unload server0 --all`",
    ] {
        ensure!(stderr.contains(text), "no {text:?} in {stderr}");
    }
    ensure!(left.is_empty(), "left on the BPF file system: {left}");
    let mut check = bed.machine.namespace.command(binary()?);
    let check = check.args(["check", "-i", SERVER0]).output()?;
    let check = String::from_utf8_lossy(&check.stdout);
    let line = check.lines().find(|line| line.contains("xdp program"));
    ensure!(
        line.is_some_and(|line| line.starts_with("fail") && line.contains("xdp-loader status")),
        "{check}"
    );
    ensure!(bed.status()? == before, "{:?}", bed.status()?);
    Ok(())
}

fn run_in_the_way() -> Result<()> {
    let bed = Bed::new()?;
    let daemon = Daemon::start(&binary()?, &bed.machine.namespace, &["-i", SERVER0])?;
    let Err(error) = bed.load(&[&format!("{PROGRAMS}/xdpfilt_alw_all.o")]) else {
        anyhow::bail!("xdp-loader has loaded another program: {:?}", bed.status()?);
    };
    let error = error.to_string();
    ensure!(error.contains("not using a dispatcher"), "{error}");
    let attached = daemon.metrics()?.value("xdp_dedup_attached", &[SERVER0]);
    ensure!(attached == Some(1.0), "it was displaced");
    Ok(())
}

fn beside_another() -> Result<()> {
    let bed = Bed::new()?;
    bed.load(&[OBJECT])?;
    bed.load(&[&format!("{PROGRAMS}/xdpfilt_alw_all.o")])?;
    let behind = |program: &str, priority| Loaded {
        program: program.to_owned(),
        priority: Some(priority),
        chain_actions: "XDP_PASS".to_owned(),
    };
    let status = bed.status()?;
    ensure!(
        status.first().is_some_and(|it| it.program == DISPATCHER)
            && status[1..] == [behind("xdpfilt_alw_all", 10), behind("xdp_dedup", 20)],
        "{status:?}"
    );
    bed.all_copies_pass()?;
    bed.unload()
}
