//! What is played: clients that boot, each message of theirs through two relays, and traffic that
//! has nothing to do with it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use testbed::bystander::{self, Macs};
use testbed::frame::{ClientMessage, message_type, option_code, relayed, reported};
use testbed::sender::Timed;

/// MAC address of the server's interface, as the frames of [`testbed::frame`] have it.
pub const SERVER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0xb0, 0x07];
/// MAC address of the interface on the relays' side.
pub const RELAYS_MAC: [u8; 6] = [0x02, 0, 0, 0, 0xff, 0xfe];
/// The server's IPv4 address.
pub const SERVER_IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
/// A neighbour of the server that has to do with neither DHCP nor relays.
pub const NEIGHBOUR_IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The same neighbour's IPv6 address.
pub const NEIGHBOUR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// Where bystanders' datagrams go: syslog.
pub const BYSTANDER_PORT: u16 = 514;

const CLIENTS: u16 = 20;
/// Clients whose machines get power in the same instant: their messages interleave.
const RACK: u16 = 5;
/// Those whose first Solicit gets no answer in time.
const RETRANSMIT_ONCE: [u16; 4] = [3, 7, 11, 15];
/// Those that are not answered either when they try again.
const RETRANSMIT_TWICE: [u16; 2] = [1, 6];
const BYSTANDERS: u16 = 60;

/// From Solicit to Request: the answer, and the client's thinking.
const THINKING: Duration = Duration::from_millis(60);
/// RFC 9915, section 7.6: SOL_TIMEOUT. The second interval is about two seconds there; the demo
/// does not want to wait for that.
const RETRANSMISSION: [Duration; 2] = [Duration::from_millis(1000), Duration::from_millis(1200)];

/// One sending by a client: two frames, one for each relay.
#[derive(Clone, Copy, Debug)]
pub struct Transmission {
    /// The how manieth sending of the same message it is, from 1.
    pub nth: u8,
}

impl Transmission {
    /// Whether the filter lets both copies through: by default those of every third.
    pub const fn is_escalated(self) -> bool {
        self.nth.is_multiple_of(3)
    }
}

/// Whose a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A copy of this transmission.
    Transmission(usize),
    /// This one of the bystanders.
    Bystander(u16),
}

/// All that is sent in one run.
pub struct Scene {
    /// Every frame at its time, in the order of sending.
    pub schedule: Vec<Timed>,
    /// Whose each of them is.
    pub owners: Vec<Owner>,
    /// The clients' transmissions.
    pub transmissions: Vec<Transmission>,
    payloads: BTreeMap<Vec<u8>, Owner>,
}

impl Scene {
    /// The same one every time.
    pub fn new() -> Self {
        let mut script = Script::default();
        for client in 0..CLIENTS {
            script.client(client);
        }
        for number in 0..BYSTANDERS {
            script.bystander(number);
        }
        script.frames.sort_by_key(|(timed, _)| timed.at);
        let (schedule, owners) = script.frames.into_iter().unzip();
        Self {
            schedule,
            owners,
            transmissions: script.transmissions,
            payloads: script.payloads,
        }
    }

    /// Whose a payload is that reached a socket.
    pub fn owner(&self, payload: &[u8]) -> Option<Owner> {
        self.payloads.get(payload).copied()
    }

    /// Frames of the relays.
    pub fn copies(&self) -> usize {
        2 * self.transmissions.len()
    }

    /// Transmissions of which all copies are to pass.
    pub fn escalated(&self) -> usize {
        self.transmissions
            .iter()
            .filter(|t| t.is_escalated())
            .count()
    }

    /// Transmissions that repeat a message.
    pub fn retransmissions(&self) -> usize {
        self.transmissions.iter().filter(|t| t.nth > 1).count()
    }

    /// Frames that are none of the filter's business.
    pub const fn bystanders(&self) -> usize {
        BYSTANDERS as usize
    }

    /// What it shows, in a few words.
    pub fn description(&self) -> String {
        format!(
            "{CLIENTS} clients boot, {RACK} of them at a time: {} messages, {} of them sent again \
             for want of an answer.\nRelays {} and {} each forward every one.",
            self.transmissions.len(),
            self.retransmissions(),
            reported::RELAY_A,
            reported::RELAY_B,
        )
    }
}

/// A scene in the making.
#[derive(Default)]
struct Script {
    frames: Vec<(Timed, Owner)>,
    transmissions: Vec<Transmission>,
    payloads: BTreeMap<Vec<u8>, Owner>,
}

