//! Captures that can be looked at while they run: a packet socket on one end of a cable, with the
//! kernel's own timestamps. It keeps what is DHCPv6.

use std::fs::File;
use std::io::{BufWriter, IoSliceMut, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeVal;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, Endianness, TsResolution};
use testbed::sender;
use testbed::veth::End;

use crate::dhcp::Message;

/// Longest frame that is kept, in bytes: jumbo frames are not DHCPv6.
pub(crate) const LONGEST: usize = 4096;

/// Room for what comes while the thread has no CPU, in bytes.
const BUFFER: usize = 64 << 20;

/// How long nothing must have come for the line to count as quiet.
const QUIET: Duration = Duration::from_millis(20);

/// How often a condition is looked at.
const GLANCE: Duration = Duration::from_millis(2);

/// A running capture. [`finish`](Self::finish) ends it; dropping it forgets what came.
#[derive(Debug)]
pub struct Tap {
    name: String,
    kept: Arc<Mutex<Kept>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    file: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Kept {
    frames: Vec<(Duration, Vec<u8>)>,
    messages: Vec<Message>,
    failure: Option<Errno>,
}

impl Tap {
    /// Starts one, which will be written to `file` in the end.
    ///
    /// # Errors
    ///
    /// Where the interface is gone.
    pub fn new(end: &End, file: Option<PathBuf>) -> Result<Self> {
        let socket = sender::packet_socket(end, libc::ETH_P_ALL as u16)
            .with_context(|| format!("cannot capture on {}", end.name))?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        let quiet = TimeVal::new(0, QUIET.subsec_micros().into());
        setsockopt(&socket, sockopt::ReceiveTimeout, &quiet)?;
        let kept = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let (kept, stop) = (Arc::clone(&kept), Arc::clone(&stop));
            move || receive(&socket, &kept, &stop)
        });
        Ok(Self {
            name: end.name.to_owned(),
            kept,
            stop,
            thread: Some(thread),
            file,
        })
    }

    /// The messages so far.
    pub fn messages(&self) -> Vec<Message> {
        self.with(|kept| kept.messages.clone())
    }

    /// Waits until the messages so far make `done` true.
    ///
    /// # Errors
    ///
    /// With what came, where they have not done so in time.
    pub fn until(
        &self,
        what: &str,
        patience: Duration,
        done: impl Fn(&[Message]) -> bool,
    ) -> Result<()> {
        let start = Instant::now();
        while !self.with(|kept| done(&kept.messages)) {
            if start.elapsed() > patience {
                let came: Vec<String> = self.messages().iter().map(Message::name).collect();
                bail!(
                    "no {what} on {} in {patience:?}, but: {}",
                    self.name,
                    came.join(" ")
                );
            }
            thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// Ends the capture when the line is quiet, and hands over its messages.
    ///
    /// # Errors
    ///
    /// Where the socket failed, or the file cannot be written.
    pub fn finish(mut self) -> Result<Vec<Message>> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread
                .join()
                .unwrap_or_else(|panic| panic::resume_unwind(panic));
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = kept.failure {
            return Err(error).with_context(|| format!("the capture on {}", self.name));
        }
        if let Some(file) = &self.file {
            write(file, &kept.frames)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(std::mem::take(&mut kept.messages))
    }

    fn with<T>(&self, f: impl FnOnce(&Kept) -> T) -> T {
        f(&self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write(file: &Path, frames: &[(Duration, Vec<u8>)]) -> Result<()> {
    let header = PcapHeader {
        datalink: DataLink::ETHERNET,
        ts_resolution: TsResolution::NanoSecond,
        endianness: Endianness::native(),
        ..PcapHeader::default()
    };
    let mut writer = PcapWriter::with_header(BufWriter::new(File::create(file)?), header)?;
    for (time, frame) in frames {
        let length = u32::try_from(frame.len())?;
        writer.write_packet(&PcapPacket::new(*time, length, frame))?;
    }
    writer.into_writer().flush()?;
    Ok(())
}

fn receive(socket: &OwnedFd, kept: &Mutex<Kept>, stop: &AtomicBool) {
    let mut bytes = vec![0; LONGEST];
    let mut control = nix::cmsg_space!(libc::timespec);
    loop {
        // Before the wait: whoever stops us wants what is already on its way.
        let last = stop.load(Ordering::Relaxed);
        match receive_one(socket, &mut bytes, &mut control) {
            Ok((time, outgoing, length)) => {
                let frame = &bytes[..length];
                if let Some(message) = Message::read(time, outgoing, frame) {
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.frames.push((time, frame.to_vec()));
                    kept.messages.push(message);
                }
            }
            Err(Errno::EAGAIN) if last => return,
            // ENETDOWN: the interface is down, or gone; it may come back.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => {}
            Err(error) => {
                kept.lock().unwrap_or_else(PoisonError::into_inner).failure = Some(error);
                return;
            }
        }
    }
}

/// Waits for a frame, and hands back when it came, whether the interface sent it, and its length.
pub(crate) fn receive_one(
    socket: &OwnedFd,
    bytes: &mut [u8],
    control: &mut [u8],
) -> Result<(Duration, bool, usize), Errno> {
    let mut slices = [IoSliceMut::new(bytes)];
    let message = recvmsg::<LinkAddr>(
        socket.as_raw_fd(),
        &mut slices,
        Some(control),
        MsgFlags::empty(),
    )?;
    let time = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(stamp.into()),
        _ => None,
    });
    let outgoing = message
        .address
        .is_some_and(|address| address.pkttype() == libc::PACKET_OUTGOING);
    Ok((time.unwrap_or_default(), outgoing, message.bytes))
}
