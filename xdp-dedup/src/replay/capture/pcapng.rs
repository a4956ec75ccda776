//! The pcapng file: sections of interfaces and their frames (draft-ietf-opsawg-pcapng).

use anyhow::{Context as _, Result, bail, ensure};
use pcap_parser::{
    InterfaceDescriptionBlock, OptionCode, parse_enhancedpacketblock_be,
    parse_enhancedpacketblock_le, parse_interfacedescriptionblock_be,
    parse_interfacedescriptionblock_le, parse_simplepacketblock_be, parse_simplepacketblock_le,
    traits::PcapNGPacketBlock as _,
};

use super::{MAX_FRAME, Precision, ReceivedAt, Record, expect_ethernet, source::Source};

/// Types of blocks.
const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// Type, length, and the byte-order magic if it is a Section Header Block; no block is shorter.
const BLOCK_START: usize = 12;
/// The longest block, in bytes: libpcap's limit too. A longer one is damage.
const MAX_BLOCK: usize = 16 * 1024 * 1024;
/// Where a frame starts in an Enhanced Packet Block.
const ENHANCED_PACKET_DATA: usize = 28;
/// Where a frame starts in a Simple Packet Block.
const SIMPLE_PACKET_DATA: usize = 12;

const NANOSECONDS: u64 = 1_000_000_000;

/// Whether a file that starts so is a pcapng file.
pub fn is_magic(magic: &[u8]) -> bool {
    magic == SECTION_HEADER.to_be_bytes()
}

/// What is in force of the section being read.
#[derive(Default)]
pub struct PcapngReader {
    big_endian: bool,
    interfaces: Vec<Interface>,
}

impl PcapngReader {
    /// Reads up to the first interface, which says of what link the capture is.
    pub fn new(source: &mut Source) -> Result<Self> {
        let mut reader = Self::default();
        while reader.interfaces.is_empty() {
            let Some(block_type) = reader
                .next_block(source)
                .with_context(|| format!("its block at byte {}", source.block_start()))?
            else {
                break;
            };
            if matches!(block_type, SIMPLE_PACKET | ENHANCED_PACKET) {
                bail!("it has a frame before its first interface");
            }
            // The block that was begun to tell the format is over now.
            source.start_block();
        }
        Ok(reader)
    }

    pub fn next(&mut self, source: &mut Source) -> Result<Option<Record>> {
        loop {
            source.start_block();
            match self.next_block(source)? {
                None => return Ok(None),
                Some(ENHANCED_PACKET) => return self.enhanced_packet(source.block()).map(Some),
                Some(SIMPLE_PACKET) => return self.simple_packet(source.block()).map(Some),
                Some(OBSOLETE_PACKET) => bail!(
                    "it is in an obsolete Packet Block: rewrite the capture, as in `editcap IN OUT`"
                ),
                Some(_) => {}
            }
        }
    }

    /// Reads a block whole, takes note of it if it is a section's header or an interface, and says its
    /// type.
    fn next_block(&mut self, source: &mut Source) -> Result<Option<u32>> {
        if !source.fill(BLOCK_START)? {
            ensure!(
                source.block().is_empty(),
                "the capture ends within a block's header"
            );
            return Ok(None);
        }
        let is_section = is_magic(&source.block()[..4]);
        if is_section {
            self.big_endian = match source.block()[8..BLOCK_START] {
                [0x1a, 0x2b, 0x3c, 0x4d] => true,
                [0x4d, 0x3c, 0x2b, 0x1a] => false,
                _ => bail!("a section's header is damaged: it tells no byte order"),
            };
            self.interfaces.clear();
        }
        let block_type = self.number(source.block(), 0);
        let length = self.number(source.block(), 4) as usize;
        ensure!(
            (BLOCK_START..=MAX_BLOCK).contains(&length),
            "a block is damaged: it is said to have {length} bytes"
        );
        if !source.fill(length)? {
            bail!(
                "the capture ends within a block: {} of {length} bytes are there",
                source.block().len()
            );
        }
        // Every block ends with its length again.
        ensure!(
            self.number(source.block(), length - 4) as usize == length,
            "a block is damaged: its two lengths differ"
        );
        if block_type == INTERFACE_DESCRIPTION {
            let interface = self.interface_description(source.block())?;
            self.interfaces.push(interface);
        }
        Ok(Some(block_type))
    }

