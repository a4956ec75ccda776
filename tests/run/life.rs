//! What `run` does between its start and its end.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use libtest_mimic::Trial;
use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
    sys::signal::Signal,
};
use testbed::{
    binary::binary,
    daemon::Daemon,
    frame::{ClientMessage, message_type, relayed, reported, reported_pair},
    harness::{needs_root, trial},
    namespace::Namespace,
    sender::Sender,
    veth::{End, join},
};
use xdp_dedup_common::{Reason, counters::GAP_BOUNDS};

/// What a trial runs.
type Test = fn() -> Result<()>;

pub fn trials() -> Vec<Trial> {
    let tests: &[(&str, Test)] = &[
        (
            "counts each reason and verdict from zero, and nothing else",
            series_start_at_zero,
        ),
        (
            "serves metrics that promtool finds nothing wrong with",
            promtool,
        ),
        (
            "serves /metrics and /healthz beside clients that send nothing",
            slow_clients,
        ),
        (
            "takes a new policy at SIGHUP, without forgetting or reattaching",
            reload,
        ),
        (
            "keeps the running policy when the file is bad at SIGHUP",
            bad_reload,
        ),
        (
            "lets the command line win over the file, also at SIGHUP",
            command_line_wins,
        ),
        (
            "tells its service manager when it is ready, reloads and stops",
            service_manager,
        ),
        (
            "says so when the interface goes away, and still ends well",
            interface_goes,
        ),
        (
            "says each time that the interface goes away, and each time that it comes back",
            interface_comes_and_goes,
        ),
        (
            "serves while nobody reads what --trace logs",
            nobody_reads_the_trace,
        ),
    ];
    tests
        .iter()
        .map(|&(name, test)| {
            let without_promtool = name.contains("promtool") && !has_promtool();
            let trial = needs_root(trial(name, test));
            if without_promtool {
                eprintln!("the test with promtool is skipped: there is no promtool");
                return trial.with_ignored_flag(true);
            }
            trial
        })
        .collect()
}

fn has_promtool() -> bool {
    let mut promtool = Command::new("promtool");
    promtool
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    promtool.status().is_ok_and(|status| status.success())
}

/// A server's interface with frames coming in.
struct Bed {
    here: Namespace,
    end: End,
    sender: Sender,
}

impl Bed {
    fn new() -> Result<Self> {
        let (here, there) = (Namespace::new("server")?, Namespace::new("relays")?);
        let end = End::new(&here, "server0", [2, 0, 0, 0, 0, 1]);
        let other = End::new(&there, "relay0", [2, 0, 0, 0, 0, 2]);
        join(&end, &other)?;
        let sender = Sender::new(&other)?;
        Ok(Self { here, end, sender })
    }

    fn run(&self, arguments: &[&str]) -> Result<Daemon> {
        let all = [&["-i", "server0"], arguments].concat();
        Daemon::start(&binary()?, &self.here, &all)
    }

    fn send_reported_pair(&self) -> Result<()> {
        for frame in reported_pair() {
            self.sender.send(&frame.bytes())?;
        }
        Ok(())
    }
}

/// Waits until `daemon` has counted so many frames for a reason and verdict; all of veth's work is
/// done by then or soon after.
fn wait_for(daemon: &Daemon, verdict: &str, reason: &str, frames: f64) -> Result<()> {
    let labels = [
        format!("verdict=\"{verdict}\""),
        format!("reason=\"{reason}\""),
    ];
    let labels: Vec<_> = labels.iter().map(String::as_str).collect();
    let start = Instant::now();
    loop {
        let counted = daemon.metrics()?.value("xdp_dedup_packets_total", &labels);
        if counted == Some(frames) {
            return Ok(());
        }
        ensure!(
            start.elapsed() < Duration::from_secs(5),
            "{verdict} {reason}: {counted:?}, not {frames}: {}",
            daemon.log()
        );
        thread::sleep(Duration::from_millis(5));
    }
}

fn wait_for_log(daemon: &Daemon, text: &str) -> Result<()> {
    wait_for_log_times(daemon, text, 1)
}

