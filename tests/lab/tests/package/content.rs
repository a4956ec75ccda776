//! What is in the package.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::Test;
use crate::package::{self, ask};

pub const TESTS: &[(&str, Test)] = &[
    (
        "the package has these files, and a manual page for each command",
        files,
    ),
    (
        "the package says what it needs, and what of it is the operator's to change",
        control,
    ),
];

/// Each file, and its mode as `ls` has it.
const FILES: &[(&str, &str)] = &[
    ("-rw-r--r--", "./etc/xdp-dedup.toml"),
    ("-rwxr-xr-x", "./usr/bin/xdp-dedup"),
    ("-rw-r--r--", "./usr/lib/systemd/system/xdp-dedup.service"),
    (
        "-rw-r--r--",
        "./usr/share/bash-completion/completions/xdp-dedup",
    ),
    ("-rw-r--r--", "./usr/share/doc/xdp-dedup/changelog.gz"),
    ("-rw-r--r--", "./usr/share/doc/xdp-dedup/README.md"),
    (
        "-rw-r--r--",
        "./usr/share/doc/xdp-dedup/xdp-dedup/OPERATING.md",
    ),
    (
        "-rw-r--r--",
        "./usr/share/doc/xdp-dedup/changelog.Debian.gz",
    ),
    ("-rw-r--r--", "./usr/share/doc/xdp-dedup/copyright"),
    (
        "-rw-r--r--",
        "./usr/share/doc/xdp-dedup/examples/xdp-dedup.toml",
    ),
    (
        "-rw-r--r--",
        "./usr/share/fish/vendor_completions.d/xdp-dedup.fish",
    ),
    (
        "-rw-r--r--",
        "./usr/share/zsh/vendor-completions/_xdp-dedup",
    ),
];

/// The dashboard and the alerts.
const MONITORING: &[&str] = &[
    "alerts.yml",
    "alerts_test.yml",
    "dashboard.json",
    "stats-watch.png",
];

fn files() -> Result<()> {
    let row = |mode: &str, path: &str| format!("{mode} root/root {path}");
    let mut expected: BTreeSet<String> = FILES.iter().map(|(mode, path)| row(mode, path)).collect();
    for name in MONITORING {
        expected.insert(row(
            "-rw-r--r--",
            &format!("./usr/share/doc/xdp-dedup/xdp-dedup/monitoring/{name}"),
        ));
    }
    let mut help = Command::new(package::checkout().join("target/release/xdp-dedup"));
    let help = package::run(help.arg("--help"))?;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.map_while(|line| line.split_whitespace().next());
    let pages = commands
        .filter(|command| *command != "help")
        .map(|command| format!("xdp-dedup-{command}"));
    for page in pages.chain(["xdp-dedup".to_owned()]) {
        expected.insert(row(
            "-rw-r--r--",
            &format!("./usr/share/man/man8/{page}.8.gz"),
        ));
    }
    // Mode, owner, size, date, time, path.
    let listed = ask(&["--contents"])?;
    let found: BTreeSet<String> = listed
        .lines()
        .filter(|line| !line.starts_with('d'))
        .map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            format!("{} {} {}", fields[0], fields[1], fields[5])
        })
        .map(|line| line.replace("0/0", "root/root"))
        .collect();
    let lacks: Vec<_> = expected.difference(&found).collect();
    let besides: Vec<_> = found.difference(&expected).collect();
    ensure!(
        lacks.is_empty() && besides.is_empty(),
        "not there: {lacks:?}; there besides: {besides:?}"
    );
    Ok(())
}

fn control() -> Result<()> {
    let control = ask(&["--field"])?;
    let field = |name: &str| {
        let lines = control.lines();
        let mut found = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        found
            .next()
            .with_context(|| format!("no {name} in {control}"))
    };
    for (name, expected) in [
        ("Package", "xdp-dedup"),
        ("Version", concat!(env!("CARGO_PKG_VERSION"), "-1")),
        ("Section", "net"),
        ("Priority", "optional"),
    ] {
        ensure!(field(name)? == expected, "{control}");
    }
    // Nothing but the C library, so that it installs on any release that has a new enough one.
    let depends = field("Depends")?;
    ensure!(
        depends.starts_with("libc6 (>= ") && !depends.contains(','),
        "{depends}"
    );
    ensure!(field("Description")?.len() <= 80, "{control}");
    let mut conffiles = Command::new("dpkg-deb");
    conffiles
        .arg("--info")
        .arg(package::path()?)
        .arg("conffiles");
    let conffiles = package::run(&mut conffiles)?;
    ensure!(conffiles == "/etc/xdp-dedup.toml\n", "{conffiles}");
    Ok(())
}
