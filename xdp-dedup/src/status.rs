//! `status`: what is attached where, under which policy.

use std::{
    fmt::Display,
    io::{self, Write},
    net::Ipv6Addr,
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;
use clap::{Args, ValueEnum};
use humantime::format_duration;
use serde::Serialize;
use xdp_dedup_common::{
    policy::{IdentityBy, Messages, Untrusted},
    trusted::Prefix,
};

use crate::{
    output::{self, Time},
    policy::{IdentityFlag, MessagesFlag, Rules, UntrustedFlag},
    state::{self, Filtered, NOTHING, State},
};

/// What `status` ends with where nothing is attached.
pub const NOTHING_ATTACHED: u8 = 3;

/// Arguments of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Prints what is attached; the exit code tells whether anything is.
///
/// # Errors
///
/// Where the state cannot be read, for want of privileges for example.
pub fn run(args: &StatusArgs) -> Result<ExitCode> {
    let state = state::block_on(State::read())?;
    let status = Status::of(state.as_ref())?;
    output::print(|output| {
        if args.json {
            output::json(output, &status)
        } else {
            status.write(output)
        }
    })?;
    Ok(if status.is_attached() {
        ExitCode::SUCCESS
    } else {
        NOTHING_ATTACHED.into()
    })
}

/// What there is to say. The fields' order is that of the JSON.
#[derive(Debug, Serialize)]
struct Status {
    daemon_running: bool,
    daemon_pid: Option<u32>,
    interfaces: Vec<InterfaceLine>,
    policy: Option<PolicyLines>,
    table: Option<Fill>,
}

/// An interface that the filter was put on.
#[derive(Debug, Serialize)]
struct InterfaceLine {
    interface: String,
    index: u32,
    mode: String,
    attached: bool,
    since: Time,
    program_id: u32,
    program_tag: String,
}

/// The policy in force, under the names of the flags that set it.
#[derive(Debug, Serialize)]
struct PolicyLines {
    window_seconds: f64,
    identity: String,
    escalate_every: u8,
    messages: String,
    observe: bool,
    trusted_relays: Vec<String>,
    /// None if all relays are trusted.
    untrusted: Option<String>,
}

#[derive(Debug, Serialize)]
struct Fill {
    entries: usize,
    capacity: u32,
}

impl Status {
    fn of(state: Option<&State>) -> Result<Self> {
        let Some(state) = state else {
            return Ok(Self {
                daemon_running: false,
                daemon_pid: None,
                interfaces: Vec::new(),
                policy: None,
                table: None,
            });
        };
        Ok(Self {
            daemon_running: state.daemon.is_some(),
            daemon_pid: state.daemon,
            interfaces: state.interfaces.iter().map(InterfaceLine::of).collect(),
            policy: Some(PolicyLines::of(&state.maps.rules()?)),
            table: Some(Fill {
                entries: state.maps.table_entries(),
                capacity: state.maps.capacity(),
            }),
        })
    }

    fn is_attached(&self) -> bool {
        self.interfaces.iter().any(|line| line.attached)
    }

    /// For people.
    fn write(&self, output: &mut impl Write) -> io::Result<()> {
        let (Some(policy), Some(table)) = (&self.policy, &self.table) else {
            return writeln!(output, "{NOTHING}");
        };
        let header = ["interface", "mode", "attached", "since", "program", "tag"];
        let mut lines = output::table(header, &[4]);
        for line in &self.interfaces {
            lines.add_row([
                line.interface.as_str(),
                &line.mode,
                yes_or_no(line.attached),
                &line.since.to_string(),
                &line.program_id.to_string(),
                &line.program_tag,
            ]);
        }
        writeln!(output, "{}\n", lines.trim_fmt())?;
        let mut say = |what: &str, value: &dyn Display| writeln!(output, "{what:<16}{value}");
        say(
            "daemon",
            &match (self.daemon_pid, self.is_attached()) {
                (Some(pid), _) => format!("running, process {pid}"),
                (None, true) => "not running; the filter goes on without it".to_owned(),
                (None, false) => {
                    "not running; what it left is not attached: start `xdp-dedup run`".to_owned()
                }
            },
        )?;
        policy.write(&mut say)?;
        let Fill { entries, capacity } = table;
        say("table", &format!("{entries} of {capacity} entries"))
    }
}

impl InterfaceLine {
    fn of(interface: &Filtered) -> Self {
        Self {
            interface: interface.name.clone(),
            index: interface.index,
            mode: interface.mode.to_string(),
            attached: interface.attached,
            since: Time(interface.since),
            program_id: interface.program_id,
            program_tag: format!("{:016x}", interface.program_tag),
        }
    }
}

impl PolicyLines {
    fn of(rules: &Rules) -> Self {
        let policy = &rules.policy;
        Self {
            window_seconds: output::seconds(policy.window().length()),
            identity: name_of(&match policy.identity() {
                IdentityBy::Client => IdentityFlag::Client,
                IdentityBy::TransactionId => IdentityFlag::Xid,
            }),
            escalate_every: policy.escalate_every().transmissions(),
            messages: name_of(&match policy.messages() {
                Messages::Relayed => MessagesFlag::Relayed,
                Messages::All => MessagesFlag::All,
            }),
            observe: policy.observe(),
            trusted_relays: rules.trusted_relays.iter().map(shown).collect(),
            untrusted: policy.untrusted().map(|verdict| {
                name_of(&match verdict {
                    Untrusted::Pass => UntrustedFlag::Pass,
                    Untrusted::Drop => UntrustedFlag::Drop,
                })
            }),
        }
    }

    fn write(&self, say: &mut impl FnMut(&str, &dyn Display) -> io::Result<()>) -> io::Result<()> {
        let window = Duration::from_secs_f64(self.window_seconds);
        say("window", &format_duration(window))?;
        say("identity", &self.identity)?;
        match self.escalate_every {
            0 => say("escalate-every", &"0, never")?,
            every => say("escalate-every", &every)?,
        }
        say("messages", &self.messages)?;
        say("observe", &yes_or_no(self.observe))?;
        match &self.untrusted {
            None => say("trusted-relay", &"all"),
            Some(verdict) => {
                say("trusted-relay", &self.trusted_relays.join(", "))?;
                say("untrusted", verdict)
            }
        }
    }
}

/// As on the command line.
fn name_of(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// As on the command line; a whole address without its length.
fn shown(prefix: &Prefix) -> String {
    let address = Ipv6Addr::from(prefix.address());
    match prefix.length() {
        Ipv6Addr::BITS => address.to_string(),
        length => format!("{address}/{length}"),
    }
}

const fn yes_or_no(truth: bool) -> &'static str {
    if truth { "yes" } else { "no" }
}
