//! The filter's daemon, `xdp-dedup run`, in a namespace, and what its exporter says.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::bpf_file_system::{BpfFileSystem, mount_private};
use crate::namespace::Namespace;

/// Where the exporter listens unless told otherwise.
const METRICS_PORT: u16 = 9757;

/// Most time that the daemon may take to come up, or to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// Most time that one answer of the exporter may take.
const ANSWER: Duration = Duration::from_secs(5);

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    namespace: Namespace,
    child: Child,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts `binary run` with these arguments in the namespace, and waits until its exporter
    /// answers: from then on it filters. It has a BPF file system of its own under `/sys/fs/bpf`,
    /// which goes with it. It dies when the calling thread ends.
    ///
    /// # Errors
    ///
    /// With its log, where it gives up or does not come up in ten seconds.
    pub fn start(binary: &Path, namespace: &Namespace, arguments: &[&str]) -> Result<Self> {
        Self::start_with(binary, namespace, arguments, |_| {})
    }

    /// As [`start`](Self::start), after a last change to the command.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_with(
        binary: &Path,
        namespace: &Namespace,
        arguments: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        Self::spawn(binary, namespace, arguments, |command| {
            // SAFETY: between fork and exec this makes system calls only, with constant arguments.
            unsafe { command.pre_exec(mount_private) };
            change(command);
        })
    }

    /// As [`start`](Self::start), on a BPF file system that others share.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_on(
        pins: &BpfFileSystem,
        binary: &Path,
        namespace: &Namespace,
        arguments: &[&str],
    ) -> Result<Self> {
        Self::spawn(binary, namespace, arguments, |command| {
            pins.show_to(command);
        })
    }

    fn spawn(
        binary: &Path,
        namespace: &Namespace,
        arguments: &[&str],
        change: impl FnOnce(&mut Command),
    ) -> Result<Self> {
        let mut command = namespace.command(binary);
        command
            .arg("run")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        change(&mut command);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", binary.display()))?;
        let log = Arc::new(Mutex::new(String::new()));
        let reader = child.stderr.take().map(|stderr| {
            let log = Arc::clone(&log);
            thread::spawn(move || keep(stderr, &log))
        });
        let mut daemon = Self {
            namespace: namespace.clone(),
            child,
            log,
            reader,
        };
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("`xdp-dedup run` gave up ({status}): {}", self.whole_log());
            }
            let Err(error) = self.get("/healthz") else {
                return Ok(());
            };
            if start.elapsed() > PATIENCE {
                return Err(error.context(format!("`xdp-dedup run` is not ready: {}", self.log())));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Where it runs, which outlives it.
    ///
    /// # Errors
    ///
    /// Where it is gone.
    pub fn place(&self) -> Result<Place> {
        let pins = BpfFileSystem::of_process(self.pid())
            .context("the daemon is gone, and its BPF file system with it")?;
        Ok(Place {
            namespace: self.namespace.clone(),
            pins,
        })
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        lock(&self.log).clone()
    }

    /// The log of a process that has ended, when the reader has reached its end.
    fn whole_log(&mut self) -> String {
        // A reader that panicked has read what it has read.
        let _ = self.reader.take().map(JoinHandle::join);
        self.log().trim().to_owned()
    }

    /// What its exporter says now.
    ///
    /// # Errors
    ///
    /// Where the exporter does not answer.
    pub fn metrics(&self) -> Result<Metrics> {
        self.get("/metrics").map(Metrics)
    }

    /// What its exporter has at this path.
    ///
    /// # Errors
    ///
    /// Where it does not answer, or with another status than 200.
    pub fn get(&self, path: &str) -> Result<String> {
        self.namespace.inside(|| get(path))?
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// Where it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal::kill(self.pid(), signal).with_context(|| format!("cannot send {signal}"))
    }

    /// Sends it a signal and waits for its end.
    ///
    /// # Errors
    ///
    /// With its log, where it has not ended after ten seconds.
    pub fn stop(self, signal: Signal) -> Result<ExitStatus> {
        Ok(self.stop_and_log(signal)?.0)
    }

    /// The same, and hands back its whole log.
    ///
    /// # Errors
    ///
    /// As for [`stop`](Self::stop).
    pub fn stop_and_log(mut self, signal: Signal) -> Result<(ExitStatus, String)> {
        self.signal(signal)?;
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok((status, self.whole_log()));
            }
            if start.elapsed() > PATIENCE {
                bail!("`xdp-dedup run` stays after {signal}: {}", self.log());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already; then neither has anything to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A network namespace and the BPF file system of a daemon in it, with what it leaves there.
#[derive(Clone, Debug)]
pub struct Place {
    namespace: Namespace,
    pins: BpfFileSystem,
}

impl Place {
    /// A command that will run there, and die when the thread that starts it ends.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.namespace.command(program);
        self.pins.show_to(&mut command);
        command
    }
}

/// How a `run` ended that was not to come up.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Its exit code.
    pub code: Option<i32>,
    /// What it said on stderr.
    pub stderr: String,
    /// What it left on the BPF file system, a name a line.
    pub left: String,
}

