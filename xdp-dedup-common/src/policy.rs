//! What the operator chose: one value in a map of the kernel program, changed live.

use bytemuck::{Pod, Zeroable};

use crate::{digest::DigestKey, time::Microseconds};

/// How long after the copy that passed another one is dropped.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
pub struct Window(u64);

impl Window {
    /// The shortest window that can be set.
    pub const SHORTEST: Self = Self(Microseconds::from_milliseconds(1).0);
    /// Copies lie microseconds to a few milliseconds apart, 100 ms behind a relay that looks up the
    /// client's link-layer address first; iPXE retransmits after 250 ms.
    pub const DEFAULT: Self = Self(Microseconds::from_milliseconds(200).0);
    /// A longer window reaches into iPXE's first retransmission.
    pub const ADVISED: Self = Self(Microseconds::from_milliseconds(250).0);
    /// The longest window that can be set.
    pub const LONGEST: Self = Self(Microseconds::from_seconds(60).0);

    /// A window of this length, if it is neither shorter than [`SHORTEST`](Self::SHORTEST) nor longer
    /// than [`LONGEST`](Self::LONGEST).
    pub fn new(length: Microseconds) -> Option<Self> {
        let window = Self(length.0);
        (Self::SHORTEST <= window && window <= Self::LONGEST).then_some(window)
    }

    /// Its length.
    #[inline(always)]
    pub const fn length(self) -> Microseconds {
        Microseconds(self.0)
    }
}

/// Of every how many transmissions of a message all copies pass, in case the relay that wins the
/// race cannot reach the client; 0 for never.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Pod, Zeroable)]
pub struct EscalateEvery(u8);

impl EscalateEvery {
    /// A client on its third transmission is not being served.
    pub const DEFAULT: Self = Self(3);
    /// The most that can be set: an entry of the table has six bits to count in.
    pub const MOST: Self = Self(63);

    /// Every `transmissions`-th, if that is no more than [`MOST`](Self::MOST).
    pub fn new(transmissions: u8) -> Option<Self> {
        (transmissions <= Self::MOST.0).then_some(Self(transmissions))
    }

    /// The number of transmissions, 0 for never.
    #[inline(always)]
    pub const fn transmissions(self) -> u8 {
        self.0
    }
}

/// What makes two messages the same (`--identity`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdentityBy {
    /// Destination, type, transaction-id and client address, and the same bytes.
    #[default]
    Client,
    /// The transaction-id alone, whatever the bytes: what others did before, for comparison.
    TransactionId,
}

/// Which messages are filtered (`--messages`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Messages {
    /// Those that a relay forwarded.
    #[default]
    Relayed,
    /// Those that clients send directly too.
    All,
}

/// What becomes of a Relay-forward whose source is not a trusted relay (`--untrusted`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untrusted {
    /// It passes, and is not remembered.
    Pass,
    /// It ends here.
    Drop,
}

/// The policy in force. `repr(C)` without padding: the kernel program reads it from a map as it is.
///
/// A reader may see a change half made: each field holds a valid value at all times, none depends on
/// another.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Policy {
    window: Window,
    digest_key: DigestKey,
    escalate_every: EscalateEvery,
    identity_by_transaction_id: u8,
    all_messages: u8,
    observe: u8,
    untrusted: u8,
    reserved: [u8; 3],
}

const UNTRUSTED_PASS: u8 = 1;
const UNTRUSTED_DROP: u8 = 2;

impl Policy {
    /// The defaults of the command line, under `key`.
    pub const fn new(key: DigestKey) -> Self {
        Self {
            window: Window::DEFAULT,
            digest_key: key,
            escalate_every: EscalateEvery::DEFAULT,
            identity_by_transaction_id: 0,
            all_messages: 0,
            observe: 0,
            untrusted: 0,
            reserved: [0; 3],
        }
    }

    /// The same under another key.
    pub const fn with_digest_key(self, digest_key: DigestKey) -> Self {
        Self { digest_key, ..self }
    }

    /// The same with another window.
    pub const fn with_window(self, window: Window) -> Self {
        Self { window, ..self }
    }

    /// The same with another escalation.
    pub const fn with_escalate_every(self, escalate_every: EscalateEvery) -> Self {
        Self {
            escalate_every,
            ..self
        }
    }

    /// The same with another identity.
    pub const fn with_identity(self, by: IdentityBy) -> Self {
        Self {
            identity_by_transaction_id: matches!(by, IdentityBy::TransactionId) as u8,
            ..self
        }
    }

