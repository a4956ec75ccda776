//! One play of one row of a scenario: with the filter or without. It gives out what plays need, and
//! takes back what was seen.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use serde_json::{Map, Value};
use testbed::daemon::Daemon;
use testbed::namespace::Namespace;
use testbed::veth::End;

use crate::Options;
use crate::dhcp::Message;
use crate::machine::Machine;
use crate::software::tcpdump::Tcpdump;
use crate::tally;
use crate::tap::Tap;

/// The filter's window unless told otherwise.
const WINDOW: Duration = Duration::from_millis(200);

/// How far the filter's clock and the capture's may be apart on a busy machine.
const CLOSE_CALL: Duration = Duration::from_millis(20);

/// A play in progress.
#[derive(Debug)]
pub struct Play<'a> {
    /// Whether the filter is to run in it.
    pub filtered: bool,
    options: &'a Options,
    scenario: &'static str,
    row: &'a str,
    machines: Mutex<Vec<Machine>>,
}

impl<'a> Play<'a> {
    /// A play with the filter, for what is no scenario.
    pub fn filtered(options: &'a Options, scenario: &'static str, row: &'a str) -> Self {
        Self::new(options, scenario, row, true)
    }

    pub(crate) fn new(
        options: &'a Options,
        scenario: &'static str,
        row: &'a str,
        filtered: bool,
    ) -> Self {
        Self {
            filtered,
            options,
            scenario,
            row,
            machines: Mutex::default(),
        }
    }

    /// A new machine.
    ///
    /// # Errors
    ///
    /// Without root.
    pub fn machine(&self, name: &'static str) -> Result<Machine> {
        Machine::new(&self.options.system, name).map(|machine| self.keep(machine))
    }

    /// A machine on a network that is there already, for programs that look at it.
    ///
    /// # Errors
    ///
    /// Without root.
    pub fn machine_on(&self, name: &'static str, namespace: &Namespace) -> Result<Machine> {
        Machine::on(&self.options.system, name, namespace.clone()).map(|machine| self.keep(machine))
    }

    /// Holds on to it for as long as the lab is to be looked at.
    fn keep(&self, machine: Machine) -> Machine {
        if self.options.keep {
            let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
            machines.push(machine.clone());
        }
        machine
    }

    /// A capture on one end of a cable; with `--pcap` it is also written to a file that is named
    /// for the play and this place.
    ///
    /// # Errors
    ///
    /// Where the interface is gone.
    pub fn tap(&self, place: &str, end: &End) -> Result<Tap> {
        Tap::new(end, self.file(place))
    }

    /// tcpdump on an interface of a machine, for more than a [`tap`](Self::tap) should keep; with
    /// `--pcap` its capture is also kept as a tap's is.
    ///
    /// # Errors
    ///
    /// With its log, where it does not come up.
    pub fn tcpdump(&self, place: &str, machine: &Machine, interface: &str) -> Result<Tcpdump> {
        Tcpdump::start(machine, interface, self.file(place))
    }

    fn file(&self, place: &str) -> Option<PathBuf> {
        let with = if self.filtered { "with" } else { "without" };
        let words = self.row.split(|c: char| !c.is_ascii_alphanumeric());
        let row = Vec::from_iter(words.filter(|word| !word.is_empty())).join("-");
        let file = format!("{}-{row}-{with}-{place}.pcap", self.scenario);
        self.options.pcap.as_ref().map(|folder| folder.join(file))
    }

    /// The `xdp-dedup` that is tried.
    pub fn binary(&self) -> &Path {
        &self.options.binary
    }

    /// Starts the filter on the machine with these arguments of `xdp-dedup run`, if it is to run in
    /// this play.
    ///
    /// # Errors
    ///
    /// With its log, where it does not come up.
    pub fn filter(&self, machine: &Machine, arguments: &[&str]) -> Result<Option<Daemon>> {
        if !self.filtered {
            return Ok(None);
        }
        Daemon::start(&self.options.binary, &machine.namespace, arguments).map(Some)
    }

    pub(crate) fn into_machines(self) -> Vec<Machine> {
        self.machines
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was seen in a play.
#[derive(Debug, Default)]
pub struct Seen {
    pub(crate) words: Vec<String>,
    pub(crate) figures: Map<String, Value>,
    pub(crate) complaints: Vec<String>,
    /// Why complaints may be the machine's fault.
    pub(crate) excuse: Option<String>,
    pub(crate) held: Vec<Box<dyn Any + Send>>,
}

impl Seen {
    /// Adds to the line that tells what was seen.
    pub fn say(&mut self, words: impl Into<String>) {
        self.words.push(words.into());
    }

    /// Adds a figure, for `--json`. Names say their unit.
    pub fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.to_owned(), value.into());
    }

    /// Complains unless this holds.
    pub fn must(&mut self, holds: bool, complaint: impl Into<String>) {
        if !holds {
            self.complaints.push(complaint.into());
        }
    }

    /// Looks at what the relays sent, on the wire before the filter: where the machine was so busy that
    /// the copies of a message came further apart than the filter's window, complaints are no news, and
    /// the row is played again.
    pub fn excuse_if_busy(&mut self, relayed: &[Message]) {
        let gap = tally::gaps(relayed).last().copied().unwrap_or_default();
        if gap + CLOSE_CALL > WINDOW {
            self.excuse(format!("copies came {} ms apart", gap.as_millis()));
        }
    }

    /// Says why complaints may be the machine's fault: then the row is played again.
    pub fn excuse(&mut self, why: impl Into<String>) {
        self.excuse = Some(why.into());
    }

    /// Takes what is to stay up for `--keep`: programs and cables.
    pub fn hold(&mut self, thing: impl Any + Send) {
        self.held.push(Box::new(thing));
    }
}
