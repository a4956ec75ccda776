//! The rule: from a frame to its verdict and reason, in the order of the README's section "How it
//! decides".

use core::fmt;

use bytemuck::{Pod, Zeroable};

use crate::{
    Identity, Packet, Policy, Reason, Sighting, Verdict, checksum,
    datagram::{self, Datagram, MAX_DATAGRAM},
    digest::{Digest, MAX_MESSAGE},
    identity::Address,
    message::MessageType,
    policy::{IdentityBy, Messages, Untrusted},
    relay_forward::{self, ClientMessage},
    sighting::Standing,
    time::{Microseconds, Timestamp},
};

/// What the decision needs besides the frame: the operator's policy, a clock, and the table of what
/// passed before. In the kernel these are maps and a helper.
pub trait Surroundings {
    /// An entry of the table.
    type Entry: Entry;

    /// The policy in force; `None` if it cannot be had, and then every frame passes.
    fn policy(&self) -> Option<&Policy>;

    /// Whether this source of a Relay-forward is one of the trusted relays; asked only where the
    /// policy has some.
    fn is_trusted(&self, relay: Address) -> bool;

    /// Whether messages are counted by relay.
    fn counts_relays(&self) -> bool;

    /// Counts a sighted message by the relay that it came from.
    fn count_relay(&self, relay: Address, decision: &Decision);

    /// The time now.
    fn now(&self) -> Timestamp;

    /// The entry of this identity, if there is one.
    fn recall(&self, identity: &Identity) -> Option<Self::Entry>;

    /// Makes an entry for this identity, in one step with finding that there is none.
    ///
    /// # Errors
    ///
    /// [`Refused::Exists`] if there is one already, [`Refused::Failed`] for any other cause.
    fn remember(&self, identity: &Identity, sighting: Sighting) -> Result<(), Refused>;
}

/// An entry of the table, which other CPUs may change at any time.
pub trait Entry {
    /// What it holds now.
    fn load(&self) -> Sighting;

    /// Puts `new` in place of `old`, in one step; `false` if it no longer held `old`.
    fn replace(&self, old: Sighting, new: Sighting) -> bool;
}

/// Why an entry could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is one already.
    Exists,
    /// The table is full, out of memory or busy.
    Failed,
}

/// What becomes of a frame: verdict, reason and gap in one word. The kernel program carries it past
/// some forty checks, and would set each of three words before every one of them.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct Decision(u64);

const VERDICT_SHIFT: u32 = 8;
const HAS_GAP: u64 = 1 << 16;
const GAP_SHIFT: u32 = 17;

impl Decision {
    #[inline(always)]
    pub(crate) const fn new(verdict: Verdict, reason: Reason) -> Self {
        Self(reason as u64 | (verdict as u64) << VERDICT_SHIFT)
    }

    #[inline(always)]
    const fn pass(reason: Reason) -> Self {
        Self::new(Verdict::Pass, reason)
    }

    #[inline(always)]
    pub(crate) const fn after(self, gap: Microseconds) -> Self {
        Self(self.0 | HAS_GAP | gap.0 << GAP_SHIFT)
    }

    /// Whether it is one: any bytes can come out of a map.
    pub const fn is_valid(self) -> bool {
        (self.verdict_number() as usize) < Verdict::ALL.len()
            && (self.reason_number() as usize) < Reason::ALL.len()
    }

    /// What becomes of it.
    pub const fn verdict(self) -> Verdict {
        Verdict::ALL[self.verdict_number() as usize]
    }

    /// Why.
    pub const fn reason(self) -> Reason {
        Reason::ALL[self.reason_number() as usize]
    }

    /// How long after the remembered copy of its identity it came, where there was one.
    #[inline(always)]
    pub fn gap(self) -> Option<Microseconds> {
        (self.0 & HAS_GAP != 0).then_some(Microseconds(self.0 >> GAP_SHIFT))
    }