fn wait_for_log_times(daemon: &Daemon, text: &str, times: usize) -> Result<()> {
    let start = Instant::now();
    while daemon.log().matches(text).count() < times {
        ensure!(
            start.elapsed() < Duration::from_secs(5),
            "not {times} times {text:?} in {}",
            daemon.log()
        );
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn series_start_at_zero() -> Result<()> {
    let bed = Bed::new()?;
    let daemon = bed.run(&[])?;
    let metrics = daemon.metrics()?;
    for name in ["xdp_dedup_packets_total", "xdp_dedup_bytes_total"] {
        let mut expected: Vec<_> = Reason::ALL
            .iter()
            .filter(|&&reason| reason != Reason::NotDhcp)
            .flat_map(|reason| {
                reason
                    .verdicts()
                    .iter()
                    .map(move |verdict| (reason, verdict))
            })
            .map(|(reason, verdict)| {
                let (reason, verdict) = (reason.name(), verdict.name());
                format!(
                    "{name}{{interface=\"server0\",verdict=\"{verdict}\",reason=\"{reason}\"}} 0"
                )
            })
            .collect();
        let mut found: Vec<_> = metrics.lines(name).map(str::to_owned).collect();
        expected.sort();
        found.sort();
        ensure!(found == expected, "{found:#?}");
    }
    let buckets = metrics
        .lines("xdp_dedup_duplicate_gap_seconds_bucket")
        .count();
    ensure!(buckets == GAP_BOUNDS.len() + 1, "{buckets} buckets");
    for (name, labels, expected) in [
        ("xdp_dedup_table_entries", vec![], 0.0),
        ("xdp_dedup_table_capacity", vec![], 65536.0),
        ("xdp_dedup_window_seconds", vec![], 0.2),
        (
            "xdp_dedup_attached",
            vec!["interface=\"server0\"", "mode=\"native\""],
            1.0,
        ),
        (
            "xdp_dedup_build_info",
            vec![concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"")],
            1.0,
        ),
        (
            "xdp_dedup_program_info",
            vec!["interface=\"server0\"", "id=", "tag="],
            1.0,
        ),
    ] {
        let value = metrics.value(name, &labels);
        ensure!(value == Some(expected), "{name}{labels:?} is {value:?}");
    }
    Ok(())
}

fn promtool() -> Result<()> {
    let bed = Bed::new()?;
    let daemon = bed.run(&["--window", "60s"])?;
    bed.send_reported_pair()?;
    wait_for(&daemon, "drop", "duplicate", 1.0)?;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let text = daemon.metrics()?.0;
    promtool
        .stdin
        .take()
        .context("no stdin")?
        .write_all(text.as_bytes())?;
    let output = promtool.wait_with_output()?;
    let complaints = [output.stdout, output.stderr].concat();
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&complaints)
    );
    ensure!(
        complaints.is_empty(),
        "{}",
        String::from_utf8_lossy(&complaints)
    );
    Ok(())
}

fn slow_clients() -> Result<()> {
    let bed = Bed::new()?;
    let daemon = bed.run(&[])?;
    let idle = bed.here.inside(|| {
        (0..20)
            .map(|_| TcpStream::connect("[::1]:9757"))
            .collect::<Result<Vec<_>, _>>()
    })??;
    ensure!(daemon.get("/healthz")? == "ok\n");
    ensure!(daemon.get("/metrics")?.contains("xdp_dedup_build_info"));
    for (request, status) in [
        ("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        (
            "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
            "405",
        ),
        ("no HTTP at all\r\n\r\n", "400"),
    ] {
        let mut stream = bed.here.inside(|| TcpStream::connect("[::1]:9757"))??;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.ends_with(status), "{request:?}: {answer}");
    }
    drop(idle);
    Ok(())
}

fn reload() -> Result<()> {
    let bed = Bed::new()?;
    let file = tempfile::NamedTempFile::new()?;
    fs::write(&file, "window = \"60s\"\nobserve = true\n")?;
    let daemon = bed.run(&["--config", &file.path().to_string_lossy()])?;
    let program = daemon
        .metrics()?
        .lines("xdp_dedup_program_info")
        .collect::<String>();
    bed.send_reported_pair()?;
    wait_for(&daemon, "would_drop", "duplicate", 1.0)?;

    fs::write(
        &file,
        "window = \"60s\"\nobserve = false\ncapacity = 2048\n",
    )?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for_log(&daemon, "policy read again")?;
    ensure!(
        daemon
            .log()
            .contains("these change with a restart only: --capacity\n"),
        "{}",
        daemon.log()
    );
    // Both are copies of the message that passed before the change.
    bed.send_reported_pair()?;
    wait_for(&daemon, "drop", "duplicate", 2.0)?;
    wait_for(&daemon, "pass", "first", 1.0)?;
    let now = daemon
        .metrics()?
        .lines("xdp_dedup_program_info")
        .collect::<String>();
    ensure!(now == program, "another program is attached: {now}");
    Ok(())
}

fn bad_reload() -> Result<()> {
    let bed = Bed::new()?;
    let file = tempfile::NamedTempFile::new()?;
    fs::write(&file, "window = \"60s\"\n")?;
    let daemon = bed.run(&["--config", &file.path().to_string_lossy()])?;
    fs::write(&file, "observe = true\nwindow = \"1h\"\n")?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for_log(&daemon, "the policy stays as it was")?;
    ensure!(daemon.log().contains("line 2: "), "{}", daemon.log());
    bed.send_reported_pair()?;
    wait_for(&daemon, "drop", "duplicate", 1.0)
}

