//! The classic pcap file: one header, then a record for each frame.

use anyhow::{Result, bail, ensure};
use pcap_parser::{
    Linktype, PcapHeader, parse_pcap_frame, parse_pcap_frame_be, parse_pcap_frame_modified,
    parse_pcap_header,
};

use super::{MAX_FRAME, Precision, ReceivedAt, Record, expect_ethernet, source::Source};

/// Length of the file's header in bytes.
const HEADER: usize = 24;

/// The lower bits of the field with the link type; what stands above them is the length of an FCS.
const LINK_TYPE: i32 = 0x03ff_ffff;

/// Whether a file that starts so is a pcap file: with times in microseconds or nanoseconds, in
/// either byte order, or with the longer records that some Linux kernels of the nineties wrote.
pub fn is_magic(magic: &[u8]) -> bool {
    matches!(
        magic,
        [0xd4, 0xc3, 0xb2, 0xa1]
            | [0xa1, 0xb2, 0xc3, 0xd4]
            | [0x4d, 0x3c, 0xb2, 0xa1]
            | [0xa1, 0xb2, 0x3c, 0x4d]
            | [0x34, 0xcd, 0xb2, 0xa1]
    )
}

pub struct PcapReader(PcapHeader);

impl PcapReader {
    pub fn new(source: &mut Source) -> Result<Self> {
        if !source.fill(HEADER)? {
            bail!("it ends within its header, at byte {}", source.position());
        }
        let Ok((_, header)) = parse_pcap_header(source.block()) else {
            bail!("its header cannot be parsed");
        };
        expect_ethernet(Linktype(header.network.0 & LINK_TYPE))?;
        Ok(Self(header))
    }

    pub fn precision(&self) -> Precision {
        if self.0.is_nanosecond_precision() {
            Precision::Nanoseconds
        } else {
            Precision::Microseconds
        }
    }

    pub fn next(&mut self, source: &mut Source) -> Result<Option<Record>> {
        let record_header = if self.0.is_modified_format() { 24 } else { 16 };
        source.start_block();
        if !source.fill(record_header)? {
            ensure!(
                source.block().is_empty(),
                "the capture ends within the header of its record"
            );
            return Ok(None);
        }
        let length_field = [8, 9, 10, 11].map(|offset| source.block()[offset]);
        let captured = if self.0.is_bigendian() {
            u32::from_be_bytes(length_field)
        } else {
            u32::from_le_bytes(length_field)
        } as usize;
        ensure!(
            captured <= MAX_FRAME,
            "its record is damaged: it is said to have {captured} bytes"
        );
        if !source.fill(record_header + captured)? {
            bail!(
                "the capture ends within it: {} of {captured} bytes are there",
                source.block().len() - record_header
            );
        }
        let parsed = if self.0.is_modified_format() {
            parse_pcap_frame_modified(source.block())
        } else if self.0.is_bigendian() {
            parse_pcap_frame_be(source.block())
        } else {
            parse_pcap_frame(source.block())
        };
        let Ok((_, frame)) = parsed else {
            bail!("its record cannot be parsed");
        };
        let fraction = match self.precision() {
            Precision::Microseconds => u64::from(frame.ts_usec) * 1_000,
            Precision::Nanoseconds => u64::from(frame.ts_usec),
        };
        Ok(Some(Record {
            received_at: Some(ReceivedAt {
                nanoseconds: u64::from(frame.ts_sec) * 1_000_000_000 + fraction,
                precision: self.precision(),
            }),
            original_length: frame.origlen,
            bytes: record_header..record_header + frame.data.len(),
        }))
    }
}
