//! `detach`.

use std::io;
use std::path::Path;

use anyhow::{Result, ensure};
use nix::libc;
use nix::sys::signal::Signal;
use testbed::binary::binary;
use testbed::veth::XdpMode;

use crate::Test;
use crate::bed::{Bed, wait_for_counts};
use crate::refusing::{OBJECT_GET, refuse};

pub const TESTS: &[(&str, Test)] = &[
    ("detach wants to be told what", usage),
    (
        "detach says so where there is nothing, which is an error for an interface that is named",
        nothing_there,
    ),
    ("detach refuses while a run is at work", while_running),
    (
        "detach takes off one interface, and removes everything with the last one",
        one_by_one,
    ),
    (
        "detach goes on where nobody reads what it says",
        nobody_reads,
    ),
    (
        "detach changes nothing where it cannot tell what is attached",
        no_memory,
    ),
    ("detach removes a pin that is no link", no_link),
    (
        "detach does not take a hidden BPF file system for an empty one",
        hidden,
    ),
];

fn usage() -> Result<()> {
    let bed = Bed::new()?;
    for arguments in [&["detach"][..], &["detach", "--all", "-i", "server0"]] {
        let ended = bed.xdp_dedup(arguments)?;
        ensure!(ended.code == Some(2), "{ended:?}");
        ensure!(ended.stderr.lines().count() == 1, "{ended:?}");
        ensure!(ended.stderr.contains("--all"), "{ended:?}");
    }
    Ok(())
}

fn nothing_there() -> Result<()> {
    let bed = Bed::new()?;
    let ended = bed.xdp_dedup(&["detach", "--all"])?;
    ensure!(ended.code == Some(0), "{ended:?}");
    ensure!(ended.stdout == "nothing is attached\n", "{ended:?}");
    for (name, text) in [
        ("server0", "has left nothing on server0"),
        (
            "nope",
            "there is no interface nope here; there are lo, server0",
        ),
    ] {
        let ended = bed.xdp_dedup(&["detach", "-i", name])?;
        ensure!(ended.code == Some(1), "{ended:?}");
        ensure!(ended.stderr.contains(text), "{ended:?}");
        ensure!(ended.stderr.lines().count() == 1, "{ended:?}");
    }
    bed.expect_nothing()
}

fn while_running() -> Result<()> {
    let bed = Bed::new()?;
    for arguments in [&[][..], &["--persist"]] {
        let daemon = bed.run(arguments)?;
        for which in [&["detach", "--all"][..], &["detach", "-i", "server0"]] {
            let ended = bed.xdp_dedup(which)?;
            ensure!(ended.code == Some(1), "{ended:?}");
            ensure!(
                ended.stderr.contains(&format!(
                    "another xdp-dedup (process {}) is at work",
                    daemon.pid()
                )) && ended.stderr.contains("stop it first"),
                "{ended:?}"
            );
        }
        bed.expect_xdp(&[Some(XdpMode::Native)])?;
        daemon.stop(Signal::SIGTERM)?;
    }
    ensure!(bed.detach_all()? == "server0: detached\n");
    Ok(())
}

fn one_by_one() -> Result<()> {
    let bed = Bed::with_cables(2)?;
    let both = ["--persist", "-i", "server0", "-i", "server1"];
    bed.run(&both)?.stop(Signal::SIGKILL)?;
    // All or none.
    bed.server.ip("link add other0 type bridge")?;
    let ended = bed.xdp_dedup(&["detach", "-i", "server0", "-i", "other0"])?;
    ensure!(ended.code == Some(1), "{ended:?}");
    bed.expect_xdp(&[Some(XdpMode::Native); 2])?;

    let ended = bed.xdp_dedup(&["detach", "-i", "server1"])?;
    ensure!(ended.code == Some(0), "{ended:?}");
    ensure!(ended.stdout == "server1: detached\n", "{ended:?}");
    bed.expect_xdp(&[Some(XdpMode::Native), None])?;
    // The other one goes on, with its memory.
    bed.send_pair(1)?;
    let daemon = bed.run(&["--persist"])?;
    wait_for_counts(&daemon, "drop duplicate 1, pass first 1")?;
    daemon.stop(Signal::SIGTERM)?;

    let ended = bed.xdp_dedup(&["detach", "-i", "server0"])?;
    ensure!(ended.stdout == "server0: detached\n", "{ended:?}");
    bed.expect_nothing()
}

fn nobody_reads() -> Result<()> {
    let bed = Bed::with_cables(2)?;
    let both = ["--persist", "-i", "server0", "-i", "server1"];
    for _ in 0..2 {
        bed.run(&both)?.stop(Signal::SIGTERM)?;
        let (reader, writer) = io::pipe()?;
        drop(reader);
        let mut command = bed.command(&binary()?);
        command.args(["detach", "--all"]).stdout(writer);
        let output = command.output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && stderr.is_empty(), "{stderr}");
        bed.expect_nothing()?;
    }
    Ok(())
}

fn no_memory() -> Result<()> {
    let bed = Bed::new()?;
    bed.run(&["--persist"])?.stop(Signal::SIGTERM)?;
    let before = bed.pins.list(&bed.server)?;
    for (errno, text) in [
        (libc::ENOMEM, "Cannot allocate memory"),
        (libc::EMFILE, "Too many open files"),
        (libc::EACCES, "Permission denied"),
    ] {
        let mut command = bed.command(&binary()?);
        command.args(["detach", "--all"]);
        refuse(&mut command, OBJECT_GET, errno)?;
        let output = command.output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{text}: {stderr}");
        ensure!(stderr.contains(text), "no {text:?} in {stderr}");
        ensure!(output.stdout.is_empty(), "{text}: {output:?}");
        ensure!(bed.pins.list(&bed.server)? == before, "{text}: changed");
        bed.expect_xdp(&[Some(XdpMode::Native)])?;
    }
    bed.detach_all().map(drop)
}

fn no_link() -> Result<()> {
    let bed = Bed::new()?;
    bed.run(&["--persist"])?.stop(Signal::SIGTERM)?;
    let output = bed
        .command(Path::new("sh"))
        .args([
            "-c",
            "cd /sys/fs/bpf/xdp-dedup/netns-* && ln -s nowhere link-4711 && ln -s / link-4712",
        ])
        .output()?;
    ensure!(output.status.success(), "{output:?}");
    let said = bed.detach_all()?;
    let lines: Vec<_> = said.lines().collect();
    let expected = [
        "server0: detached",
        "interface 4711: gone before",
        "interface 4712: gone before",
    ];
    ensure!(lines == expected, "{said}");
    Ok(())
}

fn hidden() -> Result<()> {
    let bed = Bed::new()?;
    bed.run(&["--persist"])?.stop(Signal::SIGTERM)?;
    let output = bed
        .command(Path::new("unshare"))
        .args([
            "--mount",
            "sh",
            "-c",
            "umount /sys/fs/bpf && exec \"$0\" detach --all",
        ])
        .arg(binary()?)
        .output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{stderr}");
    ensure!(stderr.contains("no BPF file system is mounted"), "{stderr}");
    bed.detach_all().map(drop)
}