    /// Place of the verdict in [`Verdict::ALL`].
    #[inline(always)]
    pub const fn verdict_number(self) -> u8 {
        (self.0 >> VERDICT_SHIFT) as u8
    }

    /// Place of the reason in [`Reason::ALL`].
    #[inline(always)]
    pub const fn reason_number(self) -> u8 {
        self.0 as u8
    }

    /// Whether the frame is none of the filter's business, and not even counted.
    #[inline(always)]
    pub const fn is_bystander(self) -> bool {
        self.reason_number() == Reason::NotDhcp as u8
    }

    /// Whether the frame ends here.
    #[inline(always)]
    pub const fn is_drop(self) -> bool {
        self.verdict_number() == Verdict::Drop as u8
    }

    /// Whether the message was read whole, found good and sighted: [`Reason::First`] to
    /// [`Reason::Escalated`].
    #[inline(always)]
    pub const fn is_sighting(self) -> bool {
        self.reason_number() <= Reason::Escalated as u8
    }
}

impl fmt::Debug for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decision")
            .field("verdict", &self.verdict())
            .field("reason", &self.reason())
            .field("gap", &self.gap())
            .finish()
    }
}

/// Decides what becomes of a frame. Drops only what was proven: the same bytes for the same identity
/// passed within the window. Whatever cannot be read, verified or stored passes.
#[inline(always)]
pub fn decide<P: Packet, S: Surroundings>(packet: &P, surroundings: &S) -> Decision {
    match examine(packet, surroundings) {
        Ok(decision) => decision,
        Err(reason) => Decision::pass(reason),
    }
}

#[inline(always)]
fn examine<P: Packet, S: Surroundings>(packet: &P, surroundings: &S) -> Result<Decision, Reason> {
    let datagram = datagram::find(packet)?;
    let policy = surroundings.policy().ok_or(Reason::TableError)?;
    let (message, is_relayed) = match outermost_type(packet, &datagram)? {
        Some(MessageType::RELAY_FORWARD) => {
            if let Some(untrusted) = policy.untrusted()
                && !surroundings.is_trusted(source(packet, &datagram)?)
            {
                return Ok(untrusted_relay(untrusted, policy));
            }
            (relay_forward::client_message(packet, &datagram)?, true)
        }
        Some(message_type) if message_type.is_filtered() && policy.messages() == Messages::All => {
            (relay_forward::direct_message(packet, &datagram)?, false)
        }
        _ => return Err(Reason::NotRelayForward),
    };
    if !message.header.message_type().is_filtered() {
        return Err(Reason::OtherType);
    }
    // The datagram too, not the message alone: its checksum vouches for the message.
    if message.length > MAX_MESSAGE
        || datagram.end - datagram.udp > MAX_DATAGRAM
        || !packet.is_linear(datagram.end)
    {
        return Err(Reason::Unverifiable);
    }
    let (identity, digest) =
        identify(packet, &datagram, &message, policy).ok_or(Reason::Unverifiable)?;
    let decision = sight(packet, &datagram, &identity, digest, policy, surroundings)?;
    if surroundings.counts_relays() && is_relayed {
        surroundings.count_relay(source(packet, &datagram)?, &decision);
    }
    Ok(decision)
}

/// Who sent the datagram: a relay, or a client.
#[inline(always)]
fn source<P: Packet>(packet: &P, datagram: &Datagram) -> Result<Address, Reason> {
    packet.read(datagram.source()).ok_or(Reason::Unverifiable)
}

/// Type of the message that the datagram carries; `None` if it is empty.
#[inline(always)]
pub(crate) fn outermost_type<P: Packet>(
    packet: &P,
    datagram: &Datagram,
) -> Result<Option<MessageType>, Reason> {
    if datagram.payload() == datagram.end {
        return Ok(None);
    }
    // Read with the last byte of the UDP header: the verifier refuses a one-byte read here.
    let [_, message_type]: [u8; 2] = packet
        .read(datagram.payload() - 1)
        .ok_or(Reason::Unverifiable)?;
    Ok(Some(MessageType(message_type)))
}

