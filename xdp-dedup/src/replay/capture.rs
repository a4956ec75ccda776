//! Reading a capture frame by frame: pcap and pcapng, in both byte orders.
//!
//! Memory is bounded by the longest block, however long the capture is. The blocks are parsed by
//! pcap-parser; they are fetched here, since its own readers hide the cause of a failed read and
//! stumble over a pipe that gives little at a time.

mod pcap;
mod pcapng;
mod source;

use std::{fs::File, ops::Range};

use anyhow::{Context as _, Result, bail};
use pcap_parser::Linktype;

use self::{pcap::PcapReader, pcapng::PcapngReader, source::Source};

/// The longest frame that a capture holds, in bytes: libpcap's limit too. A longer one is damage.
pub const MAX_FRAME: usize = 256 * 1024;

/// How finely a capture tells the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Six digits of a second.
    Microseconds,
    /// Nine digits of a second.
    Nanoseconds,
}

/// When a frame was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedAt {
    /// Nanoseconds since 1970.
    pub nanoseconds: u64,
    /// How many of its digits the capture tells.
    pub precision: Precision,
}

/// One frame of a capture.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its place in the capture, from 1.
    pub number: u64,
    /// When it was received; `None` in a Simple Packet Block, which does not say.
    pub received_at: Option<ReceivedAt>,
    /// As much of it as was captured, from the Ethernet header on.
    pub bytes: &'a [u8],
    /// Its whole length in bytes.
    pub original_length: u32,
}

impl Frame<'_> {
    /// Whether more of it came than was captured.
    pub fn is_cut_short(&self) -> bool {
        self.bytes.len() < self.original_length as usize
    }
}

/// A capture, read from its first frame to its last.
pub struct Capture {
    source: Source,
    reader: Reader,
    frames: u64,
}

enum Reader {
    Pcap(PcapReader),
    Pcapng(PcapngReader),
}

/// Where a reader found a frame in the source's block.
struct Record {
    received_at: Option<ReceivedAt>,
    original_length: u32,
    bytes: Range<usize>,
}

impl Capture {
    /// Starts to read the capture `file`, which may be a pipe.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, is no capture, or is not one of an Ethernet link.
    pub fn new(file: File) -> Result<Self> {
        let mut source = Source::new(file);
        source.start_block();
        source.fill(source::MAGIC)?;
        let reader = match source.block() {
            [] => bail!("it is empty"),
            magic if pcapng::is_magic(magic) => Reader::Pcapng(PcapngReader::new(&mut source)?),
            magic if pcap::is_magic(magic) => Reader::Pcap(PcapReader::new(&mut source)?),
            magic => bail!(source::not_a_capture(magic)),
        };
        Ok(Self {
            source,
            reader,
            frames: 0,
        })
    }

    /// The next frame; `None` behind the last.
    ///
    /// # Errors
    ///
    /// Where the capture is damaged, ends in the middle of a frame, or cannot be read further; the
    /// error names the place.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>> {
        let number = self.frames + 1;
        let record = match &mut self.reader {
            Reader::Pcap(reader) => reader.next(&mut self.source),
            Reader::Pcapng(reader) => reader.next(&mut self.source),
        };
        let record = record
            .with_context(|| format!("frame {number}, at byte {}", self.source.block_start()))?;
        Ok(record.map(|record| {
            self.frames = number;
            Frame {
                number,
                received_at: record.received_at,
                bytes: &self.source.block()[record.bytes],
                original_length: record.original_length,
            }
        }))
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.source.position()
    }

    /// How finely it tells all its times; `None` if every interface has its own way (pcapng).
    pub fn precision(&self) -> Option<Precision> {
        match &self.reader {
            Reader::Pcap(reader) => Some(reader.precision()),
            Reader::Pcapng(_) => None,
        }
    }
}

/// Refuses every link but Ethernet, by its name at <https://www.tcpdump.org/linktypes.html>.
fn expect_ethernet(link_type: Linktype) -> Result<()> {
    let name = match link_type.0 {
        1 => return Ok(()),
        0 => "NULL",
        6 => "IEEE802_5",
        9 => "PPP",
        10 => "FDDI",
        // LINKTYPE_RAW, and DLT_RAW as some wrote it to files.
        12 | 14 | 101 => "RAW",
        105 => "IEEE802_11",
        108 => "LOOP",
        113 => "LINUX_SLL",
        127 => "IEEE802_11_RADIOTAP",
        192 => "PPI",
        228 => "IPV4",
        229 => "IPV6",
        239 => "NFLOG",
        252 => "WIRESHARK_UPPER_PDU",
        253 => "NETLINK",
        276 => "LINUX_SLL2",
        other => bail!("its link type is {other}, not Ethernet: capture on an Ethernet interface"),
    };
    let advice = if name.starts_with("LINUX_SLL") {
        "capture on the interface itself instead of `any`"
    } else {
        "capture on an Ethernet interface"
    };
    bail!("its link type is {name}, not Ethernet: {advice}")
}
