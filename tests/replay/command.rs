//! Running `xdp-dedup replay` and reading what it says.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use testbed::binary::binary;

/// All captures that come with the tests, in the order of their names.
pub fn captures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("captures");
    let mut captures: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension() == Some(OsStr::new("pcap")))
        .collect();
    captures.sort();
    captures
}

/// The capture of this name.
pub fn capture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("captures")
        .join(name)
        .with_extension("pcap")
}

/// A path's file name.
pub fn name(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// `xdp-dedup replay`, without arguments as yet.
pub fn replay() -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.arg("replay").stdin(Stdio::null());
    Ok(command)
}

/// What a replay with `--json` reported.
#[derive(Debug)]
pub struct Replayed {
    /// The lines of the frames.
    pub frames: Vec<Value>,
    /// What the last line says.
    pub summary: Value,
    /// The exit code.
    pub code: i32,
    /// Standard error.
    pub stderr: String,
}

impl Replayed {
    fn from_output(output: &Output) -> Result<Self> {
        let mut frames = String::from_utf8(output.stdout.clone())?
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}")))
            .collect::<Result<Vec<Value>>>()?;
        Ok(Self {
            summary: frames
                .pop()
                .and_then(|mut last| last.get_mut("summary").map(Value::take))
                .unwrap_or_default(),
            frames,
            code: output.status.code().context("killed by a signal")?,
            stderr: String::from_utf8(output.stderr.clone())?,
        })
    }

    /// Verdict and reason of each frame.
    pub fn decisions(&self) -> Vec<(&str, &str)> {
        self.frames
            .iter()
            .map(|frame| {
                let text = |key: &str| frame[key].as_str().unwrap_or_default();
                (text("verdict"), text("reason"))
            })
            .collect()
    }

    /// The reasons alone.
    pub fn reasons(&self) -> Vec<&str> {
        self.decisions()
            .into_iter()
            .map(|(_, reason)| reason)
            .collect()
    }

    /// Fails unless the command failed with one line on standard error, which holds `text`.
    pub fn expect_error(&self, text: &str) -> Result<()> {
        ensure!(
            self.code == 1
                && self.stderr.starts_with("xdp-dedup: cannot ")
                && self.stderr.ends_with('\n')
                && self.stderr.lines().count() == 1
                && self.stderr.contains(text),
            "exit code {} with {:?}, expected 1 and one line with {text:?}",
            self.code,
            self.stderr
        );
        Ok(())
    }

    /// Fails unless the command succeeded and said nothing on standard error.
    pub fn expect_success(self) -> Result<Self> {
        if self.code != 0 || !self.stderr.is_empty() {
            bail!("exit code {} with {:?}", self.code, self.stderr);
        }
        Ok(self)
    }
}

/// Replays a file through the userspace engine, whatever comes of it.
pub fn try_file(path: &Path, arguments: &[&str]) -> Result<Replayed> {
    let output = replay()?
        .arg(path)
        .args(["--engine", "userspace", "--json"])
        .args(arguments)
        .output()?;
    Replayed::from_output(&output)
}

/// Replays a file through the userspace engine; fails where that does.
pub fn file(path: &Path, arguments: &[&str]) -> Result<Replayed> {
    try_file(path, arguments)?
        .expect_success()
        .with_context(|| format!("{}", path.display()))
}

/// Replays these bytes from standard input through the userspace engine, whatever comes of it.
pub fn try_bytes(capture: &[u8], arguments: &[&str]) -> Result<Replayed> {
    let mut child = replay()?
        .args(["-", "--engine", "userspace", "--json"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no pipe")?;
    let output = thread::scope(|scope| {
        scope.spawn(move || {
            // Where the capture is refused at its start, nobody reads the rest.
            let _ = stdin.write_all(capture);
        });
        child.wait_with_output()
    })?;
    Replayed::from_output(&output)
}

/// Replays these bytes from standard input; fails where that does.
pub fn bytes(capture: &[u8], arguments: &[&str]) -> Result<Replayed> {
    try_bytes(capture, arguments)?.expect_success()
}
