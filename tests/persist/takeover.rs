//! What the next `run` takes over, what it does not, and what it says.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::{fs, io};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use testbed::binary::binary;
use testbed::daemon::Daemon;
use testbed::veth::XdpMode;
use xdp_dedup::maps::NAMES;
use xdp_dedup_common::interface::InterfaceNote;

use crate::Test;
use crate::bed::{Bed, counted, program, wait_for_counts, wait_for_log};
use crate::folder::{in_the_folder, notes, stop_and_log};
use crate::stream::Stream;

pub const TESTS: &[(&str, Test)] = &[
    (
        "--persist leaves the filter at the end, and says so and how to remove it",
        leaves_the_filter,
    ),
    (
        "the next run has the memory, the counters and the start of the one before",
        memory,
    ),
    (
        "without --persist the next run takes over all the same, and takes the filter with it",
        without_persist,
    ),
    (
        "persist = true in the file does as the flag does",
        key_in_the_file,
    ),
    (
        "killed without --persist, it leaves its memory to the next run",
        killed_without_persist,
    ),
    (
        "another --capacity begins a fresh table, says so, and loses no first copy",
        another_capacity,
    ),
    (
        "maps of another layout are not touched, said in the log, and go when all is done",
        another_layout,
    ),
    (
        "a pin that is missing, or a map of another kind, begins a fresh table",
        unusable_maps,
    ),
    (
        "a foreign program is refused, and what was there goes on",
        foreign_program,
    ),
    (
        "where the program cannot be loaded, the one before goes on under its policy",
        cannot_load,
    ),
    (
        "where the program's log cannot be read, the one before goes on",
        cannot_trace,
    ),
    (
        "a second run is refused, and the first one goes on",
        second_run,
    ),
];

const PERSIST: &[&str] = &["--persist"];

fn leaves_the_filter() -> Result<()> {
    let bed = Bed::new()?;
    let daemon = bed.run(PERSIST)?;
    let mut expected = vec!["".to_owned(), "layout-2".to_owned()];
    expected.extend(NAMES.map(|name| format!("layout-2/{name}")));
    expected.push(format!("link-{}", bed.ends[0].index()?));
    expected.sort();
    let pinned = || -> Result<Vec<String>> {
        let list = bed.pins.list(&bed.server)?;
        let below = |line: &str| {
            let (_, rest) = line
                .strip_prefix("xdp-dedup/netns-")?
                .split_once('/')
                .unzip();
            Some(rest.unwrap_or_default().to_owned())
        };
        Ok(list.lines().filter_map(below).collect())
    };
    ensure!(pinned()? == expected, "{:?}", pinned()?);
    let log = stop_and_log(daemon, Signal::SIGTERM)?;
    ensure!(log.contains("the filter stays"), "{log}");
    ensure!(log.contains("`xdp-dedup detach --all` detaches"), "{log}");
    ensure!(pinned()? == expected, "{:?}", pinned()?);
    bed.expect_xdp(&[Some(XdpMode::Native)])?;
    ensure!(bed.detach_all()? == "server0: detached\n");
    Ok(())
}

fn memory() -> Result<()> {
    let bed = Bed::new()?;
    let daemon = bed.run(PERSIST)?;
    bed.send_copy(1, 0)?;
    bed.send_copy(2, 0)?;
    wait_for_counts(&daemon, "pass first 2")?;
    let before = notes(&daemon)?;
    ensure!(before.len() == 1 && before[0].1.index == bed.ends[0].index()?);
    let (id, tag) = program(&daemon)?;
    ensure!(before[0].1.program_id.to_string() == id, "{before:?}");
    ensure!(
        format!("{:016x}", before[0].1.program_tag) == tag,
        "{before:?}"
    );
    daemon.stop(Signal::SIGKILL)?;

    // While nobody is there, the filter counts on.
    bed.send_copy(1, 1)?;
    let daemon = bed.run(PERSIST)?;
    wait_for_counts(&daemon, "drop duplicate 1, pass first 2")?;
    bed.send_copy(2, 1)?;
    wait_for_counts(&daemon, "drop duplicate 2, pass first 2")?;
    let after = notes(&daemon)?;
    let expected = InterfaceNote {
        program_id: program(&daemon)?.0.parse()?,
        ..before[0].1
    };
    ensure!(
        after == [(before[0].0, expected)],
        "{before:?}, then {after:?}"
    );
    ensure!(after != before, "the same program");
    Ok(())
}

