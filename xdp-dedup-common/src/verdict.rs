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
        "The client sent the message again: the window is over, or the bytes are others; also what met another copy in the same instant and could not be proven one.";
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn reasons_are_numbered_as_listed_and_have_names_of_their_own() {
        for (number, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
        }
        let names: HashSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for name in names {
            // Prometheus takes it as a label, JSON as a string, both without a second look.
            assert!(
                name.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{name}"
            );
        }
    }

    #[test]
    fn the_reasons_are_those_that_dashboards_know() {
        let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(
            names.join(" "),
            "first duplicate retransmission escalated other_type not_relay_forward fragment \
             malformed too_deep bad_checksum untrusted_relay unverifiable table_error not_dhcp"
        );
        assert_eq!(
            Verdict::ALL.map(Verdict::name),
            ["pass", "drop", "would_drop"]
        );
    }

    #[test]
    fn all_reasons_but_not_dhcp_are_counted() {
        assert_eq!(Reason::ALL[Reason::COUNTED..], [Reason::NotDhcp]);
    }

    #[test]
    fn only_what_was_proven_is_dropped() {
        for reason in Reason::ALL {
            let verdicts = reason.verdicts();
            match reason {
                Reason::Duplicate => assert!(!verdicts.contains(&Verdict::Pass)),
                // The operator's choice.
                Reason::UntrustedRelay => assert!(verdicts.contains(&Verdict::Pass)),
                _ => assert_eq!(verdicts, [Verdict::Pass], "{reason:?}"),
            }
            // What can be dropped can also be observed.
            let [drop, would_drop] =
                [Verdict::Drop, Verdict::WouldDrop].map(|verdict| verdicts.contains(&verdict));
            assert_eq!(drop, would_drop, "{reason:?}");
        }
    }
}