fn command_line_wins() -> Result<()> {
    let bed = Bed::new()?;
    let file = tempfile::NamedTempFile::new()?;
    fs::write(
        &file,
        "observe = true\nwindow = \"1ms\"\nmessages = \"relayed\"\n",
    )?;
    let path = file.path().to_string_lossy().into_owned();
    let daemon = bed.run(&[
        "--config",
        &path,
        "--observe=false",
        "--window",
        "60s",
        "--messages",
        "all",
    ])?;
    let drop_both = |xid: u8, drops: f64| -> Result<()> {
        let message = ClientMessage::new(message_type::SOLICIT, [0, 0, xid]).elapsed_time(0);
        for relay in [reported::RELAY_A, reported::RELAY_B] {
            let frame = relayed(relay, reported::SERVER, reported::CLIENT, &message);
            bed.sender.send(&frame.bytes())?;
        }
        wait_for(&daemon, "drop", "duplicate", drops)
    };
    drop_both(1, 1.0)?;
    daemon.signal(Signal::SIGHUP)?;
    wait_for_log(&daemon, "policy read again")?;
    drop_both(2, 2.0)
}

fn interface_goes() -> Result<()> {
    let bed = Bed::new()?;
    let daemon = bed.run(&[])?;
    bed.here.ip(&format!("link del {}", bed.end.name))?;
    let attached = daemon.metrics()?.value("xdp_dedup_attached", &["server0"]);
    ensure!(attached == Some(0.0), "{attached:?}");
    let health = daemon.get("/healthz");
    let unhealthy = health
        .as_ref()
        .is_err_and(|error| error.to_string().contains("503"));
    ensure!(unhealthy, "{health:?}");
    wait_for_log(&daemon, "no longer attached")?;
    let status = daemon.stop(Signal::SIGTERM)?;
    ensure!(status.success(), "{status}");
    Ok(())
}

fn interface_comes_and_goes() -> Result<()> {
    let bed = Bed::new()?;
    let elsewhere = Namespace::new("elsewhere")?;
    let daemon = bed.run(&[])?;
    let (gone, back) = ("no longer attached", "the filter is attached again");
    for times in 1..=2 {
        for (from, to, said) in [(&bed.here, &elsewhere, gone), (&elsewhere, &bed.here, back)] {
            // It keeps its index and the program.
            from.ip(&format!("link set {} netns {}", bed.end.name, to.path()))?;
            wait_for_log_times(&daemon, said, times)?;
        }
    }
    ensure!(daemon.get("/healthz")? == "ok\n");
    Ok(())
}

fn nobody_reads_the_trace() -> Result<()> {
    // More lines than a pipe of this size has room for.
    const PIPE: i32 = 4096;
    const FRAMES: u8 = 100;
    let bed = Bed::new()?;
    let (mut log, stderr) = io::pipe()?;
    fcntl(&log, FcntlArg::F_SETPIPE_SZ(PIPE))?;
    let daemon = Daemon::start_with(
        &binary()?,
        &bed.here,
        &["-i", "server0", "--window", "60s", "--trace"],
        |command| {
            command.stderr(stderr);
        },
    )?;
    for xid in 0..FRAMES {
        let message = ClientMessage::new(message_type::SOLICIT, [0, 0, xid]).elapsed_time(0);
        let frame = relayed(
            reported::RELAY_A,
            reported::SERVER,
            reported::CLIENT,
            &message,
        );
        bed.sender.send(&frame.bytes())?;
    }
    wait_for(&daemon, "pass", "first", f64::from(FRAMES))?;
    let start = Instant::now();
    while !is_blocked_in_a_write(&daemon)? {
        ensure!(start.elapsed() < Duration::from_secs(5), "never blocked");
        thread::sleep(Duration::from_millis(5));
    }
    ensure!(daemon.get("/healthz")? == "ok\n");
    // Nor is the end held up, once somebody reads.
    let reader = thread::spawn(move || {
        let mut text = String::new();
        log.read_to_string(&mut text).map(|_| text)
    });
    let status = daemon.stop(Signal::SIGTERM)?;
    ensure!(status.success(), "{status}");
    let text = reader.join().map_err(|_| anyhow!("panicked"))??;
    ensure!(text.contains("SIGTERM: leaving"), "{text}");
    Ok(())
}

/// Whether a thread of the daemon waits for room on its standard error.
fn is_blocked_in_a_write(daemon: &Daemon) -> Result<bool> {
    let write = format!("{} 0x2 ", libc::SYS_write);
    for thread in fs::read_dir(format!("/proc/{}/task", daemon.pid()))? {
        // It may have ended.
        let call = fs::read_to_string(thread?.path().join("syscall"));
        if call.is_ok_and(|call| call.starts_with(&write)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What the daemon tells the service manager that started it, as in a unit with `Type=notify`.
fn service_manager() -> Result<()> {
    let bed = Bed::new()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let told = |what: &str| -> Result<()> {
        let mut datagram = [0; 512];
        let length = socket.recv(&mut datagram)?;
        let text = String::from_utf8_lossy(&datagram[..length]);
        ensure!(
            text.lines().any(|line| line == what),
            "{text:?}, not {what}"
        );
        Ok(())
    };
    let daemon = Daemon::start_with(&binary()?, &bed.here, &["-i", "server0"], |command| {
        command.env("NOTIFY_SOCKET", &path);
    })?;
    told("READY=1")?;
    daemon.signal(Signal::SIGHUP)?;
    told("RELOADING=1")?;
    told("READY=1")?;
    daemon.signal(Signal::SIGTERM)?;
    told("STOPPING=1")
}