fn without_persist() -> Result<()> {
    let bed = Bed::new()?;
    let first = bed.run(PERSIST)?;
    bed.send_copy(1, 0)?;
    wait_for_counts(&first, "pass first 1")?;
    first.stop(Signal::SIGTERM)?;
    for end in [Signal::SIGKILL, Signal::SIGTERM] {
        let daemon = bed.run(&[])?;
        bed.send_copy(1, 1)?;
        if end == Signal::SIGKILL {
            wait_for_log(&daemon, "taken over", 1)?;
            wait_for_counts(&daemon, "drop duplicate 1, pass first 1")?;
        }
        ensure!(bed.links()?.is_empty(), "{:?}", bed.links()?);
        daemon.stop(end)?;
        bed.expect_xdp(&[None])?;
    }
    bed.expect_nothing()
}

fn key_in_the_file() -> Result<()> {
    let bed = Bed::new()?;
    let file = tempfile::NamedTempFile::new()?;
    fs::write(&file, "persist = true\n")?;
    let path = file.path().to_string_lossy().into_owned();
    let daemon = bed.run(&["--config", &path])?;
    ensure!(bed.links()?.len() == 1);
    daemon.stop(Signal::SIGTERM)?;
    ensure!(bed.links()?.len() == 1);
    // The command line wins.
    let daemon = bed.run(&["--config", &path, "--persist=false"])?;
    ensure!(bed.links()?.is_empty());
    daemon.stop(Signal::SIGTERM)?;
    bed.expect_nothing()
}

fn killed_without_persist() -> Result<()> {
    let bed = Bed::new()?;
    let daemon = bed.run(&[])?;
    bed.send_copy(1, 0)?;
    wait_for_counts(&daemon, "pass first 1")?;
    daemon.stop(Signal::SIGKILL)?;
    bed.expect_xdp(&[None])?;
    let daemon = bed.run(&[])?;
    wait_for_log(&daemon, " attached", 1)?;
    bed.send_copy(1, 1)?;
    wait_for_counts(&daemon, "drop duplicate 1, pass first 1")?;
    daemon.stop(Signal::SIGKILL)?;
    ensure!(bed.detach_all()? == "nothing is attached\n");
    Ok(())
}

fn another_capacity() -> Result<()> {
    let mut bed = Bed::new()?;
    let daemon = bed.run(PERSIST)?;
    let stream = Stream::start(bed.senders.remove(0), &bed.ends[0])?;
    daemon.stop(Signal::SIGTERM)?;
    let daemon = bed.run(&["--persist", "--capacity", "4096"])?;
    wait_for_log(
        &daemon,
        "the table and the counters start anew: --capacity is 4096, and was 65536",
        1,
    )?;
    wait_for_log(&daemon, "taken over, without a gap", 1)?;
    let capacity = daemon.metrics()?.value("xdp_dedup_table_capacity", &[]);
    ensure!(capacity == Some(4096.0), "{capacity:?}");
    stream.wait_for(100)?;
    let outcome = stream.finish()?;
    ensure!(outcome.lost.is_empty(), "lost: {:?}", outcome.lost);
    // The pair between whose copies the tables changed.
    ensure!(outcome.doubled.len() <= 1, "doubled: {:?}", outcome.doubled);
    // The one after this has the new table.
    let counts = counted(&daemon.metrics()?);
    daemon.stop(Signal::SIGTERM)?;
    let daemon = bed.run(&["--persist", "--capacity", "4096"])?;
    wait_for_log(&daemon, "taken over", 1)?;
    ensure!(!daemon.log().contains("anew"), "{}", daemon.log());
    ensure!(counted(&daemon.metrics()?) == counts);
    Ok(())
}

