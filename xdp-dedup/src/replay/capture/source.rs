//! The bytes of a capture, block by block.

use std::{
    fs::File,
    io::{self, BufReader, Read as _},
};

/// What is read from the file at once, in bytes.
const BUFFER: usize = 256 * 1024;

/// Bytes that tell what kind of file it is.
pub const MAGIC: usize = 4;

/// A file or pipe, of which one block at a time is in memory.
pub struct Source {
    input: BufReader<File>,
    position: u64,
    block: Vec<u8>,
}

impl Source {
    pub fn new(file: File) -> Self {
        Self {
            input: BufReader::with_capacity(BUFFER, file),
            position: 0,
            block: Vec::new(),
        }
    }

    /// Forgets the last block; the next one starts where it ended.
    pub fn start_block(&mut self) {
        self.block.clear();
    }

    /// Reads on until the block is `length` bytes long; `false` if the file ends before. Takes no more
    /// memory than there are bytes, whatever length a damaged file announces.
    pub fn fill(&mut self, length: usize) -> io::Result<bool> {
        let missing = length.saturating_sub(self.block.len());
        let read = (&mut self.input)
            .take(missing as u64)
            .read_to_end(&mut self.block)?;
        self.position += read as u64;
        Ok(read == missing)
    }

    /// What has been read of the block.
    pub fn block(&self) -> &[u8] {
        &self.block
    }

    /// Where the block starts, in bytes from the start of the file.
    pub fn block_start(&self) -> u64 {
        self.position - self.block.len() as u64
    }

    /// Bytes read from the file so far.
    pub fn position(&self) -> u64 {
        self.position
    }
}

/// Why a file with this start is refused, and what to do.
pub fn not_a_capture(magic: &[u8]) -> String {
    let unpacker = match magic {
        [0x1f, 0x8b, ..] => "zcat",
        [0x28, 0xb5, 0x2f, 0xfd] => "zstdcat",
        [0xfd, b'7', b'z', b'X'] => "xzcat",
        [0x04, 0x22, 0x4d, 0x18] => "lz4cat",
        _ => {
            return format!("it is neither pcap nor pcapng: it starts with the bytes {magic:02x?}");
        }
    };
    format!("it is compressed: unpack it, as in `{unpacker} FILE | xdp-dedup replay -`")
}
