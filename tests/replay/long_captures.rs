//! Captures longer than memory should be: they stream.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use testbed::{frame::reported_pair, harness::trial};

use crate::{
    command::replay,
    pcap::{Frame, USUAL},
};

/// What a replay may take, in bytes.
const MEMORY: u64 = 64 * 1024 * 1024;
/// The length of the capture, in bytes.
const CAPTURE: u64 = 3 * MEMORY;

pub fn trials() -> Vec<Trial> {
    vec![
        trial(
            "a capture of three times the memory it may take streams through",
            memory,
        ),
        trial("a reader that leaves early ends it quietly", early_leaver),
    ]
}

/// A second of traffic: a message in two copies, and much that is none of the filter's business.
fn second_of_traffic(second: u64) -> Vec<u8> {
    let [first, second_copy] = reported_pair().map(|frame| frame.bytes());
    let time = second * 1_000_000_000;
    let mut records = USUAL.record(&Frame::new(time, first));
    records.extend(USUAL.record(&Frame::new(time + 40_000, second_copy)));
    let bystander = USUAL.record(&Frame::new(time + 50_000, vec![0x45; 9_000]));
    for _ in 0..8 {
        records.extend(&bystander);
    }
    records
}

fn start() -> Result<Child> {
    Ok(replay()?
        .args(["-", "--engine", "userspace", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?)
}

fn memory() -> Result<()> {
    let mut child = start()?;
    let mut stdin = child.stdin.take().context("no pipe")?;
    let stdout = BufReader::new(child.stdout.take().context("no pipe")?);
    let reader = std::thread::spawn(move || {
        let mut last = String::new();
        let mut lines = 0_u64;
        for line in stdout.lines().map_while(Result::ok) {
            lines += 1;
            last = line;
        }
        (lines, last)
    });

    stdin.write_all(&USUAL.header())?;
    let mut written = 0;
    let mut seconds = 0;
    while written < CAPTURE {
        let records = second_of_traffic(seconds);
        stdin.write_all(&records)?;
        written += records.len() as u64;
        seconds += 1;
    }
    // All but a pipe's worth has been replayed; the highest its memory ever stood at is read while
    // it waits for more.
    let peak = peak_memory(child.id())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{output:?}");
    let (lines, last) = reader.join().ok().context("the reader panicked")?;
    ensure!(lines == seconds * 10 + 1, "{lines} lines");
    let summary = format!(
        r#"{{"summary":{{"frames":{},"passed":{},"dropped":{},"would_drop":0,"reasons":{{"#,
        seconds * 10,
        seconds * 10 - dropped(seconds),
        dropped(seconds)
    );
    ensure!(last.starts_with(&summary), "{last}");
    ensure!(peak < MEMORY, "{peak} bytes for a capture of {written}");
    Ok(())
}

/// The message is the same every second: a copy a second, of which every third passes.
fn dropped(seconds: u64) -> u64 {
    seconds - seconds / 3
}

fn peak_memory(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let kilobytes: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"))
        .context("no VmHWM")?
        .parse()?;
    Ok(kilobytes * 1024)
}

fn early_leaver() -> Result<()> {
    let mut child = start()?;
    let mut stdin = child.stdin.take().context("no pipe")?;
    let writer = std::thread::spawn(move || {
        // Ends when nobody reads any more.
        let mut result = stdin.write_all(&USUAL.header());
        let mut second = 0;
        while result.is_ok() && second < 100_000 {
            result = stdin.write_all(&second_of_traffic(second));
            second += 1;
        }
        result.is_err()
    });
    let mut stdout = BufReader::new(child.stdout.take().context("no pipe")?);
    let mut line = String::new();
    stdout.read_line(&mut line)?;
    ensure!(line.starts_with(r#"{"frame":1,"#), "{line}");
    drop(stdout);
    let asked = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        ensure!(asked.elapsed() < Duration::from_secs(30), "it goes on");
        std::thread::sleep(Duration::from_millis(10));
    };
    ensure!(writer.join().ok() == Some(true), "it read everything");
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .context("no pipe")?
        .read_to_string(&mut stderr)?;
    ensure!(status.success() && stderr.is_empty(), "{status}: {stderr}");
    Ok(())
}
