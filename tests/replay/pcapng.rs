//! pcapng files, written by the letter of the format (draft-ietf-opsawg-pcapng).

/// Codes of an interface's options.
const IF_TSRESOL: u16 = 9;
const IF_TSOFFSET: u16 = 14;

/// A pcapng file being written.
#[derive(Clone, Debug, Default)]
pub struct File {
    big_endian: bool,
    bytes: Vec<u8>,
}

/// An interface as its block describes it.
#[derive(Clone, Copy, Debug)]
pub struct Interface {
    /// Link type: 1 for Ethernet.
    pub link_type: u16,
    /// The most that is captured of a frame; 0 for all of it.
    pub snap_length: u32,
    /// Option if_tsresol.
    pub resolution: Option<u8>,
    /// Option if_tsoffset, in seconds.
    pub offset: Option<i64>,
}

/// Ethernet, whole frames, times in microseconds.
pub const ETHERNET: Interface = Interface {
    link_type: 1,
    snap_length: 0,
    resolution: None,
    offset: None,
};

impl File {
    /// Starts a section.
    pub fn section(mut self, big_endian: bool) -> Self {
        self.big_endian = big_endian;
        // Byte-order magic, version 1.0 as two numbers of 16 bits, length unknown.
        let version = if big_endian { 0x0001_0000 } else { 0x0000_0001 };
        let body = [0x1a2b_3c4d, version, u32::MAX, u32::MAX]
            .map(|field| self.number(field))
            .concat();
        self.block(0x0a0d_0d0a, &body)
    }

    /// Describes the next interface of the section.
    pub fn interface(self, interface: Interface) -> Self {
        let mut body = self.short(interface.link_type).to_vec();
        body.extend([0, 0]);
        body.extend(self.number(interface.snap_length));
        if let Some(resolution) = interface.resolution {
            body.extend(self.option(IF_TSRESOL, &[resolution]));
        }
        if let Some(offset) = interface.offset {
            let offset = if self.big_endian {
                offset.to_be_bytes()
            } else {
                offset.to_le_bytes()
            };
            body.extend(self.option(IF_TSOFFSET, &offset));
        }
        self.block(1, &body)
    }

    /// An Enhanced Packet Block: a frame of this interface, its time in the interface's units.
    pub fn enhanced_packet(self, interface: u32, units: u64, frame: &[u8]) -> Self {
        let length = frame.len() as u32;
        let mut body = [
            interface,
            (units >> 32) as u32,
            units as u32,
            length,
            length,
        ]
        .map(|field| self.number(field))
        .concat();
        body.extend(padded(frame));
        self.block(6, &body)
    }

    /// A Simple Packet Block.
    pub fn simple_packet(self, original_length: u32, captured: &[u8]) -> Self {
        let mut body = self.number(original_length).to_vec();
        body.extend(padded(captured));
        self.block(3, &body)
    }

    /// Any block.
    pub fn block(mut self, block_type: u32, body: &[u8]) -> Self {
        let length = self.number(12 + body.len() as u32);
        self.bytes.extend(self.number(block_type));
        self.bytes.extend(length);
        self.bytes.extend(body);
        self.bytes.extend(length);
        self
    }

    /// The file.
    pub fn bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn option(&self, code: u16, value: &[u8]) -> Vec<u8> {
        let mut option = self.short(code).to_vec();
        option.extend(self.short(value.len() as u16));
        option.extend(padded(value));
        option
    }

    fn number(&self, number: u32) -> [u8; 4] {
        if self.big_endian {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        }
    }

    fn short(&self, number: u16) -> [u8; 2] {
        if self.big_endian {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        }
    }
}

/// Filled up to a multiple of four bytes.
fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len().next_multiple_of(4), 0);
    padded
}
