//! The policy as operators write it: flags and keys of the configuration file, turned into the value
//! that the decision reads.

use std::{net::Ipv6Addr, time::Duration};

use anyhow::Result;
use clap::{Args, ValueEnum};
use ipnet::{AddrParseError, Ipv6Net};
use xdp_dedup_common::{
    Policy,
    digest::DigestKey,
    policy::{EscalateEvery, IdentityBy, Messages, Untrusted, Window},
    time::Microseconds,
    trusted::Prefix,
};

use crate::usage::usage;

/// Most prefixes of trusted relays: the room in the kernel program's map.
pub const MAX_TRUSTED_RELAYS: usize = 1024;

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

    /// Of every N-th transmission of a message all copies pass, 0 to 63; 0 for never
    /// [default: 3]
    #[arg(long, value_name = "N", value_parser = parse_escalate_every)]
    pub escalate_every: Option<EscalateEvery>,

    /// Which messages are filtered: those that relays forward, or also those that clients send
    /// directly [default: relayed]
    #[arg(long, value_enum, value_name = "WHICH")]
    pub messages: Option<MessagesFlag>,

    /// Trust Relay-forwards from this IPv6 prefix or address; can be given several times, and then
    /// those from elsewhere never touch the table [default: all are trusted]
    #[arg(long = "trusted-relay", value_name = "PREFIX", value_parser = parse_prefix)]
    pub trusted_relays: Vec<Prefix>,

    /// What becomes of Relay-forwards from elsewhere [default: pass]
    #[arg(long, value_enum, value_name = "VERDICT")]
    pub untrusted: Option<UntrustedFlag>,

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

/// Values of `--untrusted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UntrustedFlag {
    /// They pass.
    Pass,
    /// They are dropped.
    Drop,
}

/// What the flags come to: the policy, and what it refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The policy.
    pub policy: Policy,
    /// The trusted relays, if not all are.
    pub trusted_relays: Vec<Prefix>,
}

impl PolicyFlags {
    /// These flags, and those of `other` where these say nothing.
    pub fn or(self, other: Self) -> Self {
        Self {
            window: self.window.or(other.window),
            identity: self.identity.or(other.identity),
            escalate_every: self.escalate_every.or(other.escalate_every),
            messages: self.messages.or(other.messages),
            trusted_relays: if self.trusted_relays.is_empty() {
                other.trusted_relays
            } else {
                self.trusted_relays
            },
            untrusted: self.untrusted.or(other.untrusted),
            observe: self.observe.or(other.observe),
        }
    }

    /// The rules that they make, with this secret for the digests.
    ///
    /// # Errors
    ///
    /// A [`UsageError`](crate::usage::UsageError) where they contradict one another.
    pub fn rules(&self, key: DigestKey) -> Result<Rules> {
        let trusted_relays = self.trusted_relays.clone();
        if trusted_relays.is_empty() && self.untrusted.is_some() {
            return Err(usage(
                "`--untrusted` says what becomes of relays that are not trusted, but all are: give \
                 those that are to be with --trusted-relay PREFIX",
            ));
        }
        if trusted_relays.len() > MAX_TRUSTED_RELAYS {
            return Err(usage(format!(
                "at most {MAX_TRUSTED_RELAYS} prefixes of trusted relays can be given"
            )));
        }
        let untrusted = match self.untrusted {
            _ if trusted_relays.is_empty() => None,
            None | Some(UntrustedFlag::Pass) => Some(Untrusted::Pass),
            Some(UntrustedFlag::Drop) => Some(Untrusted::Drop),
        };
        Ok(Rules {
            policy: self.policy(key).with_untrusted(untrusted),
            trusted_relays,
        })
    }

    fn policy(&self, key: DigestKey) -> Policy {
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

fn parse_prefix(text: &str) -> Result<Prefix, String> {
    let whole = text
        .parse()
        .map(|address: Ipv6Addr| Prefix::new(address, 128));
    let prefix = text
        .parse()
        .map(|net: Ipv6Net| Prefix::new(net.addr(), net.prefix_len()));
    whole.or(prefix).map_err(|_: AddrParseError| {
        "an IPv6 prefix or address, such as 2001:db8:b::/64 or 2001:db8:b::a".to_owned()
    })
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
