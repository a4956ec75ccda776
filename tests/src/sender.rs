//! Sends whole frames, each at its time.

use std::hint;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socket};

use crate::veth::End;

/// A thread that sleeps may wake so much too late; the rest of the time it spins.
const SLACK: Duration = Duration::from_micros(500);

/// A frame, and when it is to go out.
#[derive(Clone, Debug)]
pub struct Timed {
    /// Time since the schedule's start.
    pub at: Duration,
    /// The frame from its destination MAC address on.
    pub frame: Vec<u8>,
}

/// A packet socket on one end of a cable. What it sends, the other end receives as from the wire:
/// checksums are what the frame says.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
}

impl Sender {
    /// Opens one.
    ///
    /// # Errors
    ///
    /// Without CAP_NET_RAW, and where the interface is gone.
    pub fn new(end: &End) -> Result<Self> {
        Ok(Self {
            socket: packet_socket(end, 0)?,
        })
    }

    /// Sends a frame now.
    ///
    /// # Errors
    ///
    /// Where the interface is down, or the frame longer than its MTU allows.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = send(self.socket.as_raw_fd(), frame, MsgFlags::empty())
            .with_context(|| format!("cannot send a frame of {} bytes", frame.len()))?;
        if sent != frame.len() {
            bail!("{sent} of a frame's {} bytes were sent", frame.len());
        }
        Ok(())
    }

    /// Sends each frame at its time from `start` on, in the order given, to the microsecond unless
    /// the machine is busy with something else. Hands back when each one was sent.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    pub fn play(&self, start: Instant, schedule: &[Timed]) -> Result<Vec<Duration>> {
        let mut sent = Vec::with_capacity(schedule.len());
        for Timed { at, frame } in schedule {
            wait_until(start + *at);
            sent.push(start.elapsed());
            self.send(frame)?;
        }
        Ok(sent)
    }
}

fn wait_until(time: Instant) {
    let left = time.saturating_duration_since(Instant::now());
    if left > SLACK {
        thread::sleep(left - SLACK);
    }
    while Instant::now() < time {
        hint::spin_loop();
    }
}

/// A packet socket that sends on one end of a cable, and receives there what is of this protocol
/// (linux/if_ether.h); nothing if it is 0.
///
/// # Errors
///
/// Without CAP_NET_RAW, and where the interface is gone.
pub fn packet_socket(end: &End, protocol: u16) -> Result<OwnedFd> {
    let index = i32::try_from(end.index()?)?;
    end.namespace
        .inside(|| bound_packet_socket(index, protocol))?
        .with_context(|| format!("a packet socket on {}", end.name))
}

fn bound_packet_socket(index: i32, protocol: u16) -> Result<OwnedFd> {
    // It receives from the moment that it is bound.
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: all zeros are a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = index;
    // SAFETY: the address is of the family's type, and its length is that type's.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(socket)
}
