//! A run of `check`, and what is expected of it.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testbed::{binary::binary, namespace::Namespace};

/// A BPF file system of its own, as the machine has one.
pub const BPF_FILE_SYSTEM: &str = "mount -t bpf -o mode=700 bpf /sys/fs/bpf";

/// How `check` is started.
pub struct Start<'a> {
    /// In which network namespace.
    pub namespace: &'a Namespace,
    /// What a shell does before, as root, among mounts that go with it.
    pub before: &'a str,
    /// What starts it, such as `setpriv ...`.
    pub by: &'a str,
    /// A filter of system calls that it, and the shell, are under.
    pub seccomp: Option<seccompiler::BpfProgram>,
}

impl<'a> Start<'a> {
    /// As root, with a BPF file system.
    pub fn plainly(namespace: &'a Namespace) -> Self {
        Self {
            namespace,
            before: BPF_FILE_SYSTEM,
            by: "",
            seccomp: None,
        }
    }

    /// Starts it with `--json` and these arguments.
    pub fn check(self, arguments: &[&str]) -> Result<Report> {
        let mut command = self.namespace.command("unshare");
        // The one who runs it may not be let into the folder that it lies in: by its descriptor.
        let script = format!(
            "{} && exec 3<\"$0\" && exec {} /proc/self/fd/3 check --json \"$@\"",
            self.before, self.by
        );
        command
            .args(["--mount", "sh", "-c", &script])
            .arg(binary()?)
            .args(arguments);
        if let Some(filter) = self.seccomp {
            let install = move || seccompiler::apply_filter(&filter).map_err(std::io::Error::other);
            // SAFETY: between fork and exec this makes two system calls; it allocates only to say that
            // one of them failed, and then the test has failed.
            unsafe { command.pre_exec(install) };
        }
        Report::of(&mut command)
    }
}

/// What it said.
pub struct Report {
    /// Its exit code.
    pub code: Option<i32>,
    lines: Vec<Value>,
    stderr: String,
}

/// A line other than `ok`: what was looked at, on which interface, how that came out, and parts of
/// what was found and of the advice.
pub type Complaint<'a> = (&'a str, Option<&'a str>, &'a str, &'a str, &'a str);

impl Report {
    fn of(command: &mut Command) -> Result<Self> {
        let output = command.output().context("cannot start a shell")?;
        let stdout = String::from_utf8(output.stdout)?;
        let stderr = String::from_utf8(output.stderr)?;
        let mut lines = Vec::new();
        for text in stdout.lines() {
            let line: Value =
                serde_json::from_str(text).with_context(|| format!("no JSON: {text}"))?;
            // The order of the keys, too, is stable.
            let keys = [
                "\"check\":",
                "\"interface\":",
                "\"result\":",
                "\"found\":",
                "\"advice\":",
            ];
            let places: Vec<_> = keys.iter().map(|key| text.find(key)).collect();
            ensure!(
                text.starts_with('{') && places.is_sorted() && !places.contains(&None),
                "not the keys in their order: {text}"
            );
            lines.push(line);
        }
        ensure!(!lines.is_empty(), "nothing on standard output: {stderr}");
        Ok(Self {
            code: output.status.code(),
            lines,
            stderr,
        })
    }

    /// These complaints, in this order, and no others; and the exit code that goes with them.
    pub fn complains_of(&self, expected: &[Complaint<'_>]) -> Result<()> {
        let shown = || {
            let lines: Vec<_> = self.lines.iter().map(ToString::to_string).collect();
            format!("{}\n{}", lines.join("\n"), self.stderr)
        };
        for line in &self.lines {
            let advised = line["advice"].as_str().is_some_and(|text| !text.is_empty());
            ensure!(
                advised == (line["result"] != "ok"),
                "advice where something is wrong, and only there: {line}"
            );
        }
        let complaints = self.lines.iter().filter(|line| line["result"] != "ok");
        let complaints: Vec<_> = complaints.collect();
        ensure!(
            complaints.len() == expected.len(),
            "{} complaints, not {}:\n{}",
            complaints.len(),
            expected.len(),
            shown()
        );
        for (line, (check, interface, result, found, advice)) in complaints.iter().zip(expected) {
            let holds =
                |key: &str, part: &str| line[key].as_str().is_some_and(|text| text.contains(part));
            ensure!(
                line["check"] == *check
                    && line["interface"].as_str() == *interface
                    && line["result"] == *result
                    && holds("found", found)
                    && holds("advice", advice),
                "not {check} {interface:?} {result} {found:?} {advice:?}, but {line}"
            );
        }
        let failures = expected.iter().filter(|row| row.2 == "fail").count();
        let code = i32::from(failures > 0);
        ensure!(
            self.code == Some(code),
            "exit code {:?}, not {code}:\n{}",
            self.code,
            shown()
        );
        let last = format!(
            "xdp-dedup: {failures} of {} checks failed\n",
            self.lines.len()
        );
        let wanted = if failures > 0 { last } else { String::new() };
        ensure!(self.stderr == wanted, "on standard error: {}", self.stderr);
        Ok(())
    }

    /// What was found of this, where it is not wrong.
    pub fn found(&self, check: &str) -> Result<&str> {
        self.lines
            .iter()
            .find(|line| line["check"] == check)
            .and_then(|line| line["found"].as_str())
            .with_context(|| format!("no line of {check}"))
    }

    /// The names of what was looked at, in the order of the output.
    pub fn checks(&self) -> Vec<&str> {
        let names = self.lines.iter().map(|line| line["check"].as_str());
        names.map(Option::unwrap_or_default).collect()
    }
}
