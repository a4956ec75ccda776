//! A real Prometheus beside the filter's daemon, and what it answers.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::namespace::Namespace;

/// Where it listens; it has a namespace to itself and the daemon.
const PORT: u16 = 9090;

/// Most time that it may take to come up, or to scrape what it is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it scrapes, in its own words.
const INTERVAL: &str = "200ms";

/// A program of Prometheus': the machine's own, or the one that the set-up took out of Debian's
/// package.
pub fn program(name: &str) -> Option<PathBuf> {
    let set_up = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/setup/bin");
    [PathBuf::from(name), set_up.join(name)]
        .into_iter()
        .find(|program| {
            let mut version = Command::new(program);
            version
                .arg("--version")
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            version.status().is_ok_and(|status| status.success())
        })
}

/// A running Prometheus that scrapes the daemon in its namespace. Dropping it kills it.
#[derive(Debug)]
pub struct Prometheus {
    namespace: Namespace,
    child: Child,
    folder: TempDir,
}

/// A series of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Prometheus {
    /// Starts it in the namespace with these rules, and waits until it has scraped twice: rates are
    /// then to be had. It dies when the calling thread ends.
    ///
    /// # Errors
    ///
    /// With its log, where it does not come up or the daemon does not answer it.
    pub fn start(program: &Path, namespace: &Namespace, rules: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let configuration = format!(
            "global:\n  scrape_interval: {INTERVAL}\n  evaluation_interval: {INTERVAL}\n\
             rule_files: ['{}']\n\
             scrape_configs:\n  - job_name: xdp-dedup\n    static_configs:\n      \
             - targets: ['[::1]:9757']\n",
            fs::canonicalize(rules)?.display()
        );
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, configuration)?;
        let log = fs::File::create(folder.path().join("log"))?;
        let child = namespace
            .command(program)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--web.listen-address=[::1]:{PORT}"))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut prometheus = Self {
            namespace: namespace.clone(),
            child,
            folder,
        };
        prometheus.until("two scrapes", |prometheus| {
            let scrapes = prometheus.query("count_over_time(xdp_dedup_build_info[1m])")?;
            Ok(scrapes.iter().any(|series| series.value >= 2.0))
        })?;
        Ok(prometheus)
    }

    /// Waits until it has scraped `text`'s series named `name` with these labels at this value.
    ///
    /// # Errors
    ///
    /// Where it has not in a minute.
    pub fn until_it_knows(&mut self, expression: &str, value: f64) -> Result<()> {
        self.until(&format!("{expression} = {value}"), |prometheus| {
            let found = prometheus.query(expression)?;
            Ok(found.iter().any(|series| series.value == value))
        })
    }

    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        loop {
            let looked = is_so(self);
            if let Ok(true) = looked {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("Prometheus gave up ({status}): {}", self.log());
            }
            if start.elapsed() > PATIENCE {
                // What was wrong last, if that was it.
                looked?;
                bail!("Prometheus: in vain: {what}: {}", self.log());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What an expression comes to at the time of the last scrape: there, and only there, an increase
    /// from zero is what was counted, since nothing is extrapolated.
    ///
    /// # Errors
    ///
    /// Where Prometheus refuses the expression, or does not answer.
    pub fn query_at_last_scrape(&self, expression: &str) -> Result<Vec<Series>> {
        let last = self.query("timestamp(xdp_dedup_build_info)")?;
        let last = last.first().context("no scrape yet")?.value;
        self.ask(&format!(
            "/api/v1/query?time={last:.3}&query={}",
            encoded(expression)
        ))
    }

    /// What an expression comes to now.
    ///
    /// # Errors
    ///
    /// As [`query_at_last_scrape`](Self::query_at_last_scrape).
    pub fn query(&self, expression: &str) -> Result<Vec<Series>> {
        self.ask(&format!("/api/v1/query?query={}", encoded(expression)))
    }

    fn ask(&self, path: &str) -> Result<Vec<Series>> {
        let answer = self.get(path)?;
        let result = answer["data"]["result"].as_array();
        let result = result.with_context(|| format!("{path}: {answer}"))?;
        result.iter().map(Series::read).collect()
    }

    /// The rules that it has loaded, by name, with what is wrong with each, if anything.
    ///
    /// # Errors
    ///
    /// Where it does not answer.
    pub fn rules(&self) -> Result<BTreeMap<String, Option<String>>> {
        let answer = self.get("/api/v1/rules")?;
        let groups = answer["data"]["groups"].as_array().context("no groups")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array());
        Ok(rules
            .flatten()
            .map(|rule| {
                let is_well = rule["health"] == "ok";
                let complaint = (!is_well).then(|| rule.to_string());
                (
                    rule["name"].as_str().unwrap_or_default().to_owned(),
                    complaint,
                )
            })
            .collect())
    }

    fn get(&self, path: &str) -> Result<Value> {
        let (head, body) = self.namespace.inside(|| get(path))??;
        let answer: Value =
            serde_json::from_str(&body).with_context(|| format!("{head}: {body}"))?;
        if answer["status"] != "success" {
            bail!("{path}: {}", answer["error"]);
        }
        Ok(answer)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended already; then neither has anything to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Series {
    fn read(series: &Value) -> Result<Self> {
        let labels = series["metric"].as_object().context("no labels")?;
        let value = series["value"][1].as_str().context("no value")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(Self {
            labels: labels
                .iter()
                .map(|(name, value)| (name.clone(), text(value)))
                .collect(),
            value: value.parse()?,
        })
    }
}

/// One request of HTTP/1.0: the answer ends where the connection does.
fn get(path: &str) -> io::Result<(String, String)> {
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv6Addr::LOCALHOST, PORT)))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok((head.to_owned(), body.to_owned()))
}

/// As it stands in a URL.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        // Writing to a string cannot fail.
        let _ = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => write!(encoded, "{}", char::from(byte)),
            _ => write!(encoded, "%{byte:02x}"),
        };
        encoded
    })
}
