//! The frames of the captures that lie beside the tests.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

/// The frames of each capture, in the order of the files' names.
pub fn all() -> Result<Vec<Vec<Vec<u8>>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("captures");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .with_context(|| format!("no captures in {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "pcap")
        })
        .collect();
    files.sort();
    ensure!(!files.is_empty(), "no captures in {}", folder.display());
    files
        .iter()
        .map(|path| frames(&fs::read(path)?).with_context(|| format!("{}", path.display())))
        .collect()
}

/// Frames of a little-endian pcap file; their times do not matter here.
fn frames(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    const FILE_HEADER: usize = 24;
    const RECORD_HEADER: usize = 16;
    ensure!(
        matches!(
            bytes.get(..4),
            Some([0xd4, 0xc3, 0xb2, 0xa1] | [0x4d, 0x3c, 0xb2, 0xa1])
        ),
        "not a little-endian pcap file"
    );
    bytes = &bytes[FILE_HEADER..];
    let mut frames = Vec::new();
    while let Some((header, rest)) = bytes.split_at_checked(RECORD_HEADER) {
        let length = u32::from_le_bytes(header[8..12].try_into()?) as usize;
        let (frame, rest) = rest.split_at_checked(length).context("cut short")?;
        frames.push(frame.to_vec());
        bytes = rest;
    }
    Ok(frames)
}
