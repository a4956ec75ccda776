//! Runs other programs, and makes of their failures errors that say what to do.

use std::env;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};

/// Runs a command on this process's own terminal; its failure is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command on this process's own terminal and hands back how it ended.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    command
        .status()
        .map_err(|error| cannot_start(command, error))
}

/// Runs a command quietly, for at most `limit`, and hands back its stdout.
/// The error of a failed one holds the end of its stderr.
pub fn capture(command: &mut Command, limit: Duration) -> Result<String> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| cannot_start(command, error))?;
    // Read beside the wait: a full pipe would stop the child.
    let stdout = read_beside(child.stdout.take());
    let stderr = read_beside(child.stderr.take());

    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            bail!(
                "`{}` was stopped after {} s",
                shown(command),
                limit.as_secs()
            );
        }
        thread::sleep(Duration::from_millis(10));
    };
    let text = |reader: thread::JoinHandle<String>| {
        reader
            .join()
            .map_err(|_| anyhow!("`{}`: reading its output failed", shown(command)))
    };
    let (stdout, stderr) = (text(stdout)?, text(stderr)?);
    if !status.success() {
        bail!(
            "`{}` failed ({status}): {}",
            shown(command),
            last_lines(&stderr, 4)
        );
    }
    Ok(stdout)
}

/// The exit code for a command whose outcome is ours; one killed by a signal counts as failed.
pub fn exit_code(status: ExitStatus) -> ExitCode {
    match status.code().map(u8::try_from) {
        Some(Ok(code)) => ExitCode::from(code),
        _ => ExitCode::FAILURE,
    }
}

/// A process's folder in /proc belongs to its effective user: no syscall wrapper needed.
pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// Is an error with advice if one of the programs is not on the PATH.
pub fn require(programs: &[&str]) -> Result<()> {
    for program in programs {
        if !on_path(program) {
            bail!("`{program}` is not on the PATH: {}", advice(program));
        }
    }
    Ok(())
}

fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn advice(program: &str) -> &'static str {
    match program {
        "cc" => {
            "install a C compiler (Debian: apt-get install gcc libc6-dev; Fedora: dnf install gcc)"
        }
        "cargo" | "rustc" | "rustup" => "install Rust by rustup, or put ~/.cargo/bin on the PATH",
        "tar" => "install tar",
        "xz" => "install xz (Debian: apt-get install xz-utils; Fedora: dnf install xz)",
        "dpkg-shlibdeps" => {
            "install it (Debian: apt-get install dpkg-dev); other systems have none"
        }
        "apt-get" | "dpkg-deb" => "only Debian and its derivatives have it",
        _ => "install it",
    }
}

fn cannot_start(command: &Command, error: io::Error) -> anyhow::Error {
    let program = command.get_program().to_string_lossy();
    let why = match error.kind() {
        io::ErrorKind::NotFound => format!("not found; {}", advice(&program)),
        _ => error.to_string(),
    };
    anyhow!("cannot start `{program}`: {why}")
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy()));
    words.join(" ")
}

fn read_beside(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read before an error is still worth showing.
            let _ = stream.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(count)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<String> {
        capture(
            Command::new("sh").args(["-c", script]),
            Duration::from_millis(500),
        )
    }

    #[test]
    fn a_command_that_worked_hands_back_its_stdout() {
        assert_eq!(shell("echo out; echo err >&2").unwrap(), "out\n");
    }

    #[test]
    fn a_command_that_did_not_work_says_why() {
        for (script, why) in [
            ("echo reason >&2; exit 3", "exit status: 3): reason"),
            ("exec sleep 60", "was stopped after"),
        ] {
            let error = shell(script).unwrap_err().to_string();
            assert!(error.contains(why), "{script}: {error}");
        }
        let error = capture(&mut Command::new("no-such-program"), Duration::MAX).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot start `no-such-program`: not found; install it"
        );
    }

    #[test]
    fn only_the_last_lines_of_a_long_complaint_are_kept() {
        for (text, kept) in [
            ("", ""),
            ("a\n", "a"),
            ("a\n\n b\n", "a; b"),
            ("a\nb\nc\nd\ne", "b; c; d; e"),
        ] {
            assert_eq!(last_lines(text, 4), kept, "{text:?}");
        }
    }
}
