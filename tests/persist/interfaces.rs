//! Which interfaces, and which network namespace, the next `run` takes over.

use std::path::Path;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use testbed::binary::binary;
use testbed::daemon::Daemon;
use testbed::namespace::Namespace;
use testbed::veth::{End, XdpMode, join};

use crate::Test;
use crate::bed::{Bed, counted, wait_for_counts, wait_for_log};
use crate::folder::{in_the_folder, notes, stop_and_log};

pub const TESTS: &[(&str, Test)] = &[
    (
        "an interface that is added gets counters of its own, whatever the order",
        an_interface_more,
    ),
    (
        "an interface that is no longer asked for is detached, said in the log",
        an_interface_less,
    ),
    (
        "a pin whose interface is gone is removed, also where another one has its index",
        interface_gone,
    ),
    ("a renamed interface is the same interface", renamed),
    ("each network namespace has pins of its own", two_namespaces),
    (
        "what a network namespace left that is gone is nothing to the one that has its number",
        namespace_gone,
    ),
];

const PERSIST: &[&str] = &["--persist"];

fn an_interface_more() -> Result<()> {
    let bed = Bed::with_cables(2)?;
    let daemon = bed.run(PERSIST)?;
    bed.send_pair(1)?;
    wait_for_counts(&daemon, "drop duplicate 1, pass first 1")?;
    daemon.stop(Signal::SIGTERM)?;
    let both = ["--persist", "-i", "server1", "-i", "server0"];
    let daemon = bed.run(&both)?;
    wait_for_counts(&daemon, "drop duplicate 1, pass first 1")?;
    ensure!(daemon.metrics()?.packets("server1").is_empty());
    // One table: a copy is one, whichever interface it comes in by.
    bed.send_copy(2, 0)?;
    wait_for_counts(&daemon, "drop duplicate 1, pass first 2")?;
    bed.senders[1].send(&crate::bed::copies(2)[1])?;
    let dropped = || -> Result<bool> {
        let packets = daemon.metrics()?.packets("server1");
        Ok(packets
            .into_iter()
            .eq([(("drop".to_owned(), "duplicate".to_owned()), 1)]))
    };
    while !dropped()? {
        ensure!(daemon.log().lines().count() < 1000);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let slots: Vec<_> = notes(&daemon)?
        .into_iter()
        .map(|(slot, note)| (slot, note.index))
        .collect();
    ensure!(
        slots == [(0, bed.ends[0].index()?), (1, bed.ends[1].index()?)],
        "{slots:?}"
    );
    ensure!(bed.links()?.len() == 2);
    Ok(())
}

fn an_interface_less() -> Result<()> {
    let bed = Bed::with_cables(2)?;
    let both = ["--persist", "-i", "server0", "-i", "server1"];
    let daemon = bed.run(&both)?;
    bed.send_pair(1)?;
    wait_for_counts(&daemon, "drop duplicate 1, pass first 1")?;
    daemon.stop(Signal::SIGTERM)?;
    let daemon = bed.run(&["--persist", "-i", "server1"])?;
    wait_for_log(&daemon, "detached: an earlier run left the filter there", 1)?;
    wait_for_log(&daemon, "server0", 1)?;
    bed.expect_xdp(&[None, Some(XdpMode::Native)])?;
    ensure!(bed.links()? == [format!("link-{}", bed.ends[1].index()?)]);
    let slots: Vec<_> = notes(&daemon)?.into_iter().map(|(slot, _)| slot).collect();
    ensure!(slots == [1], "{slots:?}");
    daemon.stop(Signal::SIGTERM)?;
    // Its counters begin anew when it comes back; the table knows the message.
    let daemon = bed.run(&both)?;
    ensure!(counted(&daemon.metrics()?).is_empty());
    bed.send_copy(1, 1)?;
    wait_for_counts(&daemon, "drop duplicate 1")
}

fn interface_gone() -> Result<()> {
    let bed = Bed::new()?;
    bed.run(PERSIST)?.stop(Signal::SIGTERM)?;
    let index = bed.ends[0].index()?;
    bed.server.ip("link del server0")?;
    ensure!(bed.links()?.len() == 1);
    for (number, again) in [index + 100, index].into_iter().enumerate() {
        bed.server.ip(&format!(
            "link add server0 index {again} type veth peer name other0"
        ))?;
        let daemon = bed.run(PERSIST)?;
        if number == 0 {
            let text = format!("interface {index} is gone: its pin is removed");
            wait_for_log(&daemon, &text, 1)?;
        }
        wait_for_log(&daemon, " attached", 1)?;
        ensure!(
            bed.links()? == [format!("link-{again}")],
            "{:?}",
            bed.links()?
        );
        ensure!(notes(&daemon)?.len() == 1);
        daemon.stop(Signal::SIGKILL)?;
        bed.server.ip("link del server0")?;
        // The index, of another interface.
        if number == 0 {
            bed.server
                .ip(&format!("link add other1 index {again} type bridge"))?;
        }
    }
    let nothing_pinned = || -> Result<()> {
        let left = bed.pins.list(&bed.server)?;
        ensure!(left.is_empty(), "left: {left}");
        Ok(())
    };
    let ended = bed.xdp_dedup(&["detach", "--all"])?;
    ensure!(
        ended.stdout == format!("interface {index}: gone before\n"),
        "{ended:?}"
    );
    nothing_pinned()?;
    // While it runs, and leaves.
    bed.server
        .ip("link add server0 type veth peer name other0")?;
    let daemon = bed.run(PERSIST)?;
    bed.server.ip("link del server0")?;
    let log = stop_and_log(daemon, Signal::SIGTERM)?;
    ensure!(log.contains("gone before"), "{log}");
    nothing_pinned()
}

fn renamed() -> Result<()> {
    let bed = Bed::new()?;
    let daemon = bed.run(PERSIST)?;
    bed.send_copy(1, 0)?;
    wait_for_counts(&daemon, "pass first 1")?;
    daemon.stop(Signal::SIGTERM)?;
    bed.server.ip("link set server0 down")?;
    bed.server.ip("link set server0 name dhcp0 up")?;
    let daemon = bed.run(&["--persist", "-i", "dhcp0"])?;
    wait_for_log(&daemon, "taken over", 1)?;
    let packets = daemon.metrics()?.packets("dhcp0");
    ensure!(packets.len() == 1, "{packets:?}");
    Ok(())
}

fn two_namespaces() -> Result<()> {
    let bed = Bed::new()?;
    let other = Namespace::new("other")?;
    let end = End::new(&other, "server0", [2, 0, 0, 0, 1, 1]);
    join(&end, &End::new(&other, "relay0", [2, 0, 0, 0, 1, 2]))?;
    let arguments = ["-i", "server0", "--persist"];
    // At the same time.
    let first = bed.run(PERSIST)?;
    let second = Daemon::start_on(&bed.pins, &binary()?, &other, &arguments)?;
    bed.send_copy(1, 0)?;
    wait_for_counts(&first, "pass first 1")?;
    ensure!(counted(&second.metrics()?).is_empty());
    first.stop(Signal::SIGTERM)?;
    second.stop(Signal::SIGTERM)?;
    let ended = bed.xdp_dedup(&["detach", "--all"])?;
    ensure!(ended.stdout == "server0: detached\n", "{ended:?}");
    bed.expect_xdp(&[None])?;
    ensure!(end.xdp()? == Some(XdpMode::Native));
    let second = Daemon::start_on(&bed.pins, &binary()?, &other, &arguments)?;
    wait_for_log(&second, "taken over", 1)?;
    Ok(())
}

fn namespace_gone() -> Result<()> {
    let bed = Bed::new()?;
    let other = Namespace::new("other")?;
    // The interfaces have the same index in both.
    let end = End::new(&other, "server0", [2, 0, 0, 0, 1, 1]);
    join(&end, &End::new(&other, "relay0", [2, 0, 0, 0, 1, 2]))?;
    let daemon = bed.run(&[])?;
    bed.send_copy(1, 0)?;
    wait_for_counts(&daemon, "pass first 1")?;
    daemon.stop(Signal::SIGKILL)?;
    let inode = other
        .command(Path::new("stat"))
        .args(["-L", "-c", "%i", "/proc/self/ns/net"])
        .output()?;
    let inode = String::from_utf8(inode.stdout)?;
    in_the_folder(&bed, &format!("mv $PWD ../netns-{inode}"))?;
    let arguments = ["-i", "server0"];
    let daemon = Daemon::start_on(&bed.pins, &binary()?, &other, &arguments)?;
    wait_for_log(&daemon, "of a network namespace that is gone", 1)?;
    ensure!(counted(&daemon.metrics()?).is_empty());
    Ok(())
}
