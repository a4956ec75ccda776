//! What becomes of the filter where the next `run` asks for another mode.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use testbed::veth::{End, XdpMode};

use crate::Test;
use crate::bed::{Bed, wait_for_counts, wait_for_log};
use crate::object::hold;

pub const TESTS: &[(&str, Test)] = &[
    (
        "another mode takes detaching, said in the log, and forgets nothing",
        another_mode,
    ),
    (
        "a mode that the driver refuses leaves the one before at work",
        a_mode_that_fails,
    ),
    (
        "a mode that one driver refuses leaves the filter on the interface whose driver took it",
        a_mode_that_fails_elsewhere,
    ),
    (
        "a filter whose link somebody else holds is not lost without a word",
        a_mode_that_never_changes,
    ),
];

const PERSIST: &[&str] = &["--persist"];

fn another_mode() -> Result<()> {
    let bed = Bed::new()?;
    let daemon = bed.run(PERSIST)?;
    bed.send_copy(1, 0)?;
    wait_for_counts(&daemon, "pass first 1")?;
    daemon.stop(Signal::SIGTERM)?;
    for (mode, attached) in [("generic", XdpMode::Generic), ("native", XdpMode::Native)] {
        let daemon = bed.run(&["--persist", "--mode", mode])?;
        wait_for_log(&daemon, "the filter is off for a moment", 1)?;
        bed.expect_xdp(&[Some(attached)])?;
        ensure!(bed.links()?.len() == 1);
        bed.send_copy(1, 1)?;
        let expected = match attached {
            XdpMode::Generic => "drop duplicate 1, pass first 1",
            XdpMode::Native => "drop duplicate 2, pass first 1",
        };
        wait_for_counts(&daemon, expected)?;
        daemon.stop(Signal::SIGKILL)?;
    }
    bed.expect_xdp(&[Some(XdpMode::Native)])
}

fn a_mode_that_fails() -> Result<()> {
    let bed = Bed::new()?;
    bed.server.ip("link add bridge0 type bridge")?;
    let bridge = End::new(&bed.server, "bridge0", [0; 6]);
    let generic = ["--persist", "-i", "bridge0", "--mode", "generic"];
    bed.run(&generic)?.stop(Signal::SIGTERM)?;
    let both = ["run", "--persist", "-i", "server0", "-i", "bridge0"];
    for arguments in [
        &["run", "-i", "bridge0"][..],
        // The one that can be attached to is not.
        &both,
        // Nor where the maps are fresh.
        &[&both[..], &["--capacity", "4096"]].concat(),
    ] {
        let ended = bed.xdp_dedup(arguments)?;
        ensure!(ended.code == Some(1), "{ended:?}");
        ensure!(ended.stderr.contains("`--mode generic`"), "{ended:?}");
        ensure!(ended.stderr.contains("attached again"), "{ended:?}");
        ensure!(bridge.xdp()? == Some(XdpMode::Generic), "{ended:?}");
        bed.expect_xdp(&[None])?;
        ensure!(bed.links()? == [format!("link-{}", bridge.index()?)]);
        let status = bed.xdp_dedup(&["status", "--json"])?.stdout;
        ensure!(!status.contains("server0"), "{arguments:?}: {status}");
    }
    let daemon = bed.run(&generic)?;
    wait_for_log(&daemon, "taken over", 1)?;
    Ok(())
}

fn a_mode_that_fails_elsewhere() -> Result<()> {
    let bed = Bed::new()?;
    bed.server.ip("link add bridge0 type bridge")?;
    let bridge = End::new(&bed.server, "bridge0", [0; 6]);
    let run = ["--persist", "-i", "server0", "-i", "bridge0", "--mode"];
    let generic = [&run[..], &["generic"]].concat();
    let daemon = bed.run(&generic)?;
    bed.send_copy(1, 0)?;
    wait_for_counts(&daemon, "pass first 1")?;
    daemon.stop(Signal::SIGTERM)?;
    let links = bed.links()?;
    ensure!(links.len() == 2, "{links:?}");
    let ended = bed.xdp_dedup(&[&["run"], &run[..], &["native"]].concat())?;
    ensure!(ended.code == Some(1), "{ended:?}");
    ensure!(
        ended.stderr.contains("cannot attach to bridge0"),
        "{ended:?}"
    );
    ensure!(bed.links()? == links, "{:?}: {ended:?}", bed.links()?);
    // Each in the mode that it has got.
    bed.expect_xdp(&[Some(XdpMode::Native)])?;
    ensure!(bridge.xdp()? == Some(XdpMode::Generic));
    bed.send_copy(1, 1)?;
    let daemon = bed.run(&generic)?;
    wait_for_counts(&daemon, "drop duplicate 1, pass first 1")
}

fn a_mode_that_never_changes() -> Result<()> {
    let bed = Bed::new()?;
    let daemon = bed.run(PERSIST)?;
    let link = hold(&daemon, &bed.links()?[0])?;
    daemon.stop(Signal::SIGTERM)?;
    let ended = bed.xdp_dedup(&["run", "--persist", "-i", "server0", "--mode", "generic"])?;
    ensure!(ended.code == Some(1), "{ended:?}");
    for text in ["another process holds its link", "no filter stays on it"] {
        ensure!(ended.stderr.contains(text), "{ended:?}");
    }
    drop(link);
    Ok(())
}
