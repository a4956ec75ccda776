//! Traffic between machines that is no DHCPv6, and that notices when anything of it is lost: on
//! plain sockets in their namespaces.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::panic;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;

use crate::machine::Machine;

/// What has not come after so long is lost.
const LOST: Duration = Duration::from_secs(5);

/// Bytes that are sent at a time over TCP.
const BLOCK: usize = 64 << 10;

/// A port that sends datagrams back, and who sends them to it.
#[derive(Debug)]
pub struct Echo {
    server: UdpSocket,
    client: UdpSocket,
}

impl Echo {
    /// Opens both.
    ///
    /// # Errors
    ///
    /// Where the address is not the machine's, or the port taken.
    pub fn new(from: &Machine, to: &Machine, address: SocketAddr) -> Result<Self> {
        let server = to
            .namespace
            .inside(|| UdpSocket::bind(address))?
            .with_context(|| format!("cannot listen on {address}"))?;
        // Longer than the client waits.
        server.set_read_timeout(Some(LOST * 2))?;
        Ok(Self {
            server,
            client: client(from, address)?,
        })
    }

    /// Sends `count` datagrams of `length` bytes, each when the one before has come back, or is
    /// lost; each second one is a copy of the one before. Hands back how many came back as they were.
    ///
    /// # Errors
    ///
    /// Where a datagram cannot be sent.
    pub fn round(&self, length: usize, count: usize) -> Result<usize> {
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut datagram = vec![0; length];
                for _ in 0..count {
                    let Ok((length, from)) = self.server.recv_from(&mut datagram) else {
                        return;
                    };
                    let _ = self.server.send_to(&datagram[..length], from);
                }
            });
            let mut echoed = 0;
            for number in 0..count {
                let sent = pattern(number / 2, length);
                let mut back = vec![0; length + 1];
                if exchange(&self.client, &sent, &mut back)?.is_some_and(|back| back == sent) {
                    echoed += 1;
                }
            }
            Ok(echoed)
        })
    }
}

/// Asks a name server `count` questions for addresses, each when the one before is answered, or
/// lost. Hands back how many were answered with `answer`.
///
/// # Errors
///
/// Where nothing can be sent to the name server.
pub fn names_resolved(
    from: &Machine,
    name_server: IpAddr,
    domain: &str,
    answer: Ipv6Addr,
    count: u16,
) -> Result<usize> {
    const PORT: u16 = 53;
    let client = client(from, SocketAddr::new(name_server, PORT))?;
    let mut resolved = 0;
    for number in 0..count {
        let mut answered = [0; 512];
        let answered = exchange(&client, &question(number, domain), &mut answered)?;
        // The number comes back first, the address is last.
        if answered.is_some_and(|answered| {
            answered.starts_with(&number.to_be_bytes()) && answered.ends_with(&answer.octets())
        }) {
            resolved += 1;
        }
    }
    Ok(resolved)
}

/// RFC 1035: asks for the AAAA record of a name in `domain`.
fn question(number: u16, domain: &str) -> Vec<u8> {
    const RECURSION_DESIRED: [u8; 2] = [1, 0];
    const ONE_QUESTION: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];
    const AAAA_IN: [u8; 4] = [0, 28, 0, 1];
    let mut question = number.to_be_bytes().to_vec();
    question.extend(RECURSION_DESIRED);
    question.extend(ONE_QUESTION);
    for label in [&format!("host-{number}"), domain] {
        question.push(label.len() as u8);
        question.extend(label.bytes());
    }
    question.push(0);
    question.extend(AAAA_IN);
    question
}

/// Sends so many blocks of 64 KiB over TCP. Hands back how many came as they were.
///
/// What is lost on the way is sent again, and nothing else: all is done on one CPU, so that segments
/// do not overtake one another, with less under way than any queue takes, and without probes.
///
/// # Errors
///
/// Where the address is not the machine's, or the connection breaks or stands still.
pub fn blocks_transferred(
    from: &Machine,
    to: &Machine,
    address: IpAddr,
    count: usize,
) -> Result<usize> {
    from.namespace.sysctl("net/ipv4/tcp_early_retrans", "0")?;
    let listener = to
        .namespace
        .inside(|| TcpListener::bind((address, 0)))?
        .with_context(|| format!("{} cannot listen on {address}", to.name))?;
    let address = listener.local_addr()?;
    setsockopt(&listener, sockopt::RcvBuf, &(2 * BLOCK))?;
    let mut sender = from
        .namespace
        .inside(|| TcpStream::connect_timeout(&address, LOST))?
        .with_context(|| format!("{} cannot connect to {address}", from.name))?;
    let (mut receiver, _) = listener.accept()?;
    sender.set_write_timeout(Some(LOST))?;
    receiver.set_read_timeout(Some(LOST))?;
    let cpu = sched_getcpu()?;
    thread::scope(|scope| {
        let sending = scope.spawn(move || -> Result<()> {
            stay_on(cpu)?;
            for number in 0..count {
                sender.write_all(&pattern(number, BLOCK))?;
            }
            Ok(())
        });
        let receiving = scope.spawn(move || -> Result<usize> {
            stay_on(cpu)?;
            let mut whole = 0;
            let mut block = vec![0; BLOCK];
            for number in 0..count {
                receiver
                    .read_exact(&mut block)
                    .with_context(|| format!("block {number} of {count} to {address}"))?;
                whole += usize::from(block == pattern(number, BLOCK));
            }
            Ok(whole)
        });
        let whole = join(receiving)?;
        join(sending)?;
        Ok(whole)
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// Keeps the calling thread on one CPU, and with it what the kernel does for it.
fn stay_on(cpu: usize) -> Result<()> {
    const THIS_THREAD: Pid = Pid::from_raw(0);
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    Ok(sched_setaffinity(THIS_THREAD, &cpus)?)
}

/// TCP segments that a machine has sent in all, and those of them that it has sent again.
///
/// # Errors
///
/// Where its kernel does not say.
pub fn segments_sent(machine: &Machine) -> Result<[u64; 2]> {
    // RFC 4022; two lines, names and values.
    let shown = fs::read_to_string(format!("/proc/{}/net/snmp", machine.pid()))?;
    let mut lines = shown.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let names = lines.next().unwrap_or_default().split(' ');
    let values = lines.next().unwrap_or_default().split(' ');
    let counters: BTreeMap<_, _> = names.zip(values).collect();
    let count = |name| {
        let value = counters.get(name);
        let value = value.with_context(|| format!("the kernel does not count {name}"))?;
        anyhow::Ok(value.parse()?)
    };
    Ok([count("OutSegs")?, count("RetransSegs")?])
}

/// Bytes that tell datagrams and blocks apart.
fn pattern(number: usize, length: usize) -> Vec<u8> {
    let word = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = word.to_be_bytes().repeat(length.div_ceil(8));
    bytes.truncate(length);
    bytes
}

/// Sends a datagram, and hands back the next that comes, none if it is lost.
fn exchange<'a>(socket: &UdpSocket, sent: &[u8], back: &'a mut [u8]) -> Result<Option<&'a [u8]>> {
    socket.send(sent)?;
    match socket.recv(back) {
        Ok(length) => Ok(Some(&back[..length])),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn client(machine: &Machine, server: SocketAddr) -> Result<UdpSocket> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => ([0; 4], 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = machine.namespace.inside(|| -> io::Result<_> {
        let socket = UdpSocket::bind(any)?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(LOST))?;
        Ok(socket)
    })?;
    socket.with_context(|| format!("{} cannot reach {server}", machine.name))
}
