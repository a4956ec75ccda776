//! The rule as a slow and simple program of its own: written from the README's section "How it
//! decides" and the RFCs, it shares no code with the filter. It keeps whole messages where the filter
//! keeps digests, and whole times and counts where the filter keeps some bits of them.

use std::collections::HashMap;

use crate::frame::{fold, message_type::RELAY_FORWARD, next_header, option_code, sum};

/// What the operator chose. Times are in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `--window`.
    pub window: u64,
    /// `--escalate-every`.
    pub escalate_every: u8,
    /// `--identity xid`.
    pub by_transaction_id: bool,
    /// `--messages all`.
    pub all_messages: bool,
    /// `--observe`.
    pub observe: bool,
    /// `--trusted-relay`: an address and how many of its bits count.
    pub trusted_relay: Option<([u8; 16], u8)>,
    /// `--untrusted drop`.
    pub drop_untrusted: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window: 200_000,
            escalate_every: 3,
            by_transaction_id: false,
            all_messages: false,
            observe: false,
            trusted_relay: None,
            drop_untrusted: false,
        }
    }
}

/// Verdict and reason, as metrics and JSON name them.
pub type Outcome = (&'static str, &'static str);

/// Destination, innermost peer-address, message type and transaction-id.
type Identity = (Vec<u8>, Vec<u8>, Vec<u8>);

/// What passed last of an identity.
#[derive(Clone, Debug)]
struct Transmission {
    message: Vec<u8>,
    time: u64,
    number: u64,
}

/// A filter that remembers everything.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// In force for the next frame.
    pub settings: Settings,
    passed: HashMap<Identity, Transmission>,
}

struct Datagram<'a> {
    source: &'a [u8],
    destination: &'a [u8],
    /// From the UDP header to the end that the UDP length says.
    bytes: &'a [u8],
}

/// Takes bytes off the front.
fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn number(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | usize::from(*byte))
}

impl Model {
    /// What becomes of a frame that lies in one buffer.
    pub fn judge(&mut self, frame: &[u8], time: u64) -> Outcome {
        self.decide(frame, time)
            .unwrap_or_else(|reason| ("pass", reason))
    }

    fn decide(&mut self, frame: &[u8], time: u64) -> Result<Outcome, &'static str> {
        let datagram = datagram(frame)?;
        if datagram.bytes.get(8) == Some(&RELAY_FORWARD) && !self.is_trusted(datagram.source) {
            let verdict = match (self.settings.drop_untrusted, self.settings.observe) {
                (false, _) => "pass",
                (true, false) => "drop",
                (true, true) => "would_drop",
            };
            return Ok((verdict, "untrusted_relay"));
        }
        let (peer, message) = self.message(&datagram)?;
        if !is_filtered(message[0]) {
            return Err("other_type");
        }
        if message.len() > 1500 {
            return Err("unverifiable");
        }
        let (identity, message) = if self.settings.by_transaction_id {
            ((vec![], vec![], message[1..4].to_vec()), vec![])
        } else {
            let destination = datagram.destination.to_vec();
            let identity = (destination, peer.to_vec(), message[..4].to_vec());
            (identity, message.to_vec())
        };

        let known = self.passed.get(&identity).filter(|last| {
            let hour = 3_600_000_000;
            if last.time > time {
                last.time - time <= 1_000_000
            } else {
                time - last.time < hour + hour / 6
            }
        });
        let every = u64::from(self.settings.escalate_every);
        if let Some(last) = known
            && last.message == message
            && time.saturating_sub(last.time) < self.settings.window
        {
            return Ok(if every != 0 && last.number % every == 0 {
                ("pass", "escalated")
            } else if self.settings.observe {
                ("would_drop", "duplicate")
            } else {
                ("drop", "duplicate")
            });
        }
        if !has_valid_checksum(&datagram) {
            return Err("bad_checksum");
        }
        let (reason, number) = match known {
            Some(last) => ("retransmission", last.number + 1),
            None => ("first", 1),
        };
        self.passed.insert(
            identity,
            Transmission {
                message,
                time,
                number,
            },
        );
        Ok(("pass", reason))
    }

    fn is_trusted(&self, relay: &[u8]) -> bool {
        let bit = |bytes: &[u8], i: usize| bytes[i / 8] >> (7 - i % 8) & 1;
        self.settings.trusted_relay.is_none_or(|(address, length)| {
            (0..usize::from(length)).all(|i| bit(relay, i) == bit(&address, i))
        })
    }

    /// The client's address and its message.
    fn message<'a>(&self, datagram: &Datagram<'a>) -> Result<(&'a [u8], &'a [u8]), &'static str> {
        let payload = &datagram.bytes[8..];
        match payload.first() {
            Some(&RELAY_FORWARD) => relayed_message(payload, &mut 0),
            Some(&other) if self.settings.all_messages && is_filtered(other) => {
                if payload.len() < 4 {
                    return Err("malformed");
                }
                Ok((datagram.source, payload))
            }
            _ => Err("not_relay_forward"),
        }
    }
}

