//! The file formats: every kind of capture that tcpdump, Wireshark and others write tells the same.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use testbed::{frame::reported_pair, harness::trial};

use crate::{
    command::{Replayed, bytes, try_bytes},
    pcap::{Frame, Style, USUAL},
    pcapng::{ETHERNET, File, Interface},
};

/// 2026-11-22T15:32:01Z in seconds since 1970.
const SECOND: u64 = 1_795_361_521;

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial(
            "the time zone of a pcapng interface is its if_tsoffset",
            offsets,
        ),
        trial(
            "a pcapng file with two interfaces of different resolution is told in real time",
            two_interfaces,
        ),
        trial(
            "a pcapng file may go on with a section in the other byte order",
            two_sections,
        ),
        trial("blocks that hold no frame are passed over", other_blocks),
        trial(
            "a Simple Packet Block has no time, and a line says what follows from that",
            simple_packets,
        ),
        trial(
            "frames cut short by the capture are told as captured, and a line says so",
            cut_short,
        ),
        trial("a pcapng file without frames is no error", no_frames),
        trial(
            "the obsolete Packet Block is refused, with what to do",
            obsolete_packet,
        ),
    ];
    for big_endian in [false, true] {
        let order = if big_endian { "big" } else { "little" };
        for (nanoseconds, times) in [
            (false, ["01.937496Z", "01.937535Z"]),
            (true, ["01.937496123Z", "01.937535123Z"]),
        ] {
            let unit = if nanoseconds { "nano" } else { "micro" };
            trials.push(trial(
                format!("{order}-endian pcap in {unit}seconds"),
                move || {
                    let style = Style {
                        big_endian,
                        nanoseconds,
                        ..USUAL
                    };
                    let [first, second] = pair();
                    let capture = style.file(&[
                        Frame::new(SECOND * 1_000_000_000 + 937_496_123, first),
                        Frame::new(SECOND * 1_000_000_000 + 937_535_123, second),
                    ]);
                    expect(&bytes(&capture, &[])?, &times, &["first", "duplicate"])
                },
            ));
        }
        // Option if_tsresol, the units of half a second, and how a whole second and a half is told.
        for (resolution, units, half) in [
            (None, 500_000, "01.500000Z"),
            (Some(6), 500_000, "01.500000Z"),
            (Some(9), 500_000_000, "01.500000000Z"),
            (Some(3), 500, "01.500000Z"),
            (Some(8), 50_000_000, "01.500000000Z"),
            (Some(0x80 | 20), 1 << 19, "01.500000000Z"),
            (Some(0x80 | 1), 1, "01.500000Z"),
        ] {
            trials.push(trial(
                format!("{order}-endian pcapng with if_tsresol {resolution:?}"),
                move || {
                    let [first, second] = pair();
                    let time = SECOND * 2 * units + units;
                    let capture = File::default()
                        .section(big_endian)
                        .interface(Interface {
                            resolution,
                            ..ETHERNET
                        })
                        .enhanced_packet(0, time, &first)
                        .enhanced_packet(0, time, &second)
                        .bytes();
                    expect(
                        &bytes(&capture, &[])?,
                        &[half, half],
                        &["first", "duplicate"],
                    )
                },
            ));
        }
    }
    trials
}

fn pair() -> [Vec<u8>; 2] {
    reported_pair().map(|frame| frame.bytes())
}

/// Fails unless the frames came at these times, after 2026-11-22T15:32, and had these reasons.
fn expect(replayed: &Replayed, times: &[&str], reasons: &[&str]) -> Result<()> {
    let told: Vec<&str> = replayed
        .frames
        .iter()
        .map(|frame| frame["time"].as_str().unwrap_or_default())
        .collect();
    let times: Vec<String> = times
        .iter()
        .map(|time| format!("2026-11-22T15:32:{time}"))
        .collect();
    ensure!(told == times, "{told:?}, expected {times:?}");
    ensure!(replayed.reasons() == reasons, "{:?}", replayed.reasons());
    Ok(())
}

fn offsets() -> Result<()> {
    for big_endian in [false, true] {
        for (offset, seconds) in [
            (3_600, SECOND - 3_600),
            (-3_600, SECOND + 3_600),
            (SECOND as i64, 0),
        ] {
            let capture = File::default()
                .section(big_endian)
                .interface(Interface {
                    offset: Some(offset),
                    ..ETHERNET
                })
                .enhanced_packet(0, seconds * 1_000_000 + 1, &pair()[0])
                .bytes();
            expect(&bytes(&capture, &[])?, &["01.000001Z"], &["first"])?;
        }
    }
    Ok(())
}

