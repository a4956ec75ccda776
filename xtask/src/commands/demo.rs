//! `cargo xtask demo`: plays the reported situation in real time over a veth of its own, without
//! the filter and with it, and shows beside one another what reached the server's socket. It fails
//! where the numbers are not what they must be. Without root it shows the same traffic through the
//! same decision code, as a capture.

mod bed;
mod outcome;
mod paper;
mod scene;
mod table;

use std::io;

use anyhow::{Result, bail};

use crate::commands::build;
use crate::workspace;
use bed::Bed;
use outcome::Comparison;
use scene::Scene;

const REACHED: &str =
    "Every message reached the server, and none reached it twice without a reason.";
const WOULD_REACH: &str =
    "The decision lets every message through, and none twice without a reason.";

/// Builds, then shows.
pub fn run() -> Result<()> {
    build::run()?;
    println!(
        "Two relays stand on a link, so a DHCPv6 server gets every client's message twice, \
         microseconds apart.\n\
         xdp-dedup drops the second copy at the server's NIC: the same traffic without it, then \
         with it.\n"
    );
    let scene = Scene::new();
    println!("{}\n", scene.description());
    let (comparison, conclusion) = match Bed::new() {
        Ok(bed) => (over_veth(&bed, &scene)?, REACHED),
        Err(error) if is_not_permitted(&error) => (on_paper(&scene)?, WOULD_REACH),
        Err(error) => return Err(error),
    };
    // After the table: what is wrong is easier to see there.
    let complaints = comparison.complaints(&scene);
    if !complaints.is_empty() {
        bail!(
            "the numbers are not as they must be: {}",
            complaints.join("; ")
        );
    }
    println!("\n{conclusion}");
    Ok(())
}

fn is_not_permitted(error: &anyhow::Error) -> bool {
    let cause: Option<&io::Error> = error.downcast_ref();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
}

fn over_veth(bed: &Bed, scene: &Scene) -> Result<Comparison> {
    println!(
        "In two network namespaces joined by a veth, away from this machine's own network:\n\
         the relays' side sends, a plain UDP socket on port 547 receives.\n"
    );
    let without = bed.play(scene, "1/2 without the filter")?;
    let (with, exporter) =
        bed.play_filtered(scene, "2/2 with xdp-dedup", &workspace::release_binary())?;
    println!("      {}\n", without.gaps());
    let comparison = Comparison {
        without,
        with,
        counters: exporter.counters,
    };
    table::show(scene, &comparison, "delivered to the server's socket");
    println!("\nIts exporter's own words, http://[::1]:9757/metrics:");
    for line in exporter.lines {
        println!("  {line}");
    }
    Ok(comparison)
}

fn on_paper(scene: &Scene) -> Result<Comparison> {
    println!(
        "Not shown, because only root may make network namespaces and load XDP programs: the \
         kernel program\nat a NIC, a real socket, and the exporter. Instead the same frames go, \
         as a capture, through the same\ndecision code: `xdp-dedup replay --engine userspace`. \
         For the rest:\n\
         sudo -E env \"PATH=$PATH\" cargo xtask demo\n"
    );
    let comparison = paper::compare(scene, &workspace::release_binary())?;
    table::show(scene, &comparison, "let through to the server");
    Ok(comparison)
}
