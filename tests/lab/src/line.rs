//! A line to a machine that is further away: what goes in at one end comes out at the other so much
//! later. The kernel's own (netem) is not everywhere.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;
use testbed::sender::{self, Sender};
use testbed::veth::End;

use crate::tap;

/// How long a thread waits before it looks whether it is still wanted.
const WAIT: TimeVal = TimeVal::new(0, 20_000);

/// A line between two interfaces. Dropping it cuts it.
#[derive(Debug)]
pub struct Line {
    stop: Arc<AtomicBool>,
}

impl Line {
    /// Joins two interfaces of the same namespace, so that every frame takes `delay` from one to
    /// the other.
    ///
    /// # Errors
    ///
    /// Where an interface is gone.
    pub fn join(one: &End, other: &End, delay: Duration) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for (from, to) in [(one, other), (other, one)] {
            let input = input(from).with_context(|| format!("a line from {}", from.name))?;
            let output = Sender::new(to).with_context(|| format!("a line to {}", to.name))?;
            let stop = Arc::clone(&stop);
            thread::spawn(move || carry(&input, &output, delay, &stop));
        }
        Ok(Self { stop })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn input(from: &End) -> Result<OwnedFd> {
    let socket = sender::packet_socket(from, libc::ETH_P_ALL as u16)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &WAIT)?;
    Ok(socket)
}

fn carry(input: &OwnedFd, output: &Sender, delay: Duration, stop: &AtomicBool) {
    let mut bytes = vec![0; tap::LONGEST];
    let mut control = nix::cmsg_space!(libc::timespec);
    while !stop.load(Ordering::Relaxed) {
        match tap::receive_one(input, &mut bytes, &mut control) {
            // What the other direction has brought.
            Ok((_, true, _)) => {}
            Ok((time, false, length)) => {
                let due = SystemTime::UNIX_EPOCH + time + delay;
                thread::sleep(due.duration_since(SystemTime::now()).unwrap_or_default());
                // Where the cable is pulled, the frame is lost.
                let _ = output.send(&bytes[..length]);
            }
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => {}
            Err(_) => return,
        }
    }
}
