//! Both engines give the same answer for every frame: the program in the kernel, and the same code
//! on the host.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use nix::unistd::{SysconfVar, sysconf};
use testbed::{
    frame::{ClientMessage, Frame as Datagram, RelayForward, message_type, option_code, reported},
    harness::{needs_root, trial},
};

use crate::{
    command::{captures, file, replay},
    pcap::{self, Frame, Style, USUAL},
};

/// Policies to try on each capture.
const POLICIES: &[&[&str]] = &[
    &[],
    &["--messages", "all", "--observe", "--escalate-every", "2"],
    &[
        "--identity",
        "xid",
        "--window",
        "15s",
        "--escalate-every",
        "0",
    ],
];

/// What `BPF_PROG_TEST_RUN` needs in a frame's first page for itself, in bytes.
const NOT_LINEAR: usize = 576;

pub fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = POLICIES
        .iter()
        .map(|policy| {
            needs_root(trial(
                format!("all captures {policy:?}: both engines give the same report"),
                || all_captures(policy),
            ))
        })
        .collect();
    trials.push(needs_root(trial(
        "frames of any length: both engines give the same report",
        frames_of_any_length,
    )));
    trials.push(trial(
        "a message that leaves the first buffer is unverifiable, one that fills it is not",
        the_end_of_the_first_buffer,
    ));
    trials.push(needs_root(trial(
        "without privileges the host decides, and a line says why",
        without_privileges,
    )));
    trials
}

fn run(path: &Path, engine: &str, policy: &[&str]) -> Result<String> {
    let output = replay()?
        .arg(path)
        .args(["--json", "--engine", engine])
        .args(policy)
        .output()?;
    ensure!(
        output.status.success() && output.stderr.is_empty(),
        "{engine} {policy:?}: {output:?}"
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Fails unless both engines say the same of each of these frames.
fn both_agree(frames: &[Frame], policy: &[&str]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("frames.pcap");
    let style = Style {
        nanoseconds: true,
        ..USUAL
    };
    fs::write(&path, style.file(frames))?;
    let kernel = run(&path, "kernel", policy)?;
    let userspace = run(&path, "userspace", policy)?;
    for (kernel, userspace) in kernel.lines().zip(userspace.lines()) {
        ensure!(
            kernel == userspace,
            "kernel {kernel}, userspace {userspace}"
        );
    }
    // A line for each frame, and the summary.
    ensure!(kernel.lines().count() == frames.len() + 1 && kernel == userspace);
    Ok(())
}

/// One after the other, as one capture: the kernel takes a while to check the program at each start,
/// and time that jumps between them is a case too.
fn all_captures(policy: &[&str]) -> Result<()> {
    let mut frames = Vec::new();
    for path in captures() {
        frames.extend(pcap::read(&fs::read(&path)?)?.1);
    }
    ensure!(!frames.is_empty());
    both_agree(&frames, policy)
}

fn frames_of_any_length() -> Result<()> {
    let mut frames: Vec<Vec<u8>> = (0..80).map(|length| vec![0x86; length]).collect();
    let datagram = |end| filling(end).map(|frame| frame.bytes());
    // Around the end of the first buffer, of the second, and of what a datagram can be.
    for middle in [linear_part(), 4096, 8192, linear_part() + 4096, 9014, 65589] {
        for end in middle - 3..=middle + 3 {
            frames.push(datagram(end)?);
        }
    }
    // Padding behind the datagram: to beyond what the kernel takes, and what a capture can hold.
    for length in [3520, 3521, 9000, 65535, 73152, 73153, 100_000, 262_144] {
        let mut frame = datagram(300)?;
        frame.resize(length, 0);
        frames.push(frame);
    }
    let frames: Vec<Frame> = frames
        .into_iter()
        // Each twice, so that copies are among them.
        .flat_map(|frame| [frame.clone(), frame])
        .map(|frame| Frame::new(1_000_000_000, frame))
        .collect();
    both_agree(&frames, &[])
}

fn the_end_of_the_first_buffer() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("end.pcap");
    let mut frames = Vec::new();
    for (number, end) in [linear_part(), linear_part(), linear_part() + 1]
        .into_iter()
        .enumerate()
    {
        frames.push(Frame::new(number as u64 * 1_000, filling(end)?.bytes()));
    }
    fs::write(&path, USUAL.file(&frames))?;
    let replayed = file(&path, &[])?;
    ensure!(
        replayed.reasons() == ["first", "duplicate", "unverifiable"],
        "{replayed:?}"
    );
    Ok(())
}

fn without_privileges() -> Result<()> {
    const NOBODY: u32 = 65534;
    let folder = tempfile::tempdir()?;
    // Where nobody, the user, can reach both.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let binary = folder.path().join("xdp-dedup");
    let path = folder.path().join("frame.pcap");
    fs::copy(testbed::binary::binary()?, &binary)?;
    fs::write(&path, USUAL.file(&[Frame::new(0, filling(300)?.bytes())]))?;
    let run = |engine: &[&str]| {
        Command::new(&binary)
            .arg("replay")
            .arg(&path)
            .args(engine)
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .context("cannot run as nobody")
    };
    let output = run(&[])?;
    let stderr = String::from_utf8(output.stderr)?;
    ensure!(output.status.success(), "{stderr}");
    ensure!(
        stderr.lines().count() == 1 && stderr.contains("userspace") && stderr.contains("CAP_BPF"),
        "{stderr}"
    );
    ensure!(String::from_utf8(output.stdout)?.contains("1 frame: 1 passed"));

    let output = run(&["--engine", "kernel"])?;
    let stderr = String::from_utf8(output.stderr)?;
    ensure!(
        output.status.code() == Some(1)
            && stderr.lines().count() == 1
            && stderr.contains("CAP_BPF"),
        "{stderr}"
    );
    Ok(())
}

fn linear_part() -> usize {
    let page = sysconf(SysconfVar::PAGE_SIZE)
        .ok()
        .flatten()
        .unwrap_or(4096);
    page as usize - NOT_LINEAR
}

/// A relayed Solicit in a frame of `length` bytes, the last of which belongs to the datagram; the
/// relay's own option fills it.
fn filling(length: usize) -> Result<Datagram> {
    let message = ClientMessage::new(message_type::SOLICIT, [1, 2, 3]).elapsed_time(0);
    let frame = |filler: usize| {
        let envelope = RelayForward::new(reported::RELAY_A, reported::CLIENT, &message.bytes())
            .before(option_code::INTERFACE_ID, &vec![0; filler]);
        Datagram::new(reported::RELAY_A, reported::SERVER, envelope.bytes())
    };
    let least = frame(0).bytes().len();
    Ok(frame(length.checked_sub(least).context("too short")?))
}
