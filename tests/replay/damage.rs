//! Captures that are none, or not whole.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use testbed::{frame::reported_pair, harness::trial};

use crate::{
    command::{Replayed, bytes, try_bytes, try_file},
    pcap::{Frame, Style, USUAL},
    pcapng::{ETHERNET, File, Interface},
};

pub fn trials() -> Vec<Trial> {
    let refused: Vec<(&str, Vec<u8>, &str)> = vec![
        ("an empty file", vec![], "it is empty"),
        ("a text", b"no capture".to_vec(), "neither pcap nor pcapng"),
        ("a lone byte", vec![0xd4], "neither pcap nor pcapng"),
        ("a gzip file", vec![0x1f, 0x8b, 8, 0, 0], "zcat"),
        ("a zstd file", vec![0x28, 0xb5, 0x2f, 0xfd, 0], "zstdcat"),
        ("a pcap file of `any`", linked(113), "LINUX_SLL, "),
        (
            "a pcap file of `any`, version 2",
            linked(276),
            "LINUX_SLL2, ",
        ),
        ("a pcap file of Wi-Fi", linked(105), "IEEE802_11, "),
        ("a pcap file of a link without a name", linked(147), "147, "),
        (
            "a pcapng file of `any`",
            File::default()
                .section(true)
                .interface(Interface {
                    link_type: 113,
                    ..ETHERNET
                })
                .bytes(),
            "LINUX_SLL, ",
        ),
    ];
    let mut trials: Vec<Trial> = refused
        .into_iter()
        .map(|(name, capture, error)| {
            trial(format!("{name} is refused by its name"), move || {
                let replayed = try_bytes(&capture, &[])?;
                ensure!(replayed.frames.is_empty() && replayed.summary.is_null());
                replayed.expect_error(error)
            })
        })
        .collect();
    for (name, capture) in small_captures() {
        let same = capture.clone();
        trials.push(trial(
            format!("{name}, cut off at any byte: the frames before it, then one line of error"),
            move || cut_off(&capture),
        ));
        trials.push(trial(
            format!("{name}, damaged at any byte: frames or one line of error, no panic"),
            move || damaged(&same),
        ));
    }
    trials.extend([
        trial("what is not there is named", not_there),
        trial(
            "a second interface that is not Ethernet ends the replay there",
            second_interface,
        ),
    ]);
    trials
}

fn linked(link_type: u32) -> Vec<u8> {
    Style { link_type, ..USUAL }.header()
}

/// Three frames in each format, the last short.
fn small_captures() -> [(&'static str, Vec<u8>); 3] {
    let [first, second] = reported_pair().map(|frame| frame.bytes());
    let frames = [
        Frame::new(0, first.clone()),
        Frame::new(1_000, second.clone()),
        Frame::new(2_000, vec![0; 20]),
    ];
    let section = |big_endian| {
        File::default()
            .section(big_endian)
            .interface(Interface {
                resolution: Some(9),
                ..ETHERNET
            })
            .enhanced_packet(0, 0, &first)
            .enhanced_packet(0, 1, &second)
            .simple_packet(20, &[0; 20])
            .bytes()
    };
    [
        ("a pcap file", USUAL.file(&frames)),
        ("a pcapng file", section(false)),
        ("a big-endian pcapng file", section(true)),
    ]
}

/// How many frames end at or before each byte of a capture, in the order of the formats.
fn whole_frames(capture: &[u8], cut: usize) -> Result<usize> {
    let big_endian = capture[8..12] == [0x1a, 0x2b, 0x3c, 0x4d];
    let number = |offset: usize| -> Result<u32> {
        let bytes = capture.get(offset..offset + 4).context("no number")?;
        let bytes = bytes.try_into()?;
        Ok(if big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    };
    let mut frames = 0;
    let is_pcap = capture[0] != 0x0a;
    let mut offset = if is_pcap { 24 } else { 0 };
    while offset < capture.len() {
        let (length, is_frame) = if is_pcap {
            (16 + number(offset + 8)? as usize, true)
        } else {
            (
                number(offset + 4)? as usize,
                [3, 6].contains(&number(offset)?),
            )
        };
        offset += length;
        if offset > cut {
            break;
        }
        frames += usize::from(is_frame);
    }
    Ok(frames)
}

fn cut_off(capture: &[u8]) -> Result<()> {
    let whole = try_bytes(capture, &[])?;
    ensure!(whole.code == 0, "{whole:?}");
    for cut in 0..capture.len() {
        let replayed = try_bytes(&capture[..cut], &[])?;
        let frames = whole_frames(capture, cut)?;
        ensure!(replayed.frames == whole.frames[..frames], "cut at {cut}");
        one_outcome(&replayed).with_context(|| format!("cut at {cut}"))?;
        if replayed.code == 1 && !replayed.summary.is_null() {
            let place = format!("frame {}, at byte ", frames + 1);
            ensure!(replayed.stderr.contains(&place), "{}", replayed.stderr);
        }
        ensure!(replayed.summary.is_null() || replayed.summary["frames"] == frames);
    }
    Ok(())
}

fn damaged(capture: &[u8]) -> Result<()> {
    for place in 0..capture.len() {
        let mut capture = capture.to_vec();
        capture[place] ^= 0xff;
        one_outcome(&try_bytes(&capture, &[])?).with_context(|| format!("damaged at {place}"))?;
    }
    Ok(())
}

/// Fails unless the command succeeded without an error, or failed with exactly one.
fn one_outcome(replayed: &Replayed) -> Result<()> {
    let errors = replayed
        .stderr
        .lines()
        .filter(|line| !line.starts_with("xdp-dedup: note: "))
        .collect::<Vec<_>>();
    let is_right = match errors.as_slice() {
        [] => replayed.code == 0,
        [error] => replayed.code == 1 && error.starts_with("xdp-dedup: cannot replay -: "),
        _ => false,
    };
    ensure!(is_right, "exit code {}, {errors:?}", replayed.code);
    Ok(())
}

fn not_there() -> Result<()> {
    try_file(Path::new("/nowhere/at-all.pcap"), &[])?
        .expect_error("cannot replay /nowhere/at-all.pcap: No such file")?;
    let folder = tempfile::tempdir()?;
    try_file(folder.path(), &[])?.expect_error("Is a directory")?;
    let path = folder.path().join("no.pcap");
    fs::write(&path, "no")?;
    try_file(&path, &[])?.expect_error("no.pcap: it is neither pcap nor pcapng")
}

fn second_interface() -> Result<()> {
    let [first, second] = reported_pair().map(|frame| frame.bytes());
    let file = File::default()
        .section(false)
        .interface(ETHERNET)
        .enhanced_packet(0, 0, &first);
    let replayed = bytes(&file.clone().enhanced_packet(0, 1, &second).bytes(), &[])?;
    ensure!(replayed.reasons() == ["first", "duplicate"]);
    let link = Interface {
        link_type: 113,
        ..ETHERNET
    };
    let replayed = try_bytes(
        &file.interface(link).enhanced_packet(1, 1, &second).bytes(),
        &[],
    )?;
    ensure!(replayed.reasons() == ["first"], "{replayed:?}");
    replayed.expect_error("frame 2, at byte")?;
    replayed.expect_error("LINUX_SLL")
}
