//! The flags of `run`: on the command line, and as keys of the configuration file.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum as _};

use crate::{attachment::Mode, policy::PolicyFlags};

/// Arguments of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Read flags from this TOML file, its keys being their names; the command line wins; SIGHUP
    /// reads it again
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The flags that can also stand in the file.
    #[command(flatten)]
    pub flags: RunFlags,
}

/// Flags of `run` that can also stand in the configuration file.
#[derive(Args, Clone, Debug, Default)]
pub struct RunFlags {
    /// Attach to this interface; can be given several times, and then one table serves them all
    #[arg(short, long = "interface", value_name = "IFACE")]
    pub interfaces: Vec<String>,

    /// Run in the NIC's driver (`native`), or in the kernel's stack for drivers without XDP
    /// (`generic`); IFACE=MODE says it of one interface, and can be given several times
    /// [default: native]
    #[arg(long = "mode", value_name = "[IFACE=]MODE", value_parser = parse_mode)]
    pub modes: Vec<ModeOf>,

    /// The policy.
    #[command(flatten)]
    pub policy: PolicyFlags,

    /// Transactions that the table has room for: several times those that live at once, and 256 more
    /// for each CPU [default: 65536]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1024..=16_777_216))]
    pub capacity: Option<u32>,

    /// Count client messages by relay too, which costs a look-up for each [default: true]
    #[arg(
        long,
        value_name = "BOOL",
        hide_possible_values = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub relay_counters: Option<bool>,

    /// Let the filter go on when this process ends; the next `run` takes it over without a gap, and
    /// `xdp-dedup detach` takes it off
    #[arg(
        long,
        value_name = "BOOL",
        hide_possible_values = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub persist: Option<bool>,

    /// For debugging: every frame to UDP port 547 is logged, with what the kernel program decided of
    /// it, through a ring of the kernel's to this process's log; costs each such frame about 130 ns
    /// [default: false]
    #[arg(
        long,
        value_name = "BOOL",
        hide_possible_values = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub trace: Option<bool>,

    /// Serve Prometheus metrics here, or `off` [default: [::1]:9757]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_metrics)]
    pub metrics: Option<Metrics>,
}

/// A value of `--mode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModeOf {
    /// The one interface that it is for, by name, or all that no other value is for.
    pub interface: Option<String>,
    /// The mode.
    pub mode: Mode,
}

pub(crate) fn parse_mode(text: &str) -> Result<ModeOf, String> {
    // Names may hold an equals sign, modes do not.
    let (interface, mode) = match text.rsplit_once('=') {
        Some((interface, mode)) => (Some(interface.to_owned()), mode),
        None => (None, text),
    };
    match Mode::from_str(mode, false) {
        Ok(mode) => Ok(ModeOf { interface, mode }),
        Err(_) => {
            Err("native or generic, or one of them for an interface: eth1=generic".to_owned())
        }
    }
}

/// Values of `--metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metrics {
    /// Nowhere.
    Off,
    /// At this address and port.
    At(SocketAddr),
}

fn parse_metrics(text: &str) -> Result<Metrics, String> {
    if text == "off" {
        return Ok(Metrics::Off);
    }
    text.parse().map(Metrics::At).map_err(|_| {
        "an address and a port, such as [::1]:9757 or 127.0.0.1:9757, or off".to_owned()
    })
}

impl RunFlags {
    /// These flags, and those of `other` where these say nothing.
    pub fn or(self, other: Self) -> Self {
        Self {
            interfaces: if self.interfaces.is_empty() {
                other.interfaces
            } else {
                self.interfaces
            },
            modes: if self.modes.is_empty() {
                other.modes
            } else {
                self.modes
            },
            policy: self.policy.or(other.policy),
            capacity: self.capacity.or(other.capacity),
            relay_counters: self.relay_counters.or(other.relay_counters),
            persist: self.persist.or(other.persist),
            trace: self.trace.or(other.trace),
            metrics: self.metrics.or(other.metrics),
        }
    }
}