#[inline(always)]
fn identify<P: Packet>(
    packet: &P,
    datagram: &Datagram,
    message: &ClientMessage,
    policy: &Policy,
) -> Option<(Identity, Digest)> {
    let key = policy.digest_key();
    Some(match policy.identity() {
        IdentityBy::Client => {
            let identity = Identity {
                destination: packet.read(datagram.destination())?,
                peer: packet.read(message.peer)?,
                message: message.header,
            };
            (identity, Digest::of(packet, message, &identity, key)?)
        }
        IdentityBy::TransactionId => {
            let identity = Identity::of_transaction_id(message.header);
            (identity, Digest::of_identity(&identity, key))
        }
    })
}

/// Looks for an earlier copy in the table, and leaves word of this one.
#[inline(always)]
fn sight<P: Packet, S: Surroundings>(
    packet: &P,
    datagram: &Datagram,
    identity: &Identity,
    digest: Digest,
    policy: &Policy,
    surroundings: &S,
) -> Result<Decision, Reason> {
    let now = surroundings.now();
    let found = surroundings.recall(identity).map(|entry| {
        let sighting = entry.load();
        (entry, sighting)
    });
    if let Some((_, sighting)) = found
        && let Standing::Copy(gap) = sighting.standing(digest, now, policy)
    {
        return Ok(copy(sighting, gap, policy));
    }
    // A damaged first copy, which the stack will discard, must not take the good second one with it.
    if !checksum::is_valid(packet, datagram).ok_or(Reason::Unverifiable)? {
        return Err(Reason::BadChecksum);
    }

    let entry = match found {
        Some((entry, old)) => {
            let (new, decision) = match old.standing(digest, now, policy) {
                Standing::Forgotten => {
                    (Sighting::first(digest, now), Decision::pass(Reason::First))
                }
                Standing::Copy(gap) | Standing::Later(gap) => (
                    old.next(digest, now, policy.escalate_every()),
                    Decision::pass(Reason::Retransmission).after(gap),
                ),
            };
            if entry.replace(old, new) {
                return Ok(decision);
            }
            Some(entry)
        }
        None => match surroundings.remember(identity, Sighting::first(digest, now)) {
            Ok(()) => return Ok(Decision::pass(Reason::First)),
            Err(Refused::Failed) => return Err(Reason::TableError),
            Err(Refused::Exists) => surroundings.recall(identity),
        },
    };

    // Another CPU came first, in this very instant: with a copy, or with another transmission.
    let Some(sighting) = entry.map(|entry| entry.load()) else {
        return Err(Reason::Retransmission);
    };
    Ok(match sighting.standing(digest, now, policy) {
        Standing::Copy(gap) => copy(sighting, gap, policy),
        Standing::Later(gap) => Decision::pass(Reason::Retransmission).after(gap),
        Standing::Forgotten => Decision::pass(Reason::Retransmission),
    })
}

/// What becomes of a copy of a transmission that passed within the window.
#[inline(always)]
fn copy(sighting: Sighting, gap: Microseconds, policy: &Policy) -> Decision {
    if sighting.is_escalated(policy.escalate_every()) {
        return Decision::pass(Reason::Escalated).after(gap);
    }
    Decision::new(drop_verdict(policy), Reason::Duplicate).after(gap)
}

/// What becomes of a Relay-forward that is not of a trusted relay.
#[inline(always)]
fn untrusted_relay(untrusted: Untrusted, policy: &Policy) -> Decision {
    let verdict = match untrusted {
        Untrusted::Pass => Verdict::Pass,
        Untrusted::Drop => drop_verdict(policy),
    };
    Decision::new(verdict, Reason::UntrustedRelay)
}

/// A drop, or what stands for it while the operator observes.
#[inline(always)]
const fn drop_verdict(policy: &Policy) -> Verdict {
    if policy.observe() {
        Verdict::WouldDrop
    } else {
        Verdict::Drop
    }
}

#[cfg(test)]
mod tests;
