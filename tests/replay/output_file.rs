//! `--write`: the frames that pass, as a capture of their own.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use etherparse::SlicedPacket;
use libtest_mimic::Trial;
use nix::{sys::stat::Mode, unistd::mkfifo};
use testbed::{frame::reported_pair, harness::trial};

use crate::{
    command::{bytes, capture, captures, file, name, replay, try_file},
    pcap::{self, Frame, Style, USUAL},
    pcapng::{ETHERNET, File},
};

pub fn trials() -> Vec<Trial> {
    let mut trials: Vec<Trial> = captures()
        .into_iter()
        .map(|path| {
            trial(
                format!(
                    "{}: --write keeps exactly the frames that pass",
                    name(&path)
                ),
                move || keeps_what_passes(&path),
            )
        })
        .collect();
    trials.extend([
        trial(
            "--write keeps the original length of a frame cut short",
            lengths,
        ),
        trial("--write of a pcapng file tells nanoseconds", nanoseconds),
        trial(
            "--write of a damaged capture keeps what came before the damage",
            before_the_damage,
        ),
        trial("--write to the capture itself is refused", itself),
        trial("--write that fails leaves all as it was", leaves_nothing),
        trial("--write replaces a file, through a link too", replaces),
        trial("--write goes on where nobody reads the report", unread),
    ]);
    trials
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("no UTF-8")
}

/// Frames that are dropped change nothing, so that without them the others are decided as before.
fn keeps_what_passes(path: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out.pcap");
    let replayed = file(path, &["--write", text(&out)?])?;
    let (style, frames) = pcap::read(&fs::read(path)?)?;
    let (written_style, written) = pcap::read(&fs::read(&out)?)?;
    ensure!(written_style == style);
    let (passed, decisions): (Vec<Frame>, Vec<_>) = frames
        .into_iter()
        .zip(replayed.decisions())
        .filter(|(_, (verdict, _))| *verdict == "pass")
        .unzip();
    ensure!(written == passed);
    for frame in &written {
        SlicedPacket::from_ethernet(&frame.bytes)?;
    }
    let again = file(&out, &[])?;
    ensure!(again.decisions() == decisions, "{again:?}");
    ensure!(again.summary["dropped"] == 0);

    // Would-be drops pass.
    file(path, &["--observe", "--write", text(&out)?])?;
    ensure!(pcap::read(&fs::read(&out)?)? == pcap::read(&fs::read(path)?)?);
    ensure!(entries(folder.path())? == ["out.pcap"]);
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn lengths() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out.pcap");
    for nanoseconds in [false, true] {
        for big_endian in [false, true] {
            let style = Style {
                nanoseconds,
                big_endian,
                ..USUAL
            };
            let frame = Frame {
                time: 1_795_361_521_937_496_000,
                original_length: 1_000,
                bytes: reported_pair()[0].bytes(),
            };
            let input = folder.path().join("in.pcap");
            fs::write(&input, style.file(std::slice::from_ref(&frame)))?;
            ensure!(try_file(&input, &["--write", text(&out)?])?.code == 0);
            let (written_style, written) = pcap::read(&fs::read(&out)?)?;
            ensure!(written == [frame] && written_style.nanoseconds == nanoseconds);
        }
    }
    Ok(())
}

fn nanoseconds() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out.pcap");
    let frame = reported_pair()[0].bytes();
    let capture = File::default()
        .section(true)
        .interface(ETHERNET)
        .enhanced_packet(0, 1_795_361_521_937_496, &frame)
        .bytes();
    bytes(&capture, &["--write", text(&out)?])?;
    let (style, written) = pcap::read(&fs::read(&out)?)?;
    ensure!(style.nanoseconds);
    ensure!(written == [Frame::new(1_795_361_521_937_496_000, frame)]);
    Ok(())
}

