//! pcap files, written and read by the letter of the format, to hold the command's against.

use anyhow::{Context as _, Result, ensure};

/// A frame in a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Its length on the wire.
    pub original_length: u32,
    /// What was captured of it.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// A frame captured whole.
    pub fn new(time: u64, bytes: Vec<u8>) -> Self {
        Self {
            time,
            original_length: bytes.len() as u32,
            bytes,
        }
    }
}

/// How a pcap file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Its byte order.
    pub big_endian: bool,
    /// Whether times are in nanoseconds, not microseconds.
    pub nanoseconds: bool,
    /// What its header says of the link.
    pub link_type: u32,
}

/// What tcpdump writes on most machines.
pub const USUAL: Style = Style {
    big_endian: false,
    nanoseconds: false,
    link_type: 1,
};

impl Style {
    fn unit(self) -> u64 {
        if self.nanoseconds { 1 } else { 1_000 }
    }

    fn number(self, number: u32) -> [u8; 4] {
        if self.big_endian {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        }
    }

    /// The header alone.
    pub fn header(self) -> Vec<u8> {
        let magic = if self.nanoseconds {
            0xa1b2_3c4d
        } else {
            0xa1b2_c3d4
        };
        // Version 2.4: two numbers of 16 bits.
        let version = if self.big_endian {
            0x0002_0004
        } else {
            0x0004_0002
        };
        [magic, version, 0, 0, 65535, self.link_type]
            .map(|field| self.number(field))
            .concat()
    }

    /// One record.
    pub fn record(self, frame: &Frame) -> Vec<u8> {
        let seconds = (frame.time / 1_000_000_000) as u32;
        let fraction = (frame.time % 1_000_000_000 / self.unit()) as u32;
        let mut record = [
            seconds,
            fraction,
            frame.bytes.len() as u32,
            frame.original_length,
        ]
        .map(|field| self.number(field))
        .concat();
        record.extend(&frame.bytes);
        record
    }

    /// A whole file.
    pub fn file(self, frames: &[Frame]) -> Vec<u8> {
        let mut file = self.header();
        for frame in frames {
            file.extend(self.record(frame));
        }
        file
    }
}

/// Reads a little-endian pcap file of Ethernet frames.
pub fn read(file: &[u8]) -> Result<(Style, Vec<Frame>)> {
    let number = |offset: usize| -> Result<u32> {
        let bytes = file.get(offset..offset + 4).context("cut short")?;
        Ok(u32::from_le_bytes(bytes.try_into()?))
    };
    let magic = number(0)?;
    ensure!(
        [0xa1b2_3c4d, 0xa1b2_c3d4].contains(&magic),
        "magic {magic:x}"
    );
    ensure!(number(20)? == 1, "not Ethernet");
    let style = Style {
        nanoseconds: magic == 0xa1b2_3c4d,
        ..USUAL
    };
    let mut frames = Vec::new();
    let mut offset = 24;
    while offset < file.len() {
        let length = number(offset + 8)? as usize;
        let bytes = file.get(offset + 16..offset + 16 + length);
        frames.push(Frame {
            time: u64::from(number(offset)?) * 1_000_000_000
                + u64::from(number(offset + 4)?) * style.unit(),
            original_length: number(offset + 12)?,
            bytes: bytes.context("cut short")?.to_vec(),
        });
        offset += 16 + length;
    }
    Ok((style, frames))
}