    fn interface_description(&self, block: &[u8]) -> Result<Interface> {
        let parse = if self.big_endian {
            parse_interfacedescriptionblock_be
        } else {
            parse_interfacedescriptionblock_le
        };
        let Ok((_, description)) = parse(block) else {
            bail!("an Interface Description Block is damaged");
        };
        expect_ethernet(description.linktype)?;
        Ok(Interface {
            snap_length: description.snaplen,
            clock: InterfaceClock {
                units_per_second: units_per_second(description.if_tsresol)
                    .context("an interface's if_tsresol is out of range")?,
                offset: self.time_offset(&description),
            },
        })
    }

    /// Option if_tsoffset in seconds; pcap-parser reads it as little-endian in every section.
    fn time_offset(&self, description: &InterfaceDescriptionBlock<'_>) -> i64 {
        description
            .options
            .iter()
            .find(|option| option.code == OptionCode::IfTsoffset)
            .and_then(|option| option.as_bytes().ok()?.try_into().ok())
            .map_or(0, |bytes| {
                if self.big_endian {
                    i64::from_be_bytes(bytes)
                } else {
                    i64::from_le_bytes(bytes)
                }
            })
    }

    fn enhanced_packet(&self, block: &[u8]) -> Result<Record> {
        let parse = if self.big_endian {
            parse_enhancedpacketblock_be
        } else {
            parse_enhancedpacketblock_le
        };
        let Ok((_, packet)) = parse(block) else {
            bail!("its Enhanced Packet Block is damaged");
        };
        let Some(interface) = self.interfaces.get(packet.if_id as usize) else {
            bail!(
                "it is said to be from interface {}, which the capture does not describe",
                packet.if_id
            );
        };
        let captured = packet.packet_data().len();
        ensure!(
            captured <= MAX_FRAME,
            "its block is damaged: it is said to have {captured} bytes"
        );
        let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
        Ok(Record {
            received_at: Some(interface.clock.time(units)?),
            original_length: packet.origlen,
            bytes: ENHANCED_PACKET_DATA..ENHANCED_PACKET_DATA + captured,
        })
    }

    /// A frame of the first interface, cut to its snap length, without a time.
    fn simple_packet(&self, block: &[u8]) -> Result<Record> {
        let parse = if self.big_endian {
            parse_simplepacketblock_be
        } else {
            parse_simplepacketblock_le
        };
        let Ok((_, packet)) = parse(block) else {
            bail!("its Simple Packet Block is damaged");
        };
        let Some(interface) = self.interfaces.first() else {
            bail!("it is from an interface that the capture does not describe");
        };
        let mut captured = packet.packet_data().len();
        if interface.snap_length != 0 {
            captured = captured.min(interface.snap_length as usize);
        }
        ensure!(
            captured <= MAX_FRAME,
            "its block is damaged: it is said to have {captured} bytes"
        );
        Ok(Record {
            received_at: None,
            original_length: packet.origlen,
            bytes: SIMPLE_PACKET_DATA..SIMPLE_PACKET_DATA + captured,
        })
    }

    /// The 32-bit number at `offset`, in the section's byte order.
    fn number(&self, block: &[u8], offset: usize) -> u32 {
        let bytes = [0, 1, 2, 3].map(|i| block[offset + i]);
        if self.big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    }
}

struct Interface {
    /// 0 for no limit.
    snap_length: u32,
    clock: InterfaceClock,
}

struct InterfaceClock {
    units_per_second: u64,
    /// What it counts from, in seconds since 1970.
    offset: i64,
}

impl InterfaceClock {
    fn time(&self, units: u64) -> Result<ReceivedAt> {
        let since_offset =
            u128::from(units) * u128::from(NANOSECONDS) / u128::from(self.units_per_second);
        // Below 2^94, so neither it nor the sum leaves 128 bits.
        let nanoseconds = i128::from(self.offset) * i128::from(NANOSECONDS) + since_offset as i128;
        Ok(ReceivedAt {
            nanoseconds: u64::try_from(nanoseconds)
                .ok()
                .context("its time lies before 1970 or after 2554")?,
            precision: if 1_000_000_u64.is_multiple_of(self.units_per_second) {
                Precision::Microseconds
            } else {
                Precision::Nanoseconds
            },
        })
    }
}

/// What option if_tsresol says: a negative power of ten, or of two if its highest bit is set.
/// pcap-parser knows the first kind only.
fn units_per_second(resolution: u8) -> Option<u64> {
    if resolution & 0x80 == 0 {
        10_u64.checked_pow(u32::from(resolution))
    } else {
        1_u64.checked_shl(u32::from(resolution & 0x7f))
    }
}
