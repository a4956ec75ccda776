//! `stats --watch` in a terminal.

use std::{
    env,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use testbed::wait::until;
use testbed::{
    binary::binary,
    frame::{ClientMessage, message_type},
    harness::{needs_root, trial},
};
use xdp_dedup::stats::screen::Screen;

use crate::{
    bed::{Bed, ask},
    terminal::Terminal,
};

/// What a trial runs.
type Test = fn() -> Result<()>;

/// Asks this test, as a program of its own, to panic on the screen.
const PANIC: &str = "XDP_DEDUP_PANIC_ON_THE_SCREEN";

/// Does what another process of this test is asked for, if this is one.
pub fn as_another_process() -> Option<ExitCode> {
    env::var_os(PANIC)?;
    let mut screen = Screen::open().unwrap();
    screen
        .draw(|frame| frame.render_widget("on the screen", frame.area()))
        .unwrap();
    // Until the test has seen that much.
    std::io::stdin().read_line(&mut String::new()).unwrap();
    panic!("as it was asked to");
}

pub fn trials() -> Vec<Trial> {
    let tests: &[(&str, Test)] = &[
        (
            "the live view shows rates by reason and relay, gaps against the window, and the table",
            shows,
        ),
        (
            "the live view fits a terminal that becomes tiny, and large again",
            fits,
        ),
        (
            "the live view waits for a filter that goes, and shows the next one from its start",
            waits,
        ),
    ];
    let mut trials: Vec<_> = tests
        .iter()
        .map(|&(name, test)| needs_root(trial(name, test)))
        .collect();
    for (way, leave) in WAYS_OUT {
        let name = format!("the live view gives the terminal back at {way}");
        trials.push(needs_root(trial(name, move || gives_back(*leave))));
    }
    trials.push(trial(
        "the live view gives the terminal back when it panics",
        panics,
    ));
    trials.push(trial("the live view refuses to go to a pipe", no_terminal));
    trials
}

fn solicit(number: u8) -> ClientMessage {
    ClientMessage::new(message_type::SOLICIT, [0, 0, number]).elapsed_time(0)
}

fn watch(bed: &Bed, columns: u16, rows: u16) -> Result<Terminal> {
    let terminal = Terminal::start(bed.command(&["stats", "--watch"])?, columns, rows);
    let mut terminal = terminal?;
    terminal.wait_for("a first look", |lines| lines[0].contains("/s in"))?;
    Ok(terminal)
}

/// Whether a line stands there that has all of these words in their order.
fn has(lines: &[String], words: &[&str]) -> bool {
    lines.iter().any(|line| {
        let mut rest = line.as_str();
        words.iter().all(|word| match rest.split_once(word) {
            Some((_, behind)) => {
                rest = behind;
                true
            }
            None => false,
        })
    })
}

fn shows() -> Result<()> {
    let bed = Bed::new(&["--window", "60s"])?;
    let mut terminal = watch(&bed, 80, 24)?;
    ensure!(terminal.is_taken()?, "it does not take the terminal");
    terminal.wait_for("nothing yet", |lines| {
        has(lines, &["nothing has come to UDP port 547 yet"])
    })?;
    for number in 0..10 {
        bed.send(&solicit(number))?;
    }
    bed.wait_for("duplicate", 10)?;
    // Ten a second, or nine or eleven: a second is as long as the machine makes it.
    let rate = |lines: &[String], name: &str, verdict: &str| {
        let mut lines = lines
            .iter()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines.any(|words| match words[..] {
            [of, with, rate, "10"] if of == name && with == verdict => {
                let rate = rate
                    .strip_suffix("/s")
                    .and_then(|rate| rate.parse::<f64>().ok());
                rate.is_some_and(|rate| rate > 0.0)
            }
            _ => false,
        })
    };
    terminal.wait_for("all ten of them with a rate", |lines| {
        [
            ("first", "pass"),
            ("duplicate", "drop"),
            ("2001:db8:1::fffe", "pass"),
            ("2001:db8:1::ffff", "drop"),
        ]
        .iter()
        .all(|(name, verdict)| rate(lines, name, verdict))
    })?;
    // And then nothing more comes.
    let lines = terminal.wait_for("rates of zero", |lines| {
        has(lines, &["duplicate", "drop", " 0.0/s", " 10"])
    })?;
    for words in [
        &["server0", "daemon ", &bed.daemon.pid().to_string()][..],
        &["reason", "verdict", "rate", "total"],
        &["gaps (log) 10: median at most", "99 %", "largest"],
        &["╵100us", "╵1ms", "╵100ms"],
        &["window 1m ▲"],
        &["table 10 of 65536 entries"],
        &["q leaves"],
    ] {
        ensure!(has(&lines, words), "{words:?}: {lines:#?}");
    }
    ensure!(
        lines.iter().any(|line| line.contains('█')),
        "no bar: {lines:#?}"
    );
    Ok(())
}

fn fits() -> Result<()> {
    let bed = Bed::new(&["--window", "60s"])?;
    let mut terminal = watch(&bed, 80, 24)?;
    bed.send(&solicit(1))?;
    bed.wait_for("duplicate", 1)?;
    let is_large = |lines: &[String]| {
        lines.len() == 24
            && has(lines, &["duplicate", "drop", "/s", " 1"])
            && has(lines, &["window 1m ▲"])
            && has(lines, &["table 1 of 65536"])
            && lines[23] == "q leaves"
    };
    terminal.wait_for("all of it", is_large)?;
    for (columns, rows) in [(20, 5), (1, 1), (300, 60), (20, 5)] {
        terminal.resize(columns, rows)?;
        if columns > 1 {
            terminal.wait_for(&format!("a view of {columns} x {rows}"), |lines| {
                lines.len() == usize::from(rows)
                    && lines[0].contains("/s in")
                    && has(lines, &["first", "/s"])
                    && has(lines, &["duplicate", "/s"])
                    && lines[usize::from(rows) - 1] == "q leaves"
            })?;
        }
    }
    let tiny = terminal.lines();
    ensure!(
        tiny[1].starts_with("first   ") && tiny[2].starts_with("duplicate   "),
        "{tiny:#?}"
    );
    terminal.resize(80, 24)?;
    terminal.wait_for("all of it again", is_large)?;
    terminal.type_in("q")?;
    ensure!(terminal.end()?.success());
    terminal.wait_until_given_back()
}

fn waits() -> Result<()> {
    let bed = Bed::new(&["--window", "60s"])?;
    let mut terminal = watch(&bed, 80, 24)?;
    for number in 0..3 {
        bed.send(&solicit(number))?;
    }
    terminal.wait_for("three", |lines| {
        has(lines, &["duplicate", "drop", "/s", " 3"])
    })?;
    bed.daemon.signal(Signal::SIGTERM)?;
    terminal.wait_for("nothing", |lines| {
        lines[0] == "nothing is attached in this network namespace"
    })?;
    // In the same place, as the service manager would.
    let mut next = bed.command(&["run", "-i", "server0", "--metrics", "off"])?;
    let mut next = next.stderr(Stdio::null()).spawn()?;
    terminal.wait_for("the next one", |lines| {
        lines[0].contains("server0") && has(lines, &["nothing has come"])
    })?;
    bed.send(&solicit(1))?;
    let shown = terminal.wait_for("one", |lines| has(lines, &["first", "pass", "/s", " 1"]));
    next.kill()?;
    next.wait()?;
    shown.map(drop)
}

#[derive(Clone, Copy)]
enum WayOut {
    Key(&'static str),
    Signal(Signal),
}

const WAYS_OUT: &[(&str, WayOut)] = &[
    ("q", WayOut::Key("q")),
    ("Ctrl-C", WayOut::Key("\x03")),
    ("SIGINT", WayOut::Signal(Signal::SIGINT)),
    ("SIGTERM", WayOut::Signal(Signal::SIGTERM)),
    ("SIGHUP", WayOut::Signal(Signal::SIGHUP)),
];

fn gives_back(leave: WayOut) -> Result<()> {
    let bed = Bed::new(&[])?;
    let mut terminal = watch(&bed, 80, 24)?;
    ensure!(terminal.is_taken()?, "it does not take the terminal");
    // No way out.
    terminal.type_in("x ")?;
    match leave {
        WayOut::Key(key) => terminal.type_in(key)?,
        WayOut::Signal(signal) => terminal.signal(signal)?,
    }
    let status = terminal.end()?;
    ensure!(status.success(), "{status}");
    terminal.wait_until_given_back()
}

fn panics() -> Result<()> {
    let mut command = Command::new(env::current_exe()?);
    command.env(PANIC, "1").env("RUST_BACKTRACE", "0");
    let mut terminal = Terminal::start(command, 80, 24)?;
    terminal.wait_for("the screen", |lines| lines[0] == "on the screen")?;
    ensure!(terminal.is_taken()?, "it does not take the terminal");
    terminal.type_in("\n")?;
    let status = terminal.end()?;
    ensure!(status.code() == Some(101), "{status}");
    terminal.wait_until_given_back()?;
    let lines = until("the panic's message, on the page that stays", || {
        let lines = terminal.lines();
        Ok(has(&lines, &["as it was asked to"]).then_some(lines))
    })?;
    ensure!(!has(&lines, &["on the screen"]), "{lines:#?}");
    Ok(())
}

fn no_terminal() -> Result<()> {
    let mut command = Command::new(binary()?);
    command.args(["stats", "--watch"]);
    let answer = ask(command)?;
    ensure!(answer.code == Some(2), "{answer:?}");
    ensure!(answer.stderr.contains("`--watch --json`"), "{answer:?}");
    ensure!(
        answer.stderr.lines().count() == 1 && answer.stdout.is_empty(),
        "{answer:?}"
    );
    Ok(())
}
