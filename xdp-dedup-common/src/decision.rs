//! The rule: from a frame to its verdict and reason, in the order of the README's section "How it
//! decides".

use crate::{
    Identity, Packet, Policy, Reason, Sighting, Verdict, checksum,
    datagram::{self, Datagram, MAX_DATAGRAM},
    digest::{Digest, MAX_MESSAGE},
    message::MessageType,
    policy::{IdentityBy, Messages},
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

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of it.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// How long after the remembered copy of its identity it came, where there was one.
    pub gap: Option<Microseconds>,
}

impl Decision {
    #[inline(always)]
    const fn pass(reason: Reason) -> Self {
        Self {
            verdict: Verdict::Pass,
            reason,
            gap: None,
        }
    }

    #[inline(always)]
    const fn after(self, gap: Microseconds) -> Self {
        Self {
            gap: Some(gap),
            ..self
        }
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
    let message = message(packet, &datagram, policy)?;
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
    sight(packet, &datagram, &identity, digest, policy, surroundings)
}

/// The message of the client, out of its relays' envelopes.
#[inline(always)]
fn message<P: Packet>(
    packet: &P,
    datagram: &Datagram,
    policy: &Policy,
) -> Result<ClientMessage, Reason> {
    match outermost_type(packet, datagram)? {
        Some(MessageType::RELAY_FORWARD) => relay_forward::client_message(packet, datagram),
        Some(message_type) if message_type.is_filtered() && policy.messages() == Messages::All => {
            relay_forward::direct_message(packet, datagram)
        }
        _ => Err(Reason::NotRelayForward),
    }
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
    Some(match policy.identity() {
        IdentityBy::Client => {
            let identity = Identity {
                destination: packet.read(datagram.destination())?,
                peer: packet.read(message.peer)?,
                message: message.header,
            };
            (identity, Digest::of(packet, message, policy.digest_key())?)
        }
        IdentityBy::TransactionId => (Identity::of_transaction_id(message.header), Digest::NONE),
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
    let verdict = if policy.observe() {
        Verdict::WouldDrop
    } else {
        Verdict::Drop
    };
    Decision {
        verdict,
        reason: Reason::Duplicate,
        gap: Some(gap),
    }
}

#[cfg(test)]
mod tests;
