//! What flags, configuration file and defaults come to.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use anyhow::Result;
use xdp_dedup_common::{digest::DigestKey, interface::MAX_INTERFACES};

use crate::{
    attachment::Mode,
    config,
    flags::{Metrics, ModeOf, RunArgs, RunFlags},
    kernel::DEFAULT_CAPACITY,
    policy::Rules,
    usage::usage,
};

/// 9547 is the port of Kea's exporter.
pub(crate) const DEFAULT_METRICS: SocketAddr =
    SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 9757);

/// What the command line and the file come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The interfaces by name, each once, and the mode on each.
    pub interfaces: Vec<(String, Mode)>,
    /// The policy to begin with, and what it refers to.
    pub rules: Rules,
    /// Entries of the table.
    pub capacity: u32,
    /// Whether messages are counted by relay.
    pub relay_counters: bool,
    /// Whether the filter goes on when the process ends.
    pub persist: bool,
    /// Whether each decision is logged.
    pub trace: bool,
    /// Where the metrics are served.
    pub metrics: Metrics,
}

impl Settings {
    /// Reads the file, if one is given, and fills in what the command line leaves open.
    ///
    /// # Errors
    ///
    /// One line, which names the file where it has a part in it; a [`UsageError`] where no or too many
    /// interfaces are named, or settings contradict one another.
    pub fn read(args: &RunArgs, key: DigestKey) -> Result<Self> {
        let flags = args.flags.clone();
        let Some(file) = &args.config else {
            return Self::of(flags, key);
        };
        Self::of(flags.clone().or(config::read(file)?), key).map_err(|error| {
            // Where the command line is wrong by itself, the file need not be looked at.
            let is_its_own = |alone: anyhow::Error| alone.to_string() == error.to_string();
            if !flags.interfaces.is_empty() && Self::of(flags, key).is_err_and(is_its_own) {
                error
            } else {
                error.context(file.display().to_string())
            }
        })
    }

    fn of(flags: RunFlags, key: DigestKey) -> Result<Self> {
        if flags.interfaces.is_empty() {
            return Err(usage(
                "no interface to attach to: give one with -i IFACE, or `interface` in the file",
            ));
        }
        Ok(Self {
            interfaces: with_modes(flags.interfaces, &flags.modes)?,
            rules: flags.policy.rules(key)?,
            capacity: flags.capacity.unwrap_or(DEFAULT_CAPACITY),
            relay_counters: flags.relay_counters.unwrap_or(true),
            persist: flags.persist.unwrap_or(false),
            trace: flags.trace.unwrap_or(false),
            metrics: flags.metrics.unwrap_or(Metrics::At(DEFAULT_METRICS)),
        })
    }
}

/// Each of the interfaces, and the mode on it.
///
/// # Errors
///
/// A [`UsageError`] where there are too many, or one is named twice, or the modes contradict.
pub(crate) fn with_modes(
    interfaces: Vec<String>,
    modes_said: &[ModeOf],
) -> Result<Vec<(String, Mode)>> {
    if interfaces.len() > MAX_INTERFACES {
        return Err(usage(format!(
            "at most {MAX_INTERFACES} interfaces can share a table"
        )));
    }
    let twice = |name| interfaces.iter().filter(|other| *other == name).count() > 1;
    if let Some(name) = interfaces.iter().find(|name| twice(*name)) {
        return Err(usage(format!("interface {name} is named twice")));
    }
    let modes = modes(&interfaces, modes_said)?;
    Ok(interfaces.into_iter().zip(modes).collect())
}

/// The mode on each interface: what is said of it, else what is said of all, else the default.
fn modes(interfaces: &[String], said: &[ModeOf]) -> Result<Vec<Mode>> {
    for (number, ModeOf { interface, .. }) in said.iter().enumerate() {
        if said[..number]
            .iter()
            .any(|earlier| earlier.interface == *interface)
        {
            return Err(usage(match interface {
                Some(name) => format!("two modes for {name}: give one"),
                None => "two modes for all interfaces: give one, or IFACE=MODE".to_owned(),
            }));
        }
        if let Some(name) = interface.as_ref().filter(|name| !interfaces.contains(name)) {
            return Err(usage(format!(
                "a mode for {name}, which is not among the interfaces to attach to"
            )));
        }
    }
    let of = |name: Option<&String>| said.iter().find(|said| said.interface.as_ref() == name);
    let mode = |name| {
        of(Some(name))
            .or(of(None))
            .map_or(Mode::default(), |said| said.mode)
    };
    Ok(interfaces.iter().map(mode).collect())
}

impl Settings {
    /// The flags whose values differ from those of `other` and that only a restart changes; all but
    /// those of the rules.
    pub fn fixed_differences(&self, other: &Self) -> Vec<&'static str> {
        let names = |settings: &Self| -> BTreeSet<String> {
            settings
                .interfaces
                .iter()
                .map(|(name, _)| name.clone())
                .collect()
        };
        let mode_differs = |(name, mode): &(String, Mode)| {
            let in_other = other.interfaces.iter().find(|(other, _)| other == name);
            in_other.is_some_and(|(_, other)| other != mode)
        };
        [
            ("--interface", names(self) != names(other)),
            ("--mode", self.interfaces.iter().any(mode_differs)),
            ("--capacity", self.capacity != other.capacity),
            (
                "--relay-counters",
                self.relay_counters != other.relay_counters,
            ),
            ("--metrics", self.metrics != other.metrics),
            ("--persist", self.persist != other.persist),
            ("--trace", self.trace != other.trace),
        ]
        .into_iter()
        .filter_map(|(flag, differs)| differs.then_some(flag))
        .collect()
    }
}
