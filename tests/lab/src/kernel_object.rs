//! The kernel program as a file, for tools that load it themselves: it lies in the `xdp-dedup`
//! executable as the compiler left it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// What the file is called where it is installed.
pub const NAME: &str = "xdp_dedup.bpf.o";

/// An ELF header up to the machine that it is for: 64 bits, little-endian, relocatable
/// (elf(5): e_ident, e_type, e_machine).
const MAGIC: &[u8] = b"\x7fELF\x02\x01\x01";
const RELOCATABLE: u16 = 1;
const BPF: u16 = 247;

/// The object file in this executable.
///
/// # Errors
///
/// Where it has none, or cannot be read.
pub fn of(binary: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?;
    let mut starts = bytes
        .windows(MAGIC.len())
        .enumerate()
        .filter_map(|(start, window)| (window == MAGIC).then_some(start));
    starts
        .find_map(|start| object_at(&bytes[start..]))
        .map(<[u8]>::to_vec)
        .with_context(|| format!("{} holds no BPF object", binary.display()))
}

/// The BPF object that begins here. The compiler puts the table of sections last.
fn object_at(bytes: &[u8]) -> Option<&[u8]> {
    let field = |offset: usize| {
        let bytes = bytes.get(offset..offset + 2)?;
        Some(u16::from_le_bytes(bytes.try_into().ok()?))
    };
    if field(16)? != RELOCATABLE || field(18)? != BPF {
        return None;
    }
    // e_shoff, e_shentsize, e_shnum
    let table = u64::from_le_bytes(bytes.get(40..48)?.try_into().ok()?);
    let length = usize::from(field(58)?) * usize::from(field(60)?);
    bytes.get(..usize::try_from(table).ok()?.checked_add(length)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An object without content: a header, and a table of one section.
    fn object(machine: u16) -> Vec<u8> {
        let mut header = vec![0; 64 + 64];
        header[..MAGIC.len()].copy_from_slice(MAGIC);
        header[16..18].copy_from_slice(&RELOCATABLE.to_le_bytes());
        header[18..20].copy_from_slice(&machine.to_le_bytes());
        header[40] = 64;
        header[58] = 64;
        header[60] = 1;
        header
    }

    #[test]
    fn a_bpf_object_is_found_whole_between_others() {
        const X86_64: u16 = 62;
        let with_more = [object(BPF), b"more".to_vec()].concat();
        assert_eq!(object_at(&with_more), Some(&object(BPF)[..]));
        assert_eq!(object_at(&object(X86_64)), None);
        assert_eq!(object_at(&object(BPF)[..127]), None);
        assert_eq!(object_at(&object(BPF)[..17]), None);
    }
}
