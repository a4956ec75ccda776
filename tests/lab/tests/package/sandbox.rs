//! What the unit leaves the service of root's power: no more than it says, and no more than it takes.

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use testbed::harness::trial;

use crate::server::Server;

const UNIT: &str = include_str!("../../../../xdp-dedup/package/xdp-dedup.service");

/// Exposure of the service as `systemd-analyze security` of systemd 252 rates it, from 0 (none) to 10.
const MOST_EXPOSED: f32 = 2.1;

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![trial(
        "the service runs with the capabilities of its unit and no others, in its sandbox",
        sandboxed,
    )];
    for capability in capabilities() {
        trials.push(trial(
            format!("without {capability} the service does not start, and says that it lacks"),
            move || without(capability),
        ));
    }
    trials
}

/// Those that the unit leaves.
fn capabilities() -> Vec<&'static str> {
    let mut lines = UNIT.lines();
    let set = lines.find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    set.unwrap_or_default().split_whitespace().collect()
}

fn sandboxed() -> Result<()> {
    let server = Server::at_work("")?;
    let pid = server.property("MainPID")?;
    let status = server.sh(&format!("cat /proc/{pid}/status"))?;
    let field = |name: &str| {
        let mut lines = status.lines();
        let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        found.with_context(|| format!("no {name} in {status}"))
    };
    // linux/capability.h
    let bit = |capability: &&str| match *capability {
        "CAP_NET_ADMIN" => 1 << 12,
        "CAP_PERFMON" => 1 << 38,
        "CAP_BPF" => 1 << 39,
        _ => 0_u64,
    };
    let expected: u64 = capabilities().iter().map(bit).sum();
    for set in ["CapBnd", "CapPrm", "CapEff"] {
        let found = u64::from_str_radix(field(set)?, 16)?;
        ensure!(found == expected, "{set}: {found:x}, not {expected:x}");
    }
    ensure!(field("NoNewPrivs")? == "1" && field("Seccomp")? == "2");

    // Its pins are on the machine's own BPF file system, which only root may enter.
    let place = server.sh("stat --format=%a%F /sys/fs/bpf; ls /sys/fs/bpf/xdp-dedup")?;
    ensure!(place.starts_with("1700directory\nnetns-"), "{place}");
    // What it sees of the rest it cannot write.
    let mounts = server.sh(&format!("cat /proc/{pid}/mountinfo"))?;
    for (path, options) in [
        ("/", "ro,"),
        ("/sys", "ro,"),
        ("/proc/sys", "ro,"),
        ("/sys/fs/bpf", "rw,"),
    ] {
        // The last one is on top.
        let mount = mounts
            .lines()
            .rfind(|line| line.split(' ').nth(4) == Some(path));
        let found = mount.and_then(|line| line.split(' ').nth(5));
        ensure!(
            found.is_some_and(|found| found.starts_with(options)),
            "{path}: {found:?} in {mounts}"
        );
    }

    let complaints =
        server.sh("systemd-analyze verify --man=no /usr/lib/systemd/system/xdp-dedup.service")?;
    ensure!(complaints.is_empty(), "{complaints}");
    let rated = server.sh("systemd-analyze --no-pager security xdp-dedup")?;
    let score = rated.split("xdp-dedup.service:").nth(1);
    let score = score.and_then(|rest| rest.split_whitespace().next());
    let score: f32 = score.context("no score")?.parse()?;
    ensure!(score <= MOST_EXPOSED, "{rated}");
    Ok(())
}

fn without(capability: &str) -> Result<()> {
    let server = Server::with_package()?;
    server.configure("")?;
    server.drop_in(&format!("CapabilityBoundingSet=~{capability}\nRestart=no"))?;
    server.sh("! systemctl start xdp-dedup")?;
    let log = server.journal("err")?;
    let complaint = format!("this process lacks {capability};");
    ensure!(log.contains(&complaint), "{log}");
    server.expect_nothing()
}