/// Runs `binary run` with these arguments in the namespace until it ends by itself, on a BPF file
/// system of its own.
///
/// # Errors
///
/// Where it cannot be started.
pub fn attempt(binary: &Path, namespace: &Namespace, arguments: &[&str]) -> Result<Attempt> {
    let mut command = namespace.command("sh");
    command
        .args(["-c", "\"$@\"; code=$?; ls -A /sys/fs/bpf; exit $code", "sh"])
        .arg(binary)
        .arg("run")
        .args(arguments)
        .stdin(Stdio::null());
    // SAFETY: as in `Daemon::start_with`.
    unsafe { command.pre_exec(mount_private) };
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", binary.display()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // The kernel's own files in a BPF file system.
    let left = text(&output.stdout)
        .replace("maps.debug\n", "")
        .replace("progs.debug\n", "");
    Ok(Attempt {
        code: output.status.code(),
        stderr: text(&output.stderr),
        left,
    })
}

fn keep(stderr: ChildStderr, log: &Mutex<String>) {
    for line in BufReader::new(stderr).lines() {
        let Ok(line) = line else { return };
        let mut log = lock(log);
        log.push_str(&line);
        log.push('\n');
    }
}

fn lock(log: &Mutex<String>) -> MutexGuard<'_, String> {
    // Text is whole after any panic.
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request of HTTP/1.0: the answer ends where the connection does.
fn get(path: &str) -> Result<String> {
    let exporter = SocketAddr::from((Ipv6Addr::LOCALHOST, METRICS_PORT));
    let mut stream = TcpStream::connect_timeout(&exporter, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {exporter}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("{path}: {status}: {}", body.trim());
    }
    Ok(body.to_owned())
}

/// What an exporter said, in the text format of Prometheus.
#[derive(Clone, Debug)]
pub struct Metrics(pub String);

impl Metrics {
    /// Frames by verdict and reason on one interface; those that are zero are left out.
    pub fn packets(&self, interface: &str) -> BTreeMap<(String, String), u64> {
        let interface = format!("interface=\"{interface}\"");
        self.lines("xdp_dedup_packets_total")
            .filter(|line| line.contains(&interface))
            .filter_map(|line| {
                let count = value(line).filter(|count| *count > 0.0)?;
                let key = (label(line, "verdict")?, label(line, "reason")?);
                Some((key, count as u64))
            })
            .collect()
    }

    /// The value of the one series that has this name, and all of these labels as `key="value"`.
    pub fn value(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let mut lines = self
            .lines(name)
            .filter(|line| labels.iter().all(|label| line.contains(label)));
        let found = lines.next().and_then(value);
        found.filter(|_| lines.next().is_none())
    }

    /// The lines with a value of this name.
    pub fn lines(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.lines().filter(move |line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        })
    }
}

fn value(line: &str) -> Option<f64> {
    line.rsplit(' ').next()?.parse().ok()
}

fn label(line: &str, name: &str) -> Option<String> {
    let (_, rest) = line.split_once(&format!("{name}=\""))?;
    Some(rest.split_once('"')?.0.to_owned())
}