fn two_interfaces() -> Result<()> {
    let [first, second] = pair();
    let capture = File::default()
        .section(false)
        .interface(ETHERNET)
        .interface(Interface {
            resolution: Some(9),
            ..ETHERNET
        })
        .enhanced_packet(0, SECOND * 1_000_000, &first)
        .enhanced_packet(1, SECOND * 1_000_000_000 + 199_999_999, &second)
        .enhanced_packet(0, SECOND * 1_000_000 + 200_000, &second)
        .bytes();
    expect(
        &bytes(&capture, &[])?,
        &["01.000000Z", "01.199999999Z", "01.200000Z"],
        &["first", "duplicate", "retransmission"],
    )
}

fn two_sections() -> Result<()> {
    let [first, second] = pair();
    let nanoseconds = Interface {
        resolution: Some(9),
        ..ETHERNET
    };
    let capture = File::default()
        .section(false)
        .interface(ETHERNET)
        .enhanced_packet(0, SECOND * 1_000_000, &first)
        .section(true)
        .interface(nanoseconds)
        .enhanced_packet(0, SECOND * 1_000_000_000, &second)
        .bytes();
    expect(
        &bytes(&capture, &[])?,
        &["01.000000Z", "01.000000000Z"],
        &["first", "duplicate"],
    )
}

fn other_blocks() -> Result<()> {
    let [first, second] = pair();
    let capture = File::default()
        .section(false)
        // Name resolution, interface statistics, decryption secrets, custom, and one nobody knows.
        .block(4, &[0; 4])
        .interface(ETHERNET)
        .block(5, &[0; 12])
        .enhanced_packet(0, SECOND * 1_000_000, &first)
        .block(10, &[0; 100])
        .block(0xbad, &[0; 8])
        .enhanced_packet(0, SECOND * 1_000_000, &second)
        .block(0x1234_5678, &[])
        .bytes();
    expect(
        &bytes(&capture, &[])?,
        &["01.000000Z", "01.000000Z"],
        &["first", "duplicate"],
    )
}

fn simple_packets() -> Result<()> {
    let [first, second] = pair();
    let length = first.len() as u32;
    let capture = File::default()
        .section(false)
        .interface(Interface {
            snap_length: 70,
            ..ETHERNET
        })
        .enhanced_packet(0, SECOND * 1_000_000, &first)
        .simple_packet(length, &second[..70])
        .bytes();
    let replayed = try_bytes(&capture, &[])?;
    ensure!(replayed.reasons() == ["first", "malformed"], "{replayed:?}");
    ensure!(replayed.frames[1]["time"] == Value::Null);
    ensure!(replayed.code == 0);
    let notes: Vec<_> = replayed.stderr.lines().collect();
    ensure!(
        notes.len() == 2 && notes[0].contains("cut short") && notes[1].contains("without a time"),
        "{notes:?}"
    );
    // Without a limit the padding still is no part of the frame.
    let capture = File::default()
        .section(true)
        .interface(ETHERNET)
        .simple_packet(length, &first)
        .simple_packet(length, &second)
        .bytes();
    let replayed = try_bytes(&capture, &[])?;
    ensure!(replayed.reasons() == ["first", "duplicate"], "{replayed:?}");
    ensure!(replayed.stderr.lines().count() == 1, "{}", replayed.stderr);
    Ok(())
}

fn cut_short() -> Result<()> {
    let [first, second] = pair();
    let frames = [first, second].map(|bytes| Frame {
        original_length: bytes.len() as u32,
        bytes: bytes[..96].to_vec(),
        time: SECOND * 1_000_000_000,
    });
    let replayed = try_bytes(&USUAL.file(&frames), &[])?;
    ensure!(replayed.code == 0);
    ensure!(
        replayed.reasons() == ["malformed", "malformed"],
        "{replayed:?}"
    );
    ensure!(
        replayed.stderr.lines().count() == 1 && replayed.stderr.contains("2 frames were cut short"),
        "{}",
        replayed.stderr
    );
    Ok(())
}

fn no_frames() -> Result<()> {
    for capture in [
        USUAL.header(),
        File::default().section(false).bytes(),
        File::default().section(true).interface(ETHERNET).bytes(),
    ] {
        let replayed = bytes(&capture, &[])?;
        ensure!(replayed.frames.is_empty() && replayed.summary["frames"] == 0);
    }
    Ok(())
}

fn obsolete_packet() -> Result<()> {
    let capture = File::default()
        .section(false)
        .interface(ETHERNET)
        .enhanced_packet(0, SECOND * 1_000_000, &pair()[0])
        .block(2, &[0; 20])
        .bytes();
    let replayed = try_bytes(&capture, &[])?;
    replayed.expect_error("frame 2, at byte")?;
    replayed.expect_error("editcap")
}
