//! What becomes of a frame, and why. [`Reason`] is the only source of counter slots, metric labels,
//! JSON strings and documentation tables.

/// What becomes of a frame.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It goes on to the kernel's stack, untouched.
    Pass,
    /// It ends here.
    Drop,
    /// It goes on, but would end here without `--observe`.
    WouldDrop,
}

impl Verdict {
    /// All verdicts in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Pass, Self::Drop, Self::WouldDrop];

    /// As metrics and JSON have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::WouldDrop => "would_drop",
        }
    }
}

macro_rules! reasons {
    ($($variant:ident, $name:literal, $verdicts:expr, $meaning:literal;)*) => {
        /// Why a frame got its verdict.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Reason {
            $(#[doc = $meaning] $variant,)*
        }

        impl Reason {
            /// All reasons in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// As metrics and JSON have it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// The verdicts that this reason can have.
            pub const fn verdicts(self) -> &'static [Verdict] {
                match self { $(Self::$variant => $verdicts),* }
            }

            /// What it means, in a sentence for the operator.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning),* }
            }
        }
    };
}

const PASS: &[Verdict] = &[Verdict::Pass];
const DROP: &[Verdict] = &[Verdict::Drop, Verdict::WouldDrop];
const ANY: &[Verdict] = &Verdict::ALL;

reasons! {
    First, "first", PASS,
        "The first copy of a message that the table does not know, or knew more than 70 minutes ago.";
    Duplicate, "duplicate", DROP,
        "The same bytes of the same client message passed within the window.";
    Retransmission, "retransmission", PASS,
        "The client sent the message again: the window is over, or the bytes are others.";
    Escalated, "escalated", PASS,
        "A copy of every third transmission (`--escalate-every`): that client is not being served, so all copies pass.";
    OtherType, "other_type", PASS,
        "The client message is of a type that is not filtered.";
    NotRelayForward, "not_relay_forward", PASS,
        "To UDP port 547, but not a Relay-forward; with `--messages all`, nor one of the filtered types.";
    Fragment, "fragment", PASS,
        "The first fragment of a fragmented datagram, or an atomic fragment.";
    Malformed, "malformed", PASS,
        "Lengths that contradict each other, or no client message inside.";
    TooDeep, "too_deep", PASS,
        "More than 64 options before the client message.";
    BadChecksum, "bad_checksum", PASS,
        "The UDP checksum is wrong or zero; the message is not remembered.";
    UntrustedRelay, "untrusted_relay", ANY,
        "Trusted relays are configured, and the source address is not one of them.";
    Unverifiable, "unverifiable", PASS,
        "A client message of over 1500 bytes, or a datagram that is over 4096 bytes or does not lie in the frame's first buffer.";
    TableError, "table_error", PASS,
        "The kernel's table refused the message.";
    NotDhcp, "not_dhcp", PASS,
        "Not a datagram to UDP port 547, or it cannot be shown to be one; `replay` alone shows these, the live program does not count them.";
}

impl Reason {
    /// The reasons that the live program counts: all but [`NotDhcp`](Self::NotDhcp), the last.
    pub const COUNTED: usize = Self::ALL.len() - 1;
}