fn another_layout() -> Result<()> {
    let bed = Bed::new()?;
    bed.run(PERSIST)?.stop(Signal::SIGTERM)?;
    in_the_folder(&bed, "mv layout-2 layout-0; mkdir layout-0-new")?;
    // What fails leaves the other version's pins.
    let refused = bed.xdp_dedup(&["run", "-i", "server0", "--metrics", "192.0.2.1:1"])?;
    ensure!(refused.code == Some(1), "{refused:?}");
    ensure!(bed.pins.list(&bed.server)?.contains("layout-0/TABLE"));
    let daemon = bed.run(PERSIST)?;
    wait_for_log(
        &daemon,
        "the table and the counters start anew: its layout is 2, and was 0",
        1,
    )?;
    wait_for_log(&daemon, "taken over, without a gap", 1)?;
    let list = bed.pins.list(&bed.server)?;
    ensure!(!list.contains("layout-0"), "{list}");
    bed.send_pair(1)?;
    wait_for_counts(&daemon, "drop duplicate 1, pass first 1")?;
    daemon.stop(Signal::SIGTERM)?;
    // And a filter of another version goes, too.
    in_the_folder(&bed, "mv layout-2 layout-7")?;
    ensure!(bed.detach_all()? == "server0: detached\n");
    Ok(())
}

fn unusable_maps() -> Result<()> {
    let bed = Bed::new()?;
    for (damage, reason) in [
        ("rm layout-2/RELAYS", "layout-2/RELAYS is missing"),
        (
            "mv layout-2/POLICY layout-2/TABLE",
            "layout-2/TABLE is of another kind (Array, ",
        ),
        (
            // What was begun, and not finished.
            "mkdir layout-2-new layout-2-old; mv layout-2/TABLE layout-2-new; rm layout-2/TRUSTED",
            "layout-2/TABLE is missing",
        ),
    ] {
        bed.run(PERSIST)?.stop(Signal::SIGTERM)?;
        in_the_folder(&bed, damage)?;
        let daemon = bed.run(PERSIST)?;
        for text in ["start anew: the map ", reason, "taken over, without a gap"] {
            wait_for_log(&daemon, text, 1).context(damage)?;
        }
        bed.send_pair(1)?;
        wait_for_counts(&daemon, "drop duplicate 1, pass first 1")?;
        let list = bed.pins.list(&bed.server)?;
        let names = list.lines().filter(|line| line.contains("layout")).count();
        ensure!(names == 1 + NAMES.len(), "{damage}: {list}");
        daemon.stop(Signal::SIGTERM)?;
        bed.detach_all()?;
    }
    Ok(())
}

fn foreign_program() -> Result<()> {
    let bed = Bed::with_cables(2)?;
    let daemon = bed.run(PERSIST)?;
    let before = program(&daemon)?;
    daemon.stop(Signal::SIGTERM)?;
    // Another one, whose pins nobody here sees.
    let foreign = Daemon::start(&binary()?, &bed.server, &["-i", "server1"])?;
    let both = ["run", "-i", "server0", "-i", "server1", "--metrics", "off"];
    let ended = bed.xdp_dedup(&both)?;
    ensure!(ended.code == Some(1), "{ended:?}");
    ensure!(
        ended.stderr.contains("server1 already has an XDP program"),
        "{ended:?}"
    );
    drop(foreign);
    let shown = bed.server.ip("link show dev server0")?;
    ensure!(
        shown.contains(&format!("prog/xdp id {} ", before.0)),
        "{shown}"
    );
    let daemon = bed.run(PERSIST)?;
    wait_for_log(&daemon, "taken over", 1)?;
    Ok(())
}

