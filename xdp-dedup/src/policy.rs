//! The policy as operators write it: flags and keys of the configuration file, turned into the value
//! that the decision reads.

use std::time::Duration;

use clap::{Args, ValueEnum};
use xdp_dedup_common::{
    Policy,
    digest::DigestKey,
    policy::{EscalateEvery, IdentityBy, Messages, Window},
    time::Microseconds,
};

/// The flags of the policy, the same for `run` and `replay`. What is not given has its default.
#[derive(Args, Clone, Debug, Default)]
pub struct PolicyFlags {
    /// How long after the copy that passed another one is dropped: 1ms to 60s [default: 200ms]
    #[arg(long, value_name = "TIME", value_parser = parse_window)]
    pub window: Option<Window>,

    /// What makes two messages the same: the client's message byte for byte, or the transaction-id
    /// alone [default: client]
    #[arg(long, value_enum, value_name = "BY")]
    pub identity: Option<IdentityFlag>,

    /// Of every how many transmissions of a message all copies pass, 0 to 63; 0 for never
    /// [default: 3]
    #[arg(long, value_name = "N", value_parser = parse_escalate_every)]
    pub escalate_every: Option<EscalateEvery>,

    /// Which messages are filtered: those that relays forward, or also those that clients send
    /// directly [default: relayed]
    #[arg(long, value_enum, value_name = "WHICH")]
    pub messages: Option<MessagesFlag>,

    /// Count what would be dropped, but let it pass
    #[arg(
        long,
        value_name = "BOOL",
        hide_possible_values = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub observe: Option<bool>,
}

/// Values of `--identity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IdentityFlag {
    /// Destination, message type, transaction-id and client address, and the same bytes.
    Client,
    /// The transaction-id alone, whatever the bytes.
    Xid,
}

/// Values of `--messages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MessagesFlag {
    /// Those that a relay forwarded.
    Relayed,
    /// Those that clients send directly too.
    All,
}

impl PolicyFlags {
    /// These flags, and those of `other` where these say nothing.
    pub fn or(self, other: Self) -> Self {
        Self {
            window: self.window.or(other.window),
            identity: self.identity.or(other.identity),
            escalate_every: self.escalate_every.or(other.escalate_every),
            messages: self.messages.or(other.messages),
            observe: self.observe.or(other.observe),
        }
    }

    /// The policy that they make, with this secret for its digests.
    pub fn policy(&self, key: DigestKey) -> Policy {
        Policy::new(key)
            .with_window(self.window.unwrap_or(Window::DEFAULT))
            .with_escalate_every(self.escalate_every.unwrap_or(EscalateEvery::DEFAULT))
            .with_identity(match self.identity {
                None | Some(IdentityFlag::Client) => IdentityBy::Client,
                Some(IdentityFlag::Xid) => IdentityBy::TransactionId,
            })
            .with_messages(match self.messages {
                None | Some(MessagesFlag::Relayed) => Messages::Relayed,
                Some(MessagesFlag::All) => Messages::All,
            })
            .with_observe(self.observe.unwrap_or(false))
    }
}

fn parse_window(text: &str) -> Result<Window, String> {
    let length = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write a number with its unit, such as 200ms"))?;
    window(length).ok_or_else(|| "a window is 1ms to 60s long".to_owned())
}

fn window(length: Duration) -> Option<Window> {
    Window::new(Microseconds(u64::try_from(length.as_micros()).ok()?))
}

fn parse_escalate_every(text: &str) -> Result<EscalateEvery, String> {
    text.parse()
        .ok()
        .and_then(EscalateEvery::new)
        .ok_or_else(|| {
            format!(
                "a number from 0 (never) to {}",
                EscalateEvery::MOST.transmissions()
            )
        })
}
