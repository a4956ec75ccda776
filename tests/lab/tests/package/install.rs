//! Installing, upgrading and removing.

use anyhow::{Result, ensure};

use crate::Test;
use crate::package;
use crate::server::{By, Server};

pub const TESTS: &[(&str, Test)] = &[
    (
        "an installation enables and starts nothing, and the command works",
        starts_nothing,
    ),
    (
        "an upgrade restarts the service without a gap, and keeps the configuration",
        upgrade,
    ),
    (
        "an upgrade starts no service that is stopped",
        upgrade_while_stopped,
    ),
    (
        "a removal takes off the filter of a service at work",
        removal_at_work,
    ),
    (
        "a removal takes off the filter that a stopped service left",
        removal_after_persist,
    ),
];

fn starts_nothing() -> Result<()> {
    let server = Server::with_package()?;
    let enabled = server.sh("systemctl is-enabled xdp-dedup || true")?;
    ensure!(enabled.trim() == "disabled", "{enabled}");
    ensure!(server.property("ActiveState")? == "inactive");
    server.expect_nothing()?;

    let version = server.sh("xdp-dedup --version")?;
    let expected = concat!("xdp-dedup ", env!("CARGO_PKG_VERSION"));
    ensure!(version.trim() == expected, "{version}");

    const CAPTURE: &str = "01-tworelays-dhclient-server.pcap";
    let capture = package::checkout().join("tests/captures").join(CAPTURE);
    server.write("/var/tmp/capture.pcap", std::fs::read(capture)?)?;
    for engine in ["kernel", "userspace"] {
        let replayed = server.sh(&format!(
            "xdp-dedup replay --engine {engine} /var/tmp/capture.pcap"
        ))?;
        ensure!(
            replayed.contains("8 frames: 6 passed, 2 dropped\n"),
            "{engine}: {replayed}"
        );
    }
    let checked = server.sh("xdp-dedup check -i server0")?;
    ensure!(!checked.contains("fail"), "{checked}");
    server.expect_nothing()
}

fn upgrade() -> Result<()> {
    let server = Server::at_work("persist = true\n")?;
    let before = server.property("MainPID")?;
    server.send(1, By::A)?;
    server.until_counted("pass first 1")?;

    server.make_version("99.0", "/var/tmp/newer.deb")?;
    server.install("/var/tmp/newer.deb")?;
    ensure!(server.property("ActiveState")? == "active");
    ensure!(server.property("MainPID")? != before, "not restarted");
    let read = server.sh("cat /etc/xdp-dedup.toml")?;
    ensure!(read.contains("persist = true"), "{read}");
    // A memory that had a gap would not know its twin.
    server.send(1, By::B)?;
    server.until_counted("drop duplicate 1, pass first 1")
}

fn upgrade_while_stopped() -> Result<()> {
    let server = Server::with_package()?;
    server.configure("")?;
    server.make_version("99.0", "/var/tmp/newer.deb")?;
    server.install("/var/tmp/newer.deb")?;
    ensure!(server.property("ActiveState")? == "inactive");
    server.expect_nothing()
}

fn removal_at_work() -> Result<()> {
    let server = Server::at_work("persist = true\n")?;
    ensure!(server.is_attached()?);
    remove(&server)
}

fn removal_after_persist() -> Result<()> {
    let server = Server::at_work("persist = true\n")?;
    server.sh("systemctl stop xdp-dedup")?;
    ensure!(server.is_attached()?, "with persist it stays");
    remove(&server)
}

fn remove(server: &Server) -> Result<()> {
    server.sh("dpkg --remove xdp-dedup")?;
    server.expect_nothing()?;
    ensure!(server.property("ActiveState")? == "inactive");
    server.sh("test ! -e /usr/bin/xdp-dedup && test -e /etc/xdp-dedup.toml")?;
    server.sh("dpkg --purge xdp-dedup && test ! -e /etc/xdp-dedup.toml")?;
    Ok(())
}
