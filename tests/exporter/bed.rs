//! A daemon with traffic, and clients of its exporter that mean no good.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use testbed::wait::until;
use testbed::{
    binary::binary,
    daemon::Daemon,
    frame::{ClientMessage, message_type, relayed, reported},
    namespace::Namespace,
    sender::Sender,
    veth::{End, join},
};

/// Most time that anything may take, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Connections that the exporter keeps open at once.
pub const PLACES: usize = 64;

/// File descriptors that a scrape takes for a moment, and some more.
const BRIEFLY_OPEN: usize = 16;

/// What the process may grow by, in KiB: answers for all places, many times over.
const GROWTH: usize = 32 * 1024;

const METRICS: &str = "[::1]:9757";

/// A server's interface with the filter on it, and frames coming in.
pub struct Bed {
    pub here: Namespace,
    pub daemon: Daemon,
    sender: Sender,
    /// File descriptors and KiB of the daemon when nobody had asked anything of it but for a scrape.
    before: (usize, usize),
    pairs: u8,
}

impl Bed {
    pub fn new() -> Result<Self> {
        let (here, there) = (Namespace::new("server")?, Namespace::new("relays")?);
        let end = End::new(&here, "server0", [2, 0, 0, 0, 0, 1]);
        let other = End::new(&there, "relay0", [2, 0, 0, 0, 0, 2]);
        join(&end, &other)?;
        let sender = Sender::new(&other)?;
        let arguments = ["-i", "server0", "--window", "60s"];
        let daemon = Daemon::start(&binary()?, &here, &arguments)?;
        let mut bed = Self {
            here,
            daemon,
            sender,
            before: (0, 0),
            pairs: 0,
        };
        bed.must_filter()?;
        bed.before = (bed.open_files()?, bed.kibibytes()?);
        Ok(bed)
    }

    /// A connection to the exporter.
    pub fn connect(&self) -> Result<TcpStream> {
        let stream = self.here.inside(|| TcpStream::connect(METRICS))??;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// So many of them.
    pub fn connect_many(&self, count: usize) -> Result<Vec<TcpStream>> {
        let streams = self.here.inside(|| {
            let streams = (0..count).map(|_| TcpStream::connect(METRICS));
            streams.collect::<Result<Vec<_>, _>>()
        })??;
        for stream in &streams {
            stream.set_read_timeout(Some(PATIENCE))?;
        }
        Ok(streams)
    }

    /// Sends these bytes, and hands back what comes until the exporter closes.
    pub fn say(&self, bytes: &[u8]) -> Result<String> {
        let mut stream = self.connect()?;
        // It may close before it has read all.
        let _ = stream.write_all(bytes);
        until_closed(&mut stream)
    }

    /// As [`say`](Self::say), by a client that closes its side when it has asked.
    pub fn say_and_close(&self, bytes: &[u8]) -> Result<String> {
        let mut stream = self.connect()?;
        stream.write_all(bytes)?;
        stream.shutdown(Shutdown::Write)?;
        until_closed(&mut stream)
    }

    /// A proper scrape is answered, the filter filters, and the process has not grown.
    pub fn must_be_well(&mut self) -> Result<()> {
        self.must_filter()?;
        ensure!(self.daemon.get("/healthz")? == "ok\n");
        let (files, kibibytes) = self.before;
        let most = files + PLACES + BRIEFLY_OPEN;
        let open = self.open_files()?;
        ensure!(open <= most, "{open} open files, {files} at first");
        let now = self.kibibytes()?;
        ensure!(now <= kibibytes + GROWTH, "{now} KiB, {kibibytes} at first");
        Ok(())
    }

    /// Waits until no connection is open any more.
    pub fn until_all_are_closed(&self) -> Result<()> {
        let (files, _) = self.before;
        until("as many open files as at first", || {
            Ok((self.open_files()? <= files).then_some(()))
        })
    }

    /// The second copy of a new message is dropped, and a scrape says so.
    fn must_filter(&mut self) -> Result<()> {
        self.pairs += 1;
        let message = ClientMessage::new(message_type::SOLICIT, [0, 0, self.pairs]);
        for relay in [reported::RELAY_A, reported::RELAY_B] {
            let frame = relayed(relay, reported::SERVER, reported::CLIENT, &message);
            self.sender.send(&frame.bytes())?;
        }
        let dropped = ["verdict=\"drop\"", "reason=\"duplicate\""];
        until("one more copy dropped", || {
            let metrics = self.daemon.metrics()?;
            let count = metrics.value("xdp_dedup_packets_total", &dropped);
            Ok((count == Some(self.pairs.into())).then_some(()))
        })
    }

    pub fn open_files(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.daemon.pid()))?.count())
    }

    fn kibibytes(&self) -> Result<usize> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.pid()))?;
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.context("no VmRSS")?.parse()?)
    }

    /// CPU time that it has taken so far.
    pub fn cpu_time(&self) -> Result<Duration> {
        // proc(5): utime and stime are the 14th and 15th field, in ticks of 10 ms.
        const TICK: Duration = Duration::from_millis(10);
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.daemon.pid()))?;
        let (_, rest) = stat.rsplit_once(')').context("no name")?;
        let ticks = rest.split_whitespace().skip(11).take(2);
        let ticks: u32 = ticks.map(str::parse::<u32>).sum::<Result<_, _>>()?;
        Ok(TICK * ticks)
    }
}

/// What comes until the other side closes, in whatever way.
pub fn until_closed(stream: &mut TcpStream) -> Result<String> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => {
            Err(error).context("the exporter does not close")
        }
        _ => Ok(String::from_utf8_lossy(&bytes).into_owned()),
    }
}