fn is_filtered(message_type: u8) -> bool {
    [1, 3, 4, 5, 6, 8, 9, 11, 36].contains(&message_type)
}

fn datagram(frame: &[u8]) -> Result<Datagram<'_>, &'static str> {
    const NOT_DHCP: &str = "not_dhcp";
    let rest = &mut &*frame;
    take(rest, 12).ok_or(NOT_DHCP)?;
    let mut ethertype = number(take(rest, 2).ok_or(NOT_DHCP)?);
    for _ in 0..2 {
        if ethertype == 0x8100 || ethertype == 0x88a8 {
            ethertype = number(&take(rest, 4).ok_or(NOT_DHCP)?[2..]);
        }
    }
    let header = take(rest, 40).ok_or(NOT_DHCP)?;
    if ethertype != 0x86dd || header[0] >> 4 != 6 {
        return Err(NOT_DHCP);
    }
    let packet = *rest;

    let mut next = header[6];
    let mut is_fragment = false;
    for _ in 0..8 {
        if next == next_header::UDP {
            break;
        }
        let start = rest.get(..4).ok_or(NOT_DHCP)?;
        let length = match next {
            next_header::HOP_BY_HOP | next_header::ROUTING | next_header::DESTINATION_OPTIONS => {
                8 + 8 * usize::from(start[1])
            }
            next_header::AUTHENTICATION => 8 + 4 * usize::from(start[1]),
            next_header::FRAGMENT => {
                if number(&start[2..4]) >= 8 {
                    return Err(NOT_DHCP);
                }
                is_fragment = true;
                8
            }
            _ => return Err(NOT_DHCP),
        };
        next = start[0];
        take(rest, length).ok_or(NOT_DHCP)?;
    }
    let udp = rest.get(..8).ok_or(NOT_DHCP)?;
    if next != next_header::UDP || number(&udp[2..4]) != 547 {
        return Err(NOT_DHCP);
    }
    if is_fragment {
        return Err("fragment");
    }

    let before_udp = packet.len() - rest.len();
    let payload_length = number(&header[4..6]);
    let udp_length = number(&udp[4..6]);
    if payload_length == 0
        || payload_length > packet.len()
        || udp_length < 8
        || before_udp + udp_length > payload_length
    {
        return Err("malformed");
    }
    Ok(Datagram {
        source: &header[8..24],
        destination: &header[24..40],
        bytes: &rest[..udp_length],
    })
}

/// The innermost peer-address and the message by the client in there; `walked` options lie outside.
fn relayed_message<'a>(
    layer: &'a [u8],
    walked: &mut usize,
) -> Result<(&'a [u8], &'a [u8]), &'static str> {
    const MALFORMED: &str = "malformed";
    let rest = &mut &*layer;
    let header = take(rest, 34).ok_or(MALFORMED)?;
    loop {
        let option = take(rest, 4).ok_or(MALFORMED)?;
        let data = take(rest, number(&option[2..])).ok_or(MALFORMED)?;
        *walked += 1;
        if *walked > 64 {
            return Err("too_deep");
        }
        if number(&option[..2]) != usize::from(option_code::RELAY_MESSAGE) {
            continue;
        }
        if data.len() < 4 {
            return Err(MALFORMED);
        }
        if data[0] == RELAY_FORWARD {
            return relayed_message(data, walked);
        }
        return Ok((&header[18..], data));
    }
}

fn has_valid_checksum(datagram: &Datagram<'_>) -> bool {
    let length = datagram.bytes.len() as u64;
    let pseudo_header =
        sum(datagram.source) + sum(datagram.destination) + length + u64::from(next_header::UDP);
    let field = number(&datagram.bytes[6..8]);
    field != 0
        && (fold(pseudo_header + sum(datagram.bytes)) == 0xffff
            || usize::from(fold(pseudo_header)) == field)
}