    /// The same for other messages.
    pub const fn with_messages(self, messages: Messages) -> Self {
        Self {
            all_messages: matches!(messages, Messages::All) as u8,
            ..self
        }
    }

    /// The same, passing what it would drop (`--observe`) or not.
    pub const fn with_observe(self, observe: bool) -> Self {
        Self {
            observe: observe as u8,
            ..self
        }
    }

    /// The same, where this becomes of Relay-forwards from other sources than the trusted relays; none
    /// if all sources are trusted.
    pub const fn with_untrusted(self, untrusted: Option<Untrusted>) -> Self {
        Self {
            untrusted: match untrusted {
                None => 0,
                Some(Untrusted::Pass) => UNTRUSTED_PASS,
                Some(Untrusted::Drop) => UNTRUSTED_DROP,
            },
            ..self
        }
    }

    /// How long after the copy that passed another one is dropped.
    #[inline(always)]
    pub const fn window(&self) -> Window {
        self.window
    }

    /// The secret of the digests.
    #[inline(always)]
    pub const fn digest_key(&self) -> &DigestKey {
        &self.digest_key
    }

    /// Of every how many transmissions all copies pass.
    #[inline(always)]
    pub const fn escalate_every(&self) -> EscalateEvery {
        self.escalate_every
    }

    /// What makes two messages the same.
    #[inline(always)]
    pub const fn identity(&self) -> IdentityBy {
        if self.identity_by_transaction_id == 0 {
            IdentityBy::Client
        } else {
            IdentityBy::TransactionId
        }
    }

    /// Which messages are filtered.
    #[inline(always)]
    pub const fn messages(&self) -> Messages {
        if self.all_messages == 0 {
            Messages::Relayed
        } else {
            Messages::All
        }
    }

    /// Whether what would be dropped passes.
    #[inline(always)]
    pub const fn observe(&self) -> bool {
        self.observe != 0
    }

    /// What becomes of Relay-forwards from other sources than the trusted relays; none if all sources
    /// are trusted.
    #[inline(always)]
    pub const fn untrusted(&self) -> Option<Untrusted> {
        match self.untrusted {
            0 => None,
            UNTRUSTED_DROP => Some(Untrusted::Drop),
            _ => Some(Untrusted::Pass),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_1_ms_to_60_s_long() {
        let is_window = |microseconds| Window::new(Microseconds(microseconds)).is_some();
        assert!(!is_window(0) && !is_window(999) && is_window(1000));
        assert!(is_window(60_000_000) && !is_window(60_000_001) && !is_window(u64::MAX));
    }

    #[test]
    fn at_most_every_63rd_transmission_escalates() {
        assert!(EscalateEvery::new(0).is_some() && EscalateEvery::new(63).is_some());
        assert!(EscalateEvery::new(64).is_none() && EscalateEvery::new(255).is_none());
    }

    #[test]
    fn the_defaults_are_those_of_the_command_line() {
        let policy = Policy::new(DigestKey::FIXED);
        assert_eq!(
            policy.window().length(),
            Microseconds::from_milliseconds(200)
        );
        assert_eq!(policy.escalate_every().transmissions(), 3);
        assert_eq!(policy.identity(), IdentityBy::Client);
        assert_eq!(policy.messages(), Messages::Relayed);
        assert!(!policy.observe());
    }

    #[test]
    fn each_choice_changes_itself_alone() {
        let default = Policy::new(DigestKey::FIXED);
        let changed = [
            default.with_window(Window::LONGEST),
            default.with_escalate_every(EscalateEvery::MOST),
            default.with_identity(IdentityBy::TransactionId),
            default.with_messages(Messages::All),
            default.with_observe(true),
            default.with_untrusted(Some(Untrusted::Pass)),
            default.with_untrusted(Some(Untrusted::Drop)),
        ];
        for policy in changed {
            let differences = [
                policy.window() != default.window(),
                policy.escalate_every() != default.escalate_every(),
                policy.identity() != default.identity(),
                policy.messages() != default.messages(),
                policy.observe() != default.observe(),
                policy.untrusted() != default.untrusted(),
            ];
            assert_eq!(
                differences.iter().filter(|differs| **differs).count(),
                1,
                "{policy:?}"
            );
            assert_eq!(policy.digest_key(), default.digest_key());
        }
        let back = changed[4]
            .with_observe(false)
            .with_identity(IdentityBy::Client)
            .with_messages(Messages::Relayed);
        assert_eq!(back, default);
    }

    #[test]
    fn the_kernel_reads_a_policy_of_64_bytes() {
        assert_eq!(size_of::<Policy>(), 64);
    }
}
