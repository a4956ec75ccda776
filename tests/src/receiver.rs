//! Receives on ordinary sockets, as a server does, and keeps all that came.

use std::io::IoSliceMut;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    self, AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType,
    SockaddrIn6, recvmsg, setsockopt, sockopt,
};
use nix::sys::time::TimeVal;

use crate::namespace::Namespace;

/// Room for what comes while the thread does not get to run, in bytes.
const BUFFER: usize = 16 << 20;

/// When nothing has come for so long, nothing more is on its way.
const QUIET: TimeVal = TimeVal::new(0, 100_000);

/// Longest message that is kept whole, in bytes.
const LONGEST: usize = 65536;

/// A datagram or an ICMPv6 message, as a socket handed it over.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When the kernel had it, since 1970.
    pub time: Duration,
    /// Who sent it; the port is 0 for ICMPv6, the address mapped for IPv4.
    pub source: SocketAddrV6,
    /// The number of the interface that it came in by.
    pub interface: u32,
    /// What it carried; ICMPv6 messages from their type on.
    pub payload: Vec<u8>,
}

/// All that came to a socket.
#[derive(Clone, Debug)]
pub struct Received {
    /// In the order of arrival.
    pub arrivals: Vec<Arrival>,
    /// What the socket itself discarded: its buffer was full, or the checksum wrong.
    pub discarded: u32,
}

/// A socket in a namespace, and a thread that reads it.
#[derive(Debug)]
pub struct Receiver {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Result<Received>>>,
}

impl Receiver {
    /// Listens on a UDP port, on all addresses of IPv6 and IPv4.
    ///
    /// # Errors
    ///
    /// Where the port is taken, or below 1024 and this process may not.
    pub fn udp(namespace: &Namespace, port: u16) -> Result<Self> {
        let socket = namespace
            .inside(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)))?
            .with_context(|| format!("cannot listen on UDP port {port}"))?;
        Self::start(socket.into())
    }

    /// Listens to all ICMPv6 messages that the stack lets pass.
    ///
    /// # Errors
    ///
    /// Without CAP_NET_RAW.
    pub fn icmpv6(namespace: &Namespace) -> Result<Self> {
        let socket = namespace
            .inside(|| {
                socket::socket(
                    AddressFamily::Inet6,
                    SockType::Raw,
                    SockFlag::SOCK_CLOEXEC,
                    SockProtocol::IcmpV6,
                )
            })?
            .context("cannot listen to ICMPv6")?;
        Self::start(socket)
    }

    fn start(socket: OwnedFd) -> Result<Self> {
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &QUIET)?;
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicUsize::new(0));
        let thread = thread::spawn({
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            move || receive(&socket, &stop, &count)
        });
        Ok(Self {
            stop,
            count,
            thread: Some(thread),
        })
    }

    /// How many have come so far.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until nothing more comes to any of them, for a tenth of a second, and hands everything
    /// over.
    ///
    /// # Errors
    ///
    /// As for [`finish`](Self::finish).
    pub fn finish_all(receivers: Vec<Self>) -> Result<Vec<Received>> {
        for receiver in &receivers {
            receiver.stop.store(true, Ordering::Relaxed);
        }
        receivers.into_iter().map(Self::finish).collect()
    }

    /// Waits until nothing more comes, for a tenth of a second, and hands everything over.
    ///
    /// # Errors
    ///
    /// Where reading the socket failed.
    pub fn finish(mut self) -> Result<Received> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("already finished")?;
        thread
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    }
}

/// Without [`finish`](Receiver::finish) the thread ends too, and lets go of the namespace.
impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn receive(socket: &OwnedFd, stop: &AtomicBool, count: &AtomicUsize) -> Result<Received> {
    let mut arrivals = Vec::new();
    let mut bytes = vec![0; LONGEST];
    let mut control = nix::cmsg_space!(libc::timespec, libc::in6_pktinfo);
    loop {
        // Before the wait: whoever stops us wants what is already on its way.
        let last = stop.load(Ordering::Relaxed);
        match receive_one(socket, &mut bytes, &mut control) {
            Ok(arrival) => {
                arrivals.push(arrival);
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(Errno::EAGAIN) if last => break,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(error).context("cannot read the socket"),
        }
    }
    Ok(Received {
        arrivals,
        discarded: discarded(socket)?,
    })
}

fn receive_one(socket: &OwnedFd, bytes: &mut [u8], control: &mut [u8]) -> Result<Arrival, Errno> {
    let mut slices = [IoSliceMut::new(bytes)];
    let message = recvmsg::<SockaddrIn6>(
        socket.as_raw_fd(),
        &mut slices,
        Some(control),
        MsgFlags::empty(),
    )?;
    let (mut time, mut interface) = (Duration::ZERO, 0);
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::ScmTimestampns(stamp) => time = stamp.into(),
            ControlMessageOwned::Ipv6PacketInfo(info) => interface = info.ipi6_ifindex,
            _ => {}
        }
    }
    let source = message.address.ok_or(Errno::EDESTADDRREQ)?.into();
    let length = message.bytes;
    Ok(Arrival {
        time,
        source,
        interface,
        payload: bytes[..length].to_vec(),
    })
}

/// How many messages the socket itself lost (`SO_MEMINFO`, linux/sock_diag.h).
fn discarded(socket: &OwnedFd) -> Result<u32> {
    const DROPS: usize = 8;
    let mut values = [0_u32; DROPS + 1];
    let mut length = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of the array.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    Errno::result(result).context("cannot ask the socket what it discarded")?;
    Ok(values[DROPS])
}
