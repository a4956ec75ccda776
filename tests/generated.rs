//! What packages take from the command itself: manual pages and completions.

#![expect(clippy::unwrap_used, reason = "what is missing fails the test")]

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use clap::CommandFactory as _;
use testbed::binary::binary;
use xdp_dedup::cli::Cli;

/// What the command prints, which ends well.
fn printed(arguments: &[&str]) -> String {
    let output = Command::new(binary().unwrap())
        .args(arguments)
        .env("SOURCE_DATE_EPOCH", "1763800000")
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The visible flags of each command, as `--window`.
fn flags() -> Vec<(String, Vec<String>)> {
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    let flags = |command: &clap::Command| {
        let arguments = command.get_arguments().filter(|flag| !flag.is_hide_set());
        let flags = arguments.filter_map(|flag| Some(format!("--{}", flag.get_long()?)));
        flags.collect()
    };
    cli.get_subcommands()
        .map(|command| (command.get_name().to_owned(), flags(command)))
        .collect()
}

/// Whether this machine has a program, for tests by outside opinion.
fn has(program: &str) -> bool {
    let probe = Command::new("sh")
        .args(["-c", "command -v \"$0\" >/dev/null", program])
        .status();
    let there = probe.unwrap().success();
    if !there {
        eprintln!("the opinion of {program} is skipped: there is none");
    }
    there
}

/// Neither groff nor mandoc finds anything wrong with a page, where there are such.
fn assert_renders(page: &Path) {
    if has("groff") {
        let output = Command::new("groff")
            .args(["-ww", "-man", "-Tutf8", "-z"])
            .arg(page)
            .output()
            .unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
    }
    if has("mandoc") {
        let output = Command::new("mandoc")
            .args(["-T", "lint", "-W", "warning"])
            .arg(page)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// As a reader sees it: without roff's way of writing hyphens and fonts.
fn plain(page: &str) -> String {
    page.replace("\\-", "-")
        .replace("\\fB", "")
        .replace("\\fI", "")
        .replace("\\fR", "")
}

#[test]
fn the_manual_page_has_every_flag_of_every_command_in_its_section() {
    let page = printed(&["man"]);
    let page = plain(&page);
    for (command, flags) in flags() {
        let heading = format!(".SH \"XDP-DEDUP {}\"\n", command.to_uppercase());
        let start = page.find(&heading).expect(&heading) + heading.len();
        let section = &page[start..start + page[start..].find("\n.SH ").unwrap()];
        for flag in flags {
            assert!(
                section.contains(&format!("\n{flag}")) || section.contains(&format!(", {flag}")),
                "{flag} of {command}"
            );
        }
    }
    for section in ["NAME", "EXIT STATUS", "ENVIRONMENT", "FILES", "SEE ALSO"] {
        let named = [format!(".SH {section}\n"), format!(".SH \"{section}\"\n")];
        assert!(named.iter().any(|line| page.contains(line)), "{section}");
    }
    assert!(page.contains("/sys/fs/bpf/xdp-dedup") && page.contains("/etc/xdp-dedup.toml"));
    assert!(!page.contains("TODO") && !page.contains('`'), "{page}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("xdp-dedup.8");
    fs::write(&file, printed(&["man"])).unwrap();
    assert_renders(&file);
}

#[test]
fn each_command_has_a_page_of_its_own_and_the_first_leads_to_all() {
    let folder = tempfile::tempdir().unwrap();
    // It makes the folder.
    let pages = folder.path().join("man8");
    printed(&["man", "--dir", pages.to_str().unwrap()]);
    let overview = plain(&fs::read_to_string(pages.join("xdp-dedup.8")).unwrap());
    let mut expected = vec!["xdp-dedup.8".to_owned()];
    for (command, flags) in flags() {
        let name = format!("xdp-dedup-{command}");
        let page = fs::read_to_string(pages.join(format!("{name}.8"))).unwrap();
        let page = plain(&page);
        assert!(overview.contains(&format!("\n{name}(8)\n")), "{name}");
        assert!(page.contains(&format!("\n{name} - ")), "{page}");
        assert!(page.contains("\nxdp-dedup(8)\n"), "{page}");
        for flag in flags {
            assert!(page.contains(&flag), "{flag} of {command}");
        }
        assert_eq!(page.contains("status found nothing"), command == "status");
        assert!(!page.contains("TODO") && !page.contains('`'), "{page}");
        expected.push(format!("{name}.8"));
    }
    let mut written: Vec<_> = fs::read_dir(&pages)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    written.sort();
    expected.sort();
    assert_eq!(written, expected);
    for page in written {
        assert_renders(&pages.join(page));
    }
}

#[test]
fn a_page_has_the_day_that_its_packager_gives() {
    let title = |epoch: Option<&str>| {
        let mut command = Command::new(binary().unwrap());
        command.arg("man").env_remove("SOURCE_DATE_EPOCH");
        if let Some(epoch) = epoch {
            command.env("SOURCE_DATE_EPOCH", epoch);
        }
        let page = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let title = page.lines().find(|line| line.starts_with(".TH "));
        title.unwrap().to_owned()
    };
    let version = env!("CARGO_PKG_VERSION");
    let with = |day: &str| {
        format!(".TH XDP-DEDUP 8 {day} \"xdp-dedup {version}\" \"System Administration\"")
    };
    assert_eq!(title(None), with("\"\""));
    assert_eq!(title(Some("1763800000")), with("2025-11-22"));
    for nonsense in ["yesterday", "18446744073709551615"] {
        assert_eq!(title(Some(nonsense)), with("\"\""));
    }
}

#[test]
fn completions_know_every_flag_of_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        for (command, flags) in flags() {
            assert!(script.contains(&command), "{command} for {shell}");
            for flag in flags {
                // fish writes `-l window`.
                let long = flag.trim_start_matches('-');
                let known = script.contains(&flag) || script.contains(&format!("-l {long}"));
                assert!(known, "{flag} of {command} for {shell}");
            }
        }
    }
}

#[test]
fn shells_take_their_completions() {
    for (shell, arguments) in [("bash", ["-n"]), ("zsh", ["-n"]), ("fish", ["-n"])] {
        if !has(shell) {
            continue;
        }
        let script = printed(&["completions", shell]);
        let mut child = Command::new(shell)
            .args(arguments)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(script.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
    }
}

#[test]
fn bash_completes_a_flag_of_a_command() {
    let script = printed(&["completions", "bash"]);
    let (_, rest) = script.split_once("complete -F ").unwrap();
    let function = rest.split(' ').next().unwrap();
    let asked = format!(
        "{script}\nCOMP_WORDS=(xdp-dedup run --esc); COMP_CWORD=2; {function} xdp-dedup --esc run; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let output = Command::new("bash").args(["-c", &asked]).output().unwrap();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "--escalate-every\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