impl Script {
    /// Solicit, again if nobody answers, and Request.
    fn client(&mut self, number: u16) {
        let together = Duration::from_micros(15) * u32::from(number % RACK);
        let power_on = Duration::from_millis(150) * u32::from(number / RACK) + together;
        let retransmissions = if RETRANSMIT_TWICE.contains(&number) {
            2
        } else {
            usize::from(RETRANSMIT_ONCE.contains(&number))
        };
        let mut elapsed = Duration::ZERO;
        self.transmission(power_on, &solicit(number, elapsed), number, 1);
        for (nth, interval) in (2..).zip(&RETRANSMISSION[..retransmissions]) {
            elapsed += *interval;
            self.transmission(power_on + elapsed, &solicit(number, elapsed), number, nth);
        }
        let answered = power_on + elapsed + THINKING;
        self.transmission(answered, &request(number), number, 1);
    }

    /// A client's message through both relays: either may be the faster one.
    fn transmission(&mut self, at: Duration, message: &ClientMessage, client: u16, nth: u8) {
        let number = self.transmissions.len();
        let owner = Owner::Transmission(number);
        self.transmissions.push(Transmission { nth });
        let mut relays = [reported::RELAY_A, reported::RELAY_B];
        if number % 3 == 2 {
            relays.reverse();
        }
        // The first pair is 39 us apart, as it was reported; the others spread around it.
        let gap = Duration::from_micros(39 + number as u64 * 23 % 60);
        for (relay, at) in relays.into_iter().zip([at, at + gap]) {
            let mut frame = relayed(relay, reported::SERVER, peer(client), message);
            frame.destination_mac = SERVER_MAC;
            self.payloads.insert(frame.payload.clone(), owner);
            self.frames.push((
                Timed {
                    at,
                    frame: frame.bytes(),
                },
                owner,
            ));
        }
    }

    fn bystander(&mut self, number: u16) {
        let owner = Owner::Bystander(number);
        let macs = Macs {
            destination: SERVER_MAC,
            source: RELAYS_MAC,
        };
        let text = format!("bystander {number}").into_bytes();
        let frame = match number % 3 {
            0 => bystander::udp_over_ipv6(macs, NEIGHBOUR, reported::SERVER, BYSTANDER_PORT, &text),
            1 => bystander::udp_over_ipv4(macs, NEIGHBOUR_IPV4, SERVER_IPV4, BYSTANDER_PORT, &text),
            _ => bystander::echo_request(macs, NEIGHBOUR, reported::SERVER, &text),
        };
        self.payloads.insert(text, owner);
        let at = Duration::from_millis(7) + Duration::from_millis(37) * u32::from(number);
        self.frames.push((Timed { at, frame }, owner));
    }
}

/// The first client is the reported one.
fn peer(client: u16) -> Ipv6Addr {
    let mut segments = reported::CLIENT.segments();
    segments[7] = segments[7].wrapping_add(client);
    segments.into()
}

fn transaction_id(client: u16, message_type: u8) -> [u8; 3] {
    let [a, b, c] = reported::TRANSACTION_ID;
    // Every fourth client is an iPXE: one transaction-id for Solicit and Request.
    let own = if client.is_multiple_of(4) {
        0
    } else {
        message_type - 1
    };
    [a.wrapping_add(own), b, c.wrapping_add(client as u8)]
}

fn solicit(client: u16, elapsed: Duration) -> ClientMessage {
    let hundredths = (elapsed.as_millis() / 10) as u16;
    message(client, message_type::SOLICIT, hundredths)
}

fn request(client: u16) -> ClientMessage {
    const SERVER_ID: u16 = 2;
    message(client, message_type::REQUEST, 0).option(SERVER_ID, b"\0\x03\0\x01\x02\0\0\0\xb0\x07")
}

fn message(client: u16, message_type: u8, elapsed: u16) -> ClientMessage {
    // DUID-LL of an Ethernet address.
    let mut duid = *b"\0\x03\0\x01\0\x25\x90\xfc\0\0";
    duid[8..].copy_from_slice(&peer(client).segments()[7].to_be_bytes());
    ClientMessage::new(message_type, transaction_id(client, message_type))
        .client_id(&duid)
        .elapsed_time(elapsed)
        .option(option_code::IA_NA, b"\x90\xfc\xd3\x8c\0\0\0\0\0\0\0\0")
        .option(option_code::OPTION_REQUEST, &[0, 59, 0, 60])
        .option(option_code::CLIENT_ARCHITECTURE, &[0, 7])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transmission_has_two_frames_and_payloads_of_its_own() {
        let scene = Scene::new();
        assert_eq!(scene.schedule.len(), scene.copies() + scene.bystanders());
        assert_eq!(scene.payloads.len(), scene.schedule.len());
        assert_eq!((scene.transmissions.len(), scene.escalated()), (48, 2));
    }

    #[test]
    fn frames_go_out_in_the_order_of_their_times() {
        let scene = Scene::new();
        assert!(scene.schedule.is_sorted_by_key(|timed| timed.at));
    }
}
