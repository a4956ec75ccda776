//! A server with one or two interfaces, the relays at the other end, and a BPF file system that
//! outlives each daemon.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testbed::binary::binary;
use testbed::bpf_file_system::BpfFileSystem;
use testbed::daemon::{Daemon, Metrics};
use testbed::frame::{ClientMessage, message_type, relayed, reported};
use testbed::namespace::Namespace;
use testbed::sender::Sender;
use testbed::veth::{End, XdpMode, join};

/// Longer than any pause that a busy machine makes between two copies.
pub const WINDOW: &str = "60s";

/// Most time that something may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The ends of the cables, the relays' first.
const NAMES: [(&str, &str); 2] = [("relay0", "server0"), ("relay1", "server1")];

pub struct Bed {
    pub server: Namespace,
    /// The cables go with it.
    _relays: Namespace,
    pub pins: BpfFileSystem,
    /// The server's ends of the cables.
    pub ends: Vec<End>,
    /// What sends on the relays' ends.
    pub senders: Vec<Sender>,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Bed {
    pub fn new() -> Result<Self> {
        Self::with_cables(1)
    }

    pub fn with_cables(cables: usize) -> Result<Self> {
        let (server, relays) = (Namespace::new("server")?, Namespace::new("relays")?);
        let (mut ends, mut senders) = (Vec::new(), Vec::new());
        for (number, (relay, name)) in (0..).zip(NAMES).take(cables) {
            let relay = End::new(&relays, relay, [2, 0, 0, 0, 0xff, number]);
            // What `Frame` is addressed to.
            let end = End::new(&server, name, [2, 0, 0, 0, 0xb0, 7 + number]);
            join(&relay, &end)?;
            if number == 0 {
                end.address(reported::SERVER, 32)?;
            }
            senders.push(Sender::new(&relay)?);
            ends.push(end);
        }
        Ok(Self {
            server,
            _relays: relays,
            pins: BpfFileSystem::new()?,
            ends,
            senders,
        })
    }

    /// Starts `run` on the first interface, with a window that is long enough for any machine.
    pub fn run(&self, arguments: &[&str]) -> Result<Daemon> {
        self.run_of(&binary()?, arguments)
    }

    /// The same of another build.
    pub fn run_of(&self, binary: &Path, arguments: &[&str]) -> Result<Daemon> {
        let all = Self::arguments(arguments);
        Daemon::start_on(&self.pins, binary, &self.server, &all)
    }

    /// The arguments of `run`, and those that every one has here.
    pub fn arguments<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
        let mut all = arguments.to_vec();
        if !arguments.contains(&"-i") {
            all.extend(["-i", NAMES[0].1]);
        }
        if !arguments.contains(&"--config") && !arguments.contains(&"--window") {
            all.extend(["--window", WINDOW]);
        }
        all
    }

    /// A command that sees this bed's pins.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = self.server.command(program);
        command.stdin(Stdio::null());
        self.pins.show_to(&mut command);
        command
    }

    /// Runs a command of `xdp-dedup` to its end.
    pub fn xdp_dedup(&self, arguments: &[&str]) -> Result<Ended> {
        let output = self.command(&binary()?).args(arguments).output()?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Ended {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        })
    }

    /// `detach --all`, which must succeed and leave nothing.
    pub fn detach_all(&self) -> Result<String> {
        let ended = self.xdp_dedup(&["detach", "--all"])?;
        ensure!(ended.code == Some(0), "{ended:?}");
        self.expect_nothing()?;
        Ok(ended.stdout)
    }

    /// Nothing is pinned, and no program on any interface.
    pub fn expect_nothing(&self) -> Result<()> {
        let left = self.pins.list(&self.server)?;
        ensure!(left.is_empty(), "left: {left}");
        self.expect_xdp(&[None, None])
    }

    /// What is on the interfaces.
    pub fn expect_xdp(&self, expected: &[Option<XdpMode>]) -> Result<()> {
        for (end, expected) in self.ends.iter().zip(expected) {
            let found = end.xdp()?;
            ensure!(
                found == *expected,
                "{}: {found:?}, not {expected:?}",
                end.name
            );
        }
        Ok(())
    }

    /// Names of the pinned links, such as `link-2`.
    pub fn links(&self) -> Result<Vec<String>> {
        let list = self.pins.list(&self.server)?;
        let names = list.lines().filter_map(|line| line.rsplit('/').next());
        Ok(names
            .filter(|name| name.starts_with("link-"))
            .map(str::to_owned)
            .collect())
    }

    /// Sends both copies of a message by the first cable.
    pub fn send_pair(&self, number: u32) -> Result<()> {
        for copy in copies(number) {
            self.senders[0].send(&copy)?;
        }
        Ok(())
    }

    /// Sends one copy, through the first relay or the second.
    pub fn send_copy(&self, number: u32, relay: usize) -> Result<()> {
        self.senders[0].send(&copies(number)[relay])
    }
}

/// The frames by which both relays forward a message. Its client is known by this number.
pub fn copies(number: u32) -> [Vec<u8>; 2] {
    transmission(number, 0)
}

/// The same, sent again by a client that counts its elapsed-time up.
pub fn transmission(number: u32, elapsed: u16) -> [Vec<u8>; 2] {
    let [_, a, b, c] = number.to_be_bytes();
    let message = ClientMessage::new(message_type::SOLICIT, [a, b, c]).elapsed_time(elapsed);
    let mut client = reported::CLIENT.octets();
    client[12..].copy_from_slice(&number.to_be_bytes());
    [reported::RELAY_A, reported::RELAY_B]
        .map(|relay| relayed(relay, reported::SERVER, client.into(), &message).bytes())
}

/// The number of the message that a Relay-forward of [`copies`] carries: it ends the peer-address.
pub fn number_of(relay_forward: &[u8]) -> Result<u32> {
    let bytes = relay_forward.get(30..34).context("too short")?;
    Ok(u32::from_be_bytes(bytes.try_into()?))
}

/// What the first interface has counted, without zeros: `pass first 3, drop duplicate 3`.
pub fn counted(metrics: &Metrics) -> String {
    let counted = metrics.packets(NAMES[0].1);
    let one = |((verdict, reason), count): (&(String, String), &u64)| {
        format!("{verdict} {reason} {count}")
    };
    counted.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Waits until the first interface has counted this.
pub fn wait_for_counts(daemon: &Daemon, expected: &str) -> Result<()> {
    let start = Instant::now();
    loop {
        let found = counted(&daemon.metrics()?);
        if found == expected {
            return Ok(());
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "counted `{found}`, not `{expected}`: {}",
            daemon.log()
        );
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until the log has `text` so many times.
pub fn wait_for_log(daemon: &Daemon, text: &str, times: usize) -> Result<()> {
    let start = Instant::now();
    while daemon.log().matches(text).count() < times {
        ensure!(
            start.elapsed() < PATIENCE,
            "not {times} times {text:?} in {}",
            daemon.log()
        );
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The id and the tag of the program on the first interface.
pub fn program(daemon: &Daemon) -> Result<(String, String)> {
    let metrics = daemon.metrics()?;
    let line = metrics
        .lines("xdp_dedup_program_info")
        .next()
        .context("no program")?;
    let label = |name: &str| -> Result<String> {
        let (_, rest) = line.split_once(&format!("{name}=\"")).context("no label")?;
        Ok(rest.split('"').next().unwrap_or_default().to_owned())
    };
    Ok((label("id")?, label("tag")?))
}
