//! A server that systemd boots, with a cable to two relays, and the package at hand.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testbed::frame::{ClientMessage, message_type, relayed, reported};
use testbed::namespace::Namespace;
use testbed::sender::Sender;
use testbed::veth::{End, XdpMode, join};
use xdp_dedup_lab::machine::{Machine, boot};

use crate::package;

/// Longer than any pause that a busy machine makes between two copies.
pub const CONFIGURATION: &str = "interface = \"server0\"\nwindow = \"60s\"\n";

/// Most time that something may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

const SERVICE: &str = "xdp-dedup.service";

pub struct Server {
    machine: Machine,
    end: End,
    sender: Sender,
    /// The cable goes with it.
    _relays: Namespace,
}

/// A relay.
#[derive(Clone, Copy)]
pub enum By {
    A,
    B,
}

/// Where the lab's set-up put the system of its machines.
fn system() -> PathBuf {
    package::checkout().join("target/setup/lab")
}

/// Whether this machine has what such a server takes.
///
/// # Errors
///
/// With what it lacks.
pub fn can_be_had() -> Result<()> {
    let packages = fs::read_to_string(system().join("packages")).unwrap_or_default();
    ensure!(
        packages
            .lines()
            .any(|package| package == "init-system-helpers"),
        "the lab is not set up: `cargo xtask test` does it"
    );
    if nix::unistd::geteuid().is_root() {
        boot::can_boot()?;
    }
    Ok(())
}

impl Server {
    pub fn new() -> Result<Self> {
        let machine = Machine::new(&system(), "server")?.boot()?;
        let relays = Namespace::new("relays")?;
        let end = End::new(&machine.namespace, "server0", [2, 0, 0, 0, 0xb0, 7]);
        let relay = End::new(&relays, "relay0", [2, 0, 0, 0, 0xff, 0]);
        join(&end, &relay)?;
        fs::copy(package::path()?, machine.path("/var/tmp/xdp-dedup.deb"))?;
        Ok(Self {
            sender: Sender::new(&relay)?,
            machine,
            end,
            _relays: relays,
        })
    }

    /// One that has the package.
    pub fn with_package() -> Result<Self> {
        let server = Self::new()?;
        server.install("/var/tmp/xdp-dedup.deb")?;
        Ok(server)
    }

    /// One whose service is at work, with these lines in its configuration besides.
    pub fn at_work(configuration: &str) -> Result<Self> {
        let server = Self::with_package()?;
        server.configure(configuration)?;
        server.sh("systemctl start xdp-dedup")?;
        Ok(server)
    }

    /// Installs a package. The machine's own are unpacked only, so dpkg knows of none.
    pub fn install(&self, package: &str) -> Result<String> {
        self.sh(&format!("dpkg --force-depends --install {package}"))
    }

    /// Makes a package of another version out of ours.
    pub fn make_version(&self, version: &str, at: &str) -> Result<()> {
        let [folder, at] = ["/var/tmp/repacked", at].map(|path| self.machine.path(path));
        package::run(
            Command::new("dpkg-deb")
                .arg("--raw-extract")
                .arg(package::path()?)
                .arg(&folder),
        )?;
        let control = folder.join("DEBIAN/control");
        let text = fs::read_to_string(&control)?;
        let line = format!("Version: {}-1", env!("CARGO_PKG_VERSION"));
        ensure!(text.contains(&line), "{text}");
        fs::write(
            &control,
            text.replace(&line, &format!("Version: {version}")),
        )?;
        let mut pack = Command::new("dpkg-deb");
        pack.args(["--root-owner-group", "-Znone", "--build"])
            .args([folder, at]);
        package::run(&mut pack).map(drop)
    }

    /// Writes the configuration: these lines, and those that every one has here.
    pub fn configure(&self, lines: &str) -> Result<()> {
        let text = format!("{CONFIGURATION}{lines}");
        self.machine.write("/etc/xdp-dedup.toml", text)
    }

    /// Writes settings that the operator adds to the unit's, in its section `[Service]`.
    pub fn drop_in(&self, settings: &str) -> Result<()> {
        self.machine.write(
            "/etc/systemd/system/xdp-dedup.service.d/test.conf",
            format!("[Service]\n{settings}\n"),
        )?;
        self.sh("systemctl daemon-reload").map(drop)
    }

    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        self.machine.write(path, content)
    }

    /// Runs a script on it, and hands back what it printed, on either of its outputs.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.machine.run("sh", ["-c", script])
    }

    /// The service's journal, a message a line, of at least this priority.
    pub fn journal(&self, priority: &str) -> Result<String> {
        self.sh(&format!(
            "journalctl --sync; journalctl --unit {SERVICE} --priority {priority} --output cat"
        ))
    }

    /// A property of the service.
    pub fn property(&self, name: &str) -> Result<String> {
        let value = self.sh(&format!(
            "systemctl show --property {name} --value {SERVICE}"
        ))?;
        Ok(value.trim().to_owned())
    }

    /// Waits until a property has this value.
    pub fn until(&self, property: &str, value: &str) -> Result<()> {
        self.until_it(&format!("{property} {value}"), || {
            Ok(self.property(property)? == value)
        })
    }

    /// Waits until this is so.
    pub fn until_it(&self, what: &str, is: impl Fn() -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while !is()? {
            ensure!(
                start.elapsed() < PATIENCE,
                "in vain: {what}; {}",
                self.journal("debug")?
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Sends one copy of a message, whose client is known by this number.
    pub fn send(&self, number: u8, by: By) -> Result<()> {
        let message = ClientMessage::new(message_type::SOLICIT, [0, 0, number]).elapsed_time(0);
        let relay = match by {
            By::A => reported::RELAY_A,
            By::B => reported::RELAY_B,
        };
        let frame = relayed(relay, reported::SERVER, reported::CLIENT, &message);
        self.sender.send(&frame.bytes())
    }

    /// Sends both.
    pub fn send_pair(&self, number: u8) -> Result<()> {
        self.send(number, By::A)?;
        self.send(number, By::B)
    }

    /// Waits until the filter has counted this: `drop duplicate 1, pass first 1`.
    pub fn until_counted(&self, expected: &str) -> Result<()> {
        self.until_it(&format!("counted {expected}"), || {
            Ok(self.counted()? == expected)
        })
    }

    fn counted(&self) -> Result<String> {
        let said = self.sh("xdp-dedup stats --json")?;
        let stats: serde_json::Value = serde_json::from_str(&said)?;
        let rows = stats["counters"].as_array().context("no counters")?;
        let mut counted: Vec<String> = rows
            .iter()
            .filter(|row| row["packets"] != 0)
            .map(|row| {
                let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
                format!("{} {} {}", text("verdict"), text("reason"), row["packets"])
            })
            .collect();
        counted.sort();
        Ok(counted.join(", "))
    }

    /// Whether the filter is on the interface.
    pub fn is_attached(&self) -> Result<bool> {
        Ok(self.end.xdp()? == Some(XdpMode::Native))
    }

    /// Nothing is attached, and nothing is pinned.
    pub fn expect_nothing(&self) -> Result<()> {
        ensure!(self.end.xdp()?.is_none(), "a program is still attached");
        // The kernel's own files in a BPF file system.
        let pinned = self.sh("ls -A /sys/fs/bpf")?;
        ensure!(
            pinned == "maps.debug\nprogs.debug\n",
            "still pinned: {pinned}"
        );
        Ok(())
    }
}
