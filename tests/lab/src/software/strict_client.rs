//! A DHCPv6 client written for this lab. It models the firmware that the fault was reported from,
//! which nobody has in a package: a second answer is an error to it, it starts over with a new
//! transaction-id until its time is over, and then prints `PXE-E16`.
//!
//! What is known of that firmware is that report; the times are this lab's, short ones.

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use dhcproto::v6::duid::Duid;
use dhcproto::v6::{Architecture, DhcpOption, IAAddr, IANA, Message, MessageType, ORO, OptionCode};
use dhcproto::{Decodable as _, Encodable as _};
use testbed::veth::End;

use crate::dhcp;

/// How long it waits for the first answer to a message.
const FIRST: Duration = Duration::from_secs(1);

/// How long it collects further answers, from the first one on.
const WINDOW: Duration = Duration::from_millis(300);

/// When it gives up, instead of starting over.
const TIME_OUT: Duration = Duration::from_secs(4);

const CLIENT_PORT: u16 = 546;
const SERVER_PORT: u16 = 547;
const ALL_RELAYS_AND_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// Its DUID, which firmware makes of the machine's UUID (RFC 6355).
const UUID: [u8; 16] = 0x311c_0a5e_5c3b_4f0d_9a11_0225_90fc_d38c_u128.to_be_bytes();

/// Longest answer, in bytes.
const LONGEST: usize = 1500;

/// How an attempt to boot ended.
#[derive(Debug)]
pub struct Boot {
    /// How often it sent a Solicit.
    pub attempts: usize,
    /// Where it boots from; nowhere after `PXE-E16`.
    pub from: Option<String>,
    /// What it printed.
    pub log: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Boots by the interface: asks for an address and for the boot file's URL.
///
/// # Errors
///
/// Where the socket fails; what goes wrong in DHCPv6 is in the log.
pub fn boot(interface: &End) -> Result<Boot> {
    let link = interface.index()?;
    let socket = interface
        .namespace
        .inside(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, CLIENT_PORT)))?
        .context("cannot listen on the port of DHCPv6 clients")?;
    let firmware = Firmware {
        socket,
        servers: SocketAddrV6::new(ALL_RELAYS_AND_SERVERS, SERVER_PORT, 0, link),
    };
    let start = Instant::now();
    let mut log = vec![format!(">>Start PXE over IPv6, MAC {}", interface.mac)];
    let mut attempts = 0;
    while start.elapsed() < TIME_OUT {
        attempts += 1;
        match firmware.attempt(&mut log)? {
            Ok(url) => {
                log.push(format!("  NBP filename is {url}"));
                let file = url.rsplit('/').next().unwrap_or(&url);
                log.push(format!("  boots {file}"));
                return Ok(Boot {
                    attempts,
                    from: Some(url),
                    log,
                    took: start.elapsed(),
                });
            }
            Err(refusal) => log.push(format!("  {refusal}: starting over")),
        }
    }
    log.push("  PXE-E16: No offer received.".to_owned());
    Ok(Boot {
        attempts,
        from: None,
        log,
        took: start.elapsed(),
    })
}

/// Why it starts over.
#[derive(Debug)]
enum Refusal {
    NoAnswer(MessageType),
    SecondAnswer(MessageType),
    Strange(&'static str),
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer(question) => {
                write!(formatter, "no answer to a {}", dhcp::name(*question))
            }
            Self::SecondAnswer(question) => {
                write!(formatter, "a second answer to a {}", dhcp::name(*question))
            }
            Self::Strange(what) => write!(formatter, "{what}"),
        }
    }
}

struct Firmware {
    socket: UdpSocket,
    servers: SocketAddrV6,
}

