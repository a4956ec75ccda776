//! The service under systemd.

use anyhow::{Result, ensure};

use crate::Test;
use crate::server::{By, Server};

pub const TESTS: &[(&str, Test)] = &[
    (
        "the service filters, and a shell beside it sees its pins and its log",
        filters,
    ),
    (
        "the service takes a new policy at a reload, and keeps the old one where the file is bad",
        reload,
    ),
    (
        "the service does not start without an interface, and says so once",
        no_interface,
    ),
    (
        "the service starts by itself when its interface comes late",
        late_interface,
    ),
    (
        "a restart of the service with persist forgets nothing",
        restart,
    ),
    ("a stop of the service without persist leaves nothing", stop),
    ("the watchdog starts a service anew that hangs", watchdog),
];

fn filters() -> Result<()> {
    let server = Server::at_work("")?;
    server.send_pair(1)?;
    server.until_counted("drop duplicate 1, pass first 1")?;
    let status = server.sh("xdp-dedup status")?;
    let pid = server.property("MainPID")?;
    ensure!(
        status.contains("server0    native  yes")
            && status.contains(&format!("running, process {pid}\n")),
        "{status}"
    );
    // The journal knows the time; colours are for terminals.
    let log = server.journal("info")?;
    let attached = " INFO attached interface=\"server0\" mode=native";
    ensure!(
        log.lines().any(|line| line.starts_with(attached)) && !log.contains('\u{1b}'),
        "{log}"
    );
    let warned = server.journal("warning")?;
    ensure!(
        warned.lines().count() == 1 && warned.starts_with(" WARN a window of over 250 ms"),
        "{warned}"
    );
    Ok(())
}

fn reload() -> Result<()> {
    let server = Server::at_work("")?;
    server.configure("observe = true\n")?;
    server.sh("systemctl reload xdp-dedup")?;
    server.until_it("policy read again", || {
        Ok(server
            .journal("info")?
            .contains("policy read again changed=true"))
    })?;
    server.send_pair(1)?;
    server.until_counted("pass first 1, would_drop duplicate 1")?;

    server.configure("observe = maybe\n")?;
    server.sh("systemctl reload xdp-dedup")?;
    server.until_it("a complaint", || {
        let complaint = "the policy stays as it was: /etc/xdp-dedup.toml, line 3";
        Ok(server.journal("err")?.contains(complaint))
    })?;
    ensure!(server.property("ActiveState")? == "active");
    server.send(1, By::B)?;
    server.until_counted("pass first 1, would_drop duplicate 2")
}

fn no_interface() -> Result<()> {
    let server = Server::with_package()?;
    server.sh("! systemctl start xdp-dedup")?;
    ensure!(server.property("SubState")? == "failed");
    ensure!(server.property("NRestarts")? == "0");
    let log = server.journal("err")?;
    ensure!(
        log.matches("no interface to attach to: ").count() == 1
            && log.contains("xdp-dedup: /etc/xdp-dedup.toml: no interface"),
        "{log}"
    );
    server.expect_nothing()
}

fn late_interface() -> Result<()> {
    let server = Server::with_package()?;
    server.drop_in("RestartSec=200ms")?;
    server.write(
        "/etc/xdp-dedup.toml",
        "interface = \"late0\"\nmetrics = \"off\"\n",
    )?;
    server.sh("! systemctl start xdp-dedup")?;
    let log = server.journal("err")?;
    ensure!(log.contains("there is no interface late0 here"), "{log}");
    server.sh("ip link add late0 type veth peer name late1")?;
    server.until("ActiveState", "active")
}

fn restart() -> Result<()> {
    let server = Server::at_work("persist = true\n")?;
    server.send(1, By::A)?;
    server.until_counted("pass first 1")?;
    server.sh("systemctl restart xdp-dedup")?;
    server.send(1, By::B)?;
    server.until_counted("drop duplicate 1, pass first 1")
}

fn stop() -> Result<()> {
    let server = Server::at_work("")?;
    ensure!(server.is_attached()?);
    server.sh("systemctl stop xdp-dedup")?;
    ensure!(server.property("Result")? == "success");
    server.expect_nothing()
}

fn watchdog() -> Result<()> {
    let server = Server::with_package()?;
    server.drop_in("WatchdogSec=2s\nRestartSec=100ms")?;
    server.configure("")?;
    server.sh("systemctl start xdp-dedup")?;
    let asked = server.property("WatchdogUSec")?;
    ensure!(asked == "2s", "{asked}");
    let pid = server.property("MainPID")?;
    let mut fed = server.property("WatchdogTimestampMonotonic")?;
    for _ in 0..3 {
        let now = || server.property("WatchdogTimestampMonotonic");
        server.until_it("fed again", || Ok(now()? != fed))?;
        fed = now()?;
    }
    ensure!(server.property("MainPID")? == pid, "it is not fed");

    server.sh(&format!("kill -STOP {pid}"))?;
    server.until("NRestarts", "1")?;
    server.until("ActiveState", "active")?;
    let log = server.sh("journalctl --sync; journalctl --output cat")?;
    ensure!(log.contains("Watchdog timeout"), "{log}");
    server.send_pair(1)?;
    server.until_counted("drop duplicate 1, pass first 1")
}