fn cannot_load() -> Result<()> {
    let bed = Bed::new()?;
    let daemon = bed.run(PERSIST)?;
    let before = program(&daemon)?;
    daemon.stop(Signal::SIGTERM)?;
    for (capabilities, arguments) in [
        // Enough for the maps, but not for the program.
        ("-all,+bpf,+perfmon", &["--observe"][..]),
        // For nothing.
        ("-all", &[]),
        // Fresh maps, and then no program for them.
        ("-all,+bpf,+perfmon", &["--capacity", "4096"]),
    ] {
        let output = bed
            .command(Path::new("setpriv"))
            .args([
                &format!("--bounding-set={capabilities}"),
                &format!("--inh-caps={capabilities}"),
            ])
            .arg(binary()?)
            .args(["run", "-i", "server0", "--persist"])
            .args(arguments)
            .output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{stderr}");
        ensure!(stderr.contains("this process lacks "), "{stderr}");
        let shown = bed.server.ip("link show dev server0")?;
        ensure!(
            shown.contains(&format!("prog/xdp id {} ", before.0)),
            "{shown}"
        );
        let list = bed.pins.list(&bed.server)?;
        ensure!(list.lines().count() == 4 + NAMES.len(), "{list}");
        bed.send_pair(1)?;
    }
    let daemon = bed.run(PERSIST)?;
    wait_for_counts(&daemon, "drop duplicate 5, pass first 1")
}

fn cannot_trace() -> Result<()> {
    let bed = Bed::new()?;
    let daemon = bed.run(PERSIST)?;
    let before = program(&daemon)?;
    daemon.stop(Signal::SIGTERM)?;
    let mut command = bed.command(&binary()?);
    command.args(["run", "-i", "server0", "--persist", "--trace", "--observe"]);
    let filter = without_shared_memory()?;
    // SAFETY: between fork and exec this makes system calls only.
    unsafe {
        command.pre_exec(move || seccompiler::apply_filter(&filter).map_err(io::Error::other));
    }
    let output = command.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{stderr}");
    ensure!(
        stderr.contains("cannot read the kernel program's log"),
        "{stderr}"
    );
    let shown = bed.server.ip("link show dev server0")?;
    ensure!(
        shown.contains(&format!("prog/xdp id {} ", before.0)),
        "{shown}"
    );
    // Under its policy, too.
    bed.send_pair(1)?;
    let daemon = bed.run(PERSIST)?;
    wait_for_counts(&daemon, "drop duplicate 1, pass first 1")
}

/// Refuses to map memory that others see, such as a ring buffer's.
fn without_shared_memory() -> Result<BpfProgram> {
    const FLAGS: u8 = 3;
    let shared = libc::MAP_SHARED as u64;
    let is_shared = SeccompCondition::new(
        FLAGS,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(shared),
        shared,
    )?;
    let rules = [(libc::SYS_mmap, vec![SeccompRule::new(vec![is_shared])?])];
    let filter = SeccompFilter::new(
        rules.into(),
        SeccompAction::Allow,
        SeccompAction::Errno(Errno::EPERM as u32),
        std::env::consts::ARCH.try_into()?,
    )?;
    Ok(filter.try_into()?)
}

fn second_run() -> Result<()> {
    let bed = Bed::with_cables(2)?;
    let daemon = bed.run(PERSIST)?;
    for interface in ["server0", "server1"] {
        let ended = bed.xdp_dedup(&["run", "-i", interface, "--metrics", "off"])?;
        ensure!(ended.code == Some(1), "{ended:?}");
        ensure!(
            ended.stderr.contains(&format!(
                "another xdp-dedup (process {}) is at work",
                daemon.pid()
            )),
            "{ended:?}"
        );
    }
    bed.expect_xdp(&[Some(XdpMode::Native), None])?;
    bed.send_pair(1)?;
    wait_for_counts(&daemon, "drop duplicate 1, pass first 1")
}