impl Firmware {
    /// One Solicit and, if all goes well, one Request. Hands back where to boot from.
    fn attempt(&self, log: &mut Vec<String>) -> Result<Result<String, Refusal>> {
        let solicit = question(MessageType::Solicit, Vec::new());
        let advertise = match self.exchange(&solicit, MessageType::Advertise, log)? {
            Ok(advertise) => advertise,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let options = advertise.opts();
        let (Some(server), Some(offer)) = (
            options.get(OptionCode::ServerId),
            options.get(OptionCode::IANA),
        ) else {
            return Ok(Err(Refusal::Strange(
                "an offer without a server or an address",
            )));
        };
        let request = question(MessageType::Request, vec![server.clone(), offer.clone()]);
        let reply = match self.exchange(&request, MessageType::Reply, log)? {
            Ok(reply) => reply,
            Err(refusal) => return Ok(Err(refusal)),
        };
        Ok(match reply.opts().get(OptionCode::OptBootfileUrl) {
            Some(DhcpOption::Unknown(url)) => Ok(String::from_utf8_lossy(url.data()).into_owned()),
            _ => Err(Refusal::Strange("a Reply without a boot file")),
        })
    }

    /// Sends a message, and hands back its answer if there is one and no second one.
    fn exchange(
        &self,
        question: &Message,
        expected: MessageType,
        log: &mut Vec<String>,
    ) -> Result<Result<Message, Refusal>> {
        let kind = question.msg_type();
        self.socket
            .send_to(&question.to_vec()?, self.servers)
            .with_context(|| format!("cannot send a {}", dhcp::name(kind)))?;
        let mut answers = Vec::new();
        let mut until = Instant::now() + FIRST;
        while let Some(answer) = self.receive(until)? {
            if answers.is_empty() {
                until = Instant::now() + WINDOW;
            }
            answers.push(answer);
        }
        let [a, b, c] = question.xid();
        let came: Vec<String> = answers.iter().map(shown).collect();
        log.push(format!(
            "  {} {a:02x}{b:02x}{c:02x}: {}",
            dhcp::name(kind),
            came.join(", ")
        ));
        let mut answers = answers.into_iter();
        let Some(answer) = answers.next() else {
            return Ok(Err(Refusal::NoAnswer(kind)));
        };
        // Also one that comes too late: it is to no question that is open.
        if answers.next().is_some() || answer.xid() != question.xid() {
            return Ok(Err(Refusal::SecondAnswer(kind)));
        }
        if answer.msg_type() != expected {
            return Ok(Err(Refusal::Strange("an answer of another type")));
        }
        Ok(Ok(answer))
    }

    /// The next message; none if none has come until then.
    fn receive(&self, until: Instant) -> Result<Option<Message>> {
        let mut bytes = [0; LONGEST];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            match self.socket.recv(&mut bytes) {
                Ok(length) => {
                    let message = Message::from_bytes(&bytes[..length])?;
                    return Ok(Some(message));
                }
                Err(error) if is_time_out(&error) => {}
                Err(error) => return Err(error).context("cannot read the socket"),
            }
        }
    }
}

fn is_time_out(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// A message of the firmware's, with a new transaction-id.
fn question(kind: MessageType, of_the_server: Vec<DhcpOption>) -> Message {
    let mut message = Message::new(kind);
    let options = message.opts_mut();
    options.insert(DhcpOption::ClientId(Duid::uuid(&UUID).as_ref().to_vec()));
    options.insert(DhcpOption::ElapsedTime(0));
    options.insert(DhcpOption::ORO(ORO {
        opts: vec![OptionCode::OptBootfileUrl, OptionCode::OptBootfileParam],
    }));
    options.insert(DhcpOption::ClientArchType(vec![Architecture::X64]));
    if of_the_server.is_empty() {
        options.insert(DhcpOption::IANA(IANA {
            id: 1,
            t1: 0,
            t2: 0,
            opts: Default::default(),
        }));
    }
    for option in of_the_server {
        options.insert(option);
    }
    message
}

/// An answer as the log has it: its type, and the address in it.
fn shown(answer: &Message) -> String {
    let mut words = dhcp::name(answer.msg_type());
    if let Some(DhcpOption::IANA(association)) = answer.opts().get(OptionCode::IANA)
        && let Some(DhcpOption::IAAddr(IAAddr { addr, .. })) =
            association.opts.get(OptionCode::IAAddr)
    {
        words.push_str(&format!(" {addr}"));
    }
    words
}
