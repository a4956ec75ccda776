//! The tables of the README and of the operators' guide are those of the code. `UPDATE_README=1 cargo test --test readme` writes them
//! anew.

#![expect(clippy::unwrap_used, reason = "what is missing fails the test")]

use std::{env, fmt::Write as _, fs, path::PathBuf, process::Command};

use clap::CommandFactory as _;
use xdp_dedup::{
    attachment::Mode,
    bench::REPORTED_FRAME,
    cli::Cli,
    maps::RelayTally,
    metrics::{InterfaceStatus, Snapshot},
};
use xdp_dedup_common::{Reason, counters::InterfaceCounters, policy::Window};

use testbed::{
    binary::binary,
    frame::{Checksum, Frame, reported_pair},
};

fn readme() -> (PathBuf, String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = fs::read_to_string(&path).unwrap();
    (path, text)
}

fn guide() -> String {
    const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../xdp-dedup/OPERATING.md");
    fs::read_to_string(GUIDE).unwrap()
}

/// The README must have `expected` between `<!-- name -->` and `<!-- end -->`.
fn assert_block(name: &str, expected: &str) {
    let (path, text) = readme();
    let marker = format!("<!-- {name} -->\n");
    let start = text.find(&marker).unwrap() + marker.len();
    let end = start + text[start..].find("<!-- end -->").unwrap();
    if env::var_os("UPDATE_README").is_some() {
        fs::write(&path, [&text[..start], expected, &text[end..]].concat()).unwrap();
    } else {
        assert_eq!(
            &text[start..end],
            expected,
            "UPDATE_README=1 writes it anew"
        );
    }
}

#[test]
fn the_tables_and_the_example_are_those_of_the_code() {
    // One test for all: they write the same file.
    let mut reasons = String::from("| reason | verdict | what it means |\n|---|---|---|\n");
    for reason in Reason::ALL {
        let verdicts: Vec<_> = reason
            .verdicts()
            .iter()
            .map(|verdict| format!("`{}`", verdict.name()))
            .collect();
        writeln!(
            reasons,
            "| `{}` | {} | {} |",
            reason.name(),
            verdicts.join(", "),
            reason.meaning()
        )
        .unwrap();
    }
    assert_block("reasons", &reasons);

    let mut flags = String::from("| flag of `run` | what it does |\n|---|---|\n");
    let cli = Cli::command();
    let run = cli.find_subcommand("run").unwrap();
    for flag in run.get_arguments() {
        let short = flag
            .get_short()
            .map(|short| format!("-{short}, "))
            .unwrap_or_default();
        let value = match flag.get_value_names() {
            Some(names)
                if flag
                    .get_num_args()
                    .is_some_and(|range| range.min_values() == 0) =>
            {
                format!("[={}]", names.join(" "))
            }
            Some(names) => format!(" {}", names.join(" ")),
            None => String::new(),
        };
        let possible: Vec<_> = flag
            .get_possible_values()
            .iter()
            .filter(|_| !flag.is_hide_possible_values_set())
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        let possible = match possible.join(" or ") {
            none if none.is_empty() => none,
            values => format!("; {values}"),
        };
        let help = flag.get_help().unwrap().to_string().replace('\n', " ");
        let long = flag.get_long().unwrap();
        writeln!(flags, "| `{short}--{long}{value}` | {help}{possible} |").unwrap();
    }
    assert_block("flags", &flags);

    const CAPTURE: &str = "tests/captures/01-tworelays-dhclient-server.pcap";
    let output = Command::new(binary().unwrap())
        .args(["replay", "--engine", "userspace", CAPTURE])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut shown = format!("\n    $ xdp-dedup replay {CAPTURE}\n");
    for line in text.lines() {
        writeln!(shown, "{}", format!("    {line}").trim_end()).unwrap();
    }
    shown.push('\n');
    assert_block("replay", &shown);
}

#[test]
fn each_path_of_bench_has_its_numbers() {
    let (_, text) = readme();
    let start = text.find("<!-- bench -->").unwrap();
    let block = &text[start..start + text[start..].find("<!-- end -->").unwrap()];
    for path in xdp_dedup::bench::PATHS {
        let line = block
            .lines()
            .find(|line| line.trim_start().starts_with(path))
            .unwrap();
        assert!(line.ends_with(" ns"), "{line}");
    }
}

#[test]
fn each_reason_stands_in_the_rule() {
    let (_, text) = readme();
    let start = text.find("## How it decides").unwrap();
    let rule = &text[start..start + text[start..].find("\n## ").unwrap()];
    for reason in Reason::ALL {
        // `replay` alone tells that one.
        if *reason != Reason::NotDhcp {
            let cell = format!("`{}` |", reason.name());
            assert!(rule.contains(&cell), "no {cell} in the rule");
        }
    }
}

#[test]
fn the_operators_guide_has_a_row_for_each_reason() {
    let guide = guide();
    let start = guide.find("<!-- troubleshooting -->").unwrap();
    let block = &guide[start..start + guide[start..].find("<!-- end -->").unwrap()];
    let rows = block.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows: Vec<_> = rows.filter_map(|row| row.split('`').next()).collect();
    let reasons: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    assert_eq!(rows, reasons);
}

#[test]
fn the_operators_guide_names_flags_that_there_are() {
    let guide = guide();
    let mut cli = Cli::command();
    cli.build();
    let there_is = |long: &str| {
        let mut commands = cli.get_subcommands();
        commands.any(|command| {
            let mut flags = command.get_arguments();
            flags.any(|flag| flag.get_long() == Some(long))
        })
    };
    let mut named = 0;
    for (start, _) in guide.match_indices(" --").chain(guide.match_indices("`--")) {
        let flag = &guide[start + 3..];
        let is_name = |c: char| c.is_ascii_lowercase() || c == '-';
        let flag = &flag[..flag.find(|c| !is_name(c)).unwrap()];
        // The end of a comment, and those of nsenter, systemctl and the lab.
        if !["", "net", "now", "only"].contains(&flag) {
            assert!(there_is(flag), "no command has --{flag}");
            named += 1;
        }
    }
    assert!(named > 20, "only {named} flags found");
}

#[test]
fn each_metric_stands_in_the_table() {
    let (_, text) = readme();
    let interface = InterfaceStatus {
        name: "eth0".to_owned(),
        mode: Mode::Native,
        attached: true,
        program_id: 1,
        program_tag: 1,
        counters: InterfaceCounters::default(),
    };
    let snapshot = Snapshot {
        interfaces: vec![interface],
        relays: RelayTally::default(),
        table_entries: 0,
        table_capacity: 1024,
        window: Window::DEFAULT,
        events_lost: 0,
    };
    let exposition = snapshot.encode().unwrap();
    let names: Vec<_> = exposition
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let in_table = |line: &str| {
        Some(
            line.strip_prefix("| `xdp_dedup_")?
                .split('`')
                .next()?
                .to_owned(),
        )
    };
    let documented: Vec<_> = text.lines().filter_map(in_table).collect();
    let exposed: Vec<_> = names
        .iter()
        .filter_map(|name| name.strip_prefix("xdp_dedup_"))
        .collect();
    assert_eq!(documented, exposed);
}

#[test]
fn the_frame_that_bench_measures_is_the_reported_one_with_a_partial_checksum() {
    let [first, _] = reported_pair();
    let frame = Frame {
        checksum: Checksum::Partial,
        ..first
    };
    assert_eq!(frame.bytes(), REPORTED_FRAME);
}