fn before_the_damage() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (input, out) = (
        folder.path().join("in.pcap"),
        folder.path().join("out.pcap"),
    );
    let frame = Frame::new(0, reported_pair()[0].bytes());
    let mut capture = USUAL.file(&[frame.clone(), frame.clone()]);
    capture.pop();
    fs::write(&input, &capture)?;
    try_file(&input, &["--write", text(&out)?])?.expect_error("frame 2")?;
    ensure!(pcap::read(&fs::read(&out)?)?.1 == [frame]);

    // Nothing is known of a file whose header is cut off.
    fs::remove_file(&out)?;
    fs::write(&input, &capture[..20])?;
    try_file(&input, &["--write", text(&out)?])?.expect_error("within its header")?;
    ensure!(entries(folder.path())? == ["in.pcap"]);
    Ok(())
}

fn itself() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let input = folder.path().join("in.pcap");
    fs::copy(capture("05-vlan100"), &input)?;
    let before = fs::read(&input)?;
    let (soft, hard) = (folder.path().join("soft"), folder.path().join("hard"));
    symlink(&input, &soft)?;
    fs::hard_link(&input, &hard)?;
    for out in [&input, &soft, &hard] {
        for capture in [&input, &soft] {
            try_file(capture, &["--write", text(out)?])?.expect_error("it is the capture")?;
        }
        let output = replay()?
            .args(["-", "--engine", "userspace", "--write", text(out)?])
            .stdin(fs::File::open(&input)?)
            .output()?;
        ensure!(output.status.code() == Some(1));
    }
    ensure!(fs::read(&input)? == before);
    ensure!(entries(folder.path())? == ["hard", "in.pcap", "soft"]);
    Ok(())
}

fn leaves_nothing() -> Result<()> {
    let input = capture("05-vlan100");
    let folder = tempfile::tempdir()?;
    let folder = folder.path();
    // A device would do as well, but not where a fault replaces it.
    let fifo = folder.join("fifo");
    mkfifo(&fifo, Mode::S_IRWXU)?;
    for (out, error) in [
        (folder.to_owned(), "it is there already, and is no file"),
        (fifo.clone(), "it is there already, and is no file"),
        (folder.join("none/out.pcap"), "No such file or directory"),
    ] {
        try_file(&input, &["--write", text(&out)?])?.expect_error(error)?;
    }
    ensure!(fs::metadata(&fifo)?.file_type().is_fifo());
    fs::remove_file(&fifo)?;

    // Standard output that takes nothing ends the replay in the middle.
    let out = folder.join("out.pcap");
    fs::write(&out, "before")?;
    let output = replay()?
        .arg(&input)
        .args(["--engine", "userspace", "--write", text(&out)?])
        .stdout(fs::OpenOptions::new().write(true).open("/dev/full")?)
        .output()?;
    let stderr = String::from_utf8(output.stderr)?;
    ensure!(
        output.status.code() == Some(1) && stderr.contains("cannot write to standard output"),
        "{stderr}"
    );
    ensure!(entries(folder)? == ["out.pcap"]);
    ensure!(fs::read(&out)? == b"before");
    Ok(())
}

fn replaces() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (out, link) = (folder.path().join("out.pcap"), folder.path().join("link"));
    fs::write(&out, "before")?;
    let inode = fs::metadata(&out)?.ino();
    symlink(&out, &link)?;
    file(&capture("05-vlan100"), &["--write", text(&link)?])?;
    ensure!(pcap::read(&fs::read(&out)?)?.1.len() == 1);
    ensure!(fs::symlink_metadata(&link)?.is_symlink());
    ensure!(
        fs::metadata(&out)?.ino() != inode,
        "written over, not replaced"
    );
    // As the umask has it, like any new file.
    let plain = folder.path().join("plain");
    fs::write(&plain, "")?;
    let mode = |path: &Path| Ok::<_, std::io::Error>(fs::metadata(path)?.permissions().mode());
    ensure!(mode(&out)? == mode(&plain)?);
    Ok(())
}

fn unread() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (input, out) = (
        folder.path().join("in.pcap"),
        folder.path().join("out.pcap"),
    );
    let frames: Vec<Frame> = (0..20_000)
        .map(|number| Frame::new(number * 1_000_000_000, reported_pair()[0].bytes()))
        .collect();
    fs::write(&input, USUAL.file(&frames))?;
    let mut child = replay()?
        .arg(&input)
        .args(["--engine", "userspace", "--write", text(&out)?])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    drop(child.stdout.take());
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    ensure!(pcap::read(&fs::read(&out)?)?.1 == frames);
    Ok(())
}
