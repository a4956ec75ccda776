//! `run`: the daemon that holds the filter on its interfaces.

use std::{
    collections::BTreeSet,
    net::{Ipv6Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};
use xdp_dedup_common::{
    Policy,
    digest::DigestKey,
    policy::{IdentityBy, Window},
};

use crate::{
    attachment::{AttachOptions, Attachment, Mode},
    cli::usage,
    config,
    interfaces::{self, Interface},
    kernel::{DEFAULT_CAPACITY, MAX_INTERFACES},
    metrics::{InterfaceStatus, Snapshot},
    pins::PinFolder,
    policy::PolicyFlags,
    server,
};

/// 9547 is the port of Kea's exporter.
const DEFAULT_METRICS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 9757);

/// How soon it is noticed that the filter is no longer attached.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Arguments of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Read flags from this TOML file, its keys being their names; the command line wins; SIGHUP
    /// reads it again
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// The flags that can also stand in the file.
    #[command(flatten)]
    pub flags: RunFlags,
}

/// Flags of `run` that can also stand in the configuration file.
#[derive(Args, Clone, Debug, Default)]
pub struct RunFlags {
    /// Attach to this interface; can be given several times, and then one table serves them all
    #[arg(short, long = "interface", value_name = "IFACE")]
    pub interfaces: Vec<String>,

    /// Run in the NIC's driver, or in the kernel's stack for drivers without XDP [default: native]
    #[arg(long, value_enum, value_name = "MODE", hide_possible_values = false)]
    pub mode: Option<Mode>,

    /// The policy.
    #[command(flatten)]
    pub policy: PolicyFlags,

    /// Transactions that the table has room for: several times those that live at once, and 256 more
    /// for each CPU [default: 65536]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1024..=16_777_216))]
    pub capacity: Option<u32>,

    /// Serve Prometheus metrics here, or `off` [default: [::1]:9757]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_metrics)]
    pub metrics: Option<Metrics>,
}

/// Values of `--metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metrics {
    /// Nowhere.
    Off,
    /// At this address and port.
    At(SocketAddr),
}

fn parse_metrics(text: &str) -> Result<Metrics, String> {
    if text == "off" {
        return Ok(Metrics::Off);
    }
    text.parse().map(Metrics::At).map_err(|_| {
        "an address and a port, such as [::1]:9757 or 127.0.0.1:9757, or off".to_owned()
    })
}

impl RunFlags {
    /// These flags, and those of `other` where these say nothing.
    pub fn or(self, other: Self) -> Self {
        Self {
            interfaces: if self.interfaces.is_empty() {
                other.interfaces
            } else {
                self.interfaces
            },
            mode: self.mode.or(other.mode),
            policy: self.policy.or(other.policy),
            capacity: self.capacity.or(other.capacity),
            metrics: self.metrics.or(other.metrics),
        }
    }
}

/// What the command line and the file come to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Settings {
    interfaces: Vec<String>,
    mode: Mode,
    policy: Policy,
    capacity: u32,
    metrics: Metrics,
}

impl Settings {
    fn read(args: &RunArgs, key: DigestKey) -> Result<Self> {
        let flags = match &args.config {
            Some(file) => args.flags.clone().or(config::read(file)?),
            None => args.flags.clone(),
        };
        if flags.interfaces.is_empty() {
            return Err(usage(
                "no interface to attach to: give one with -i IFACE, or `interface` in the file",
            ));
        }
        if flags.interfaces.len() > MAX_INTERFACES {
            return Err(usage(format!(
                "at most {MAX_INTERFACES} interfaces can share a table"
            )));
        }
        let twice = |name| {
            flags
                .interfaces
                .iter()
                .filter(|other| *other == name)
                .count()
                > 1
        };
        if let Some(name) = flags.interfaces.iter().find(|name| twice(*name)) {
            return Err(usage(format!("interface {name} is named twice")));
        }
        Ok(Self {
            interfaces: flags.interfaces,
            mode: flags.mode.unwrap_or_default(),
            policy: flags.policy.policy(key),
            capacity: flags.capacity.unwrap_or(DEFAULT_CAPACITY),
            metrics: flags.metrics.unwrap_or(Metrics::At(DEFAULT_METRICS)),
        })
    }
}

/// The program on all interfaces of this `run`.
struct Filter {
    attachments: Vec<Attachment>,
    capacity: u32,
    /// Held while the table is read: one scrape after the other.
    reading: tokio::sync::Mutex<()>,
}

/// Attaches, serves, and detaches at SIGINT or SIGTERM.
///
/// # Errors
///
/// One line that says what was tried, why it failed and what to do; nothing is then left attached
/// or pinned.
pub fn run(args: RunArgs) -> Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
    let key = random_key()?;
    let settings = Settings::read(&args, key)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(serve(&args, settings, key));
    // A scrape of a large table may still be under way; nobody waits for it.
    runtime.shutdown_background();
    result
}

async fn serve(args: &RunArgs, settings: Settings, key: DigestKey) -> Result<()> {
    // Before anything is attached, so that no signal ends the process half way.
    let mut signals = Signals::new()?;
    let all = interfaces::all().await?;
    let chosen = interfaces::choose(&settings.interfaces, &all)?;
    // Before the port, which another `run` would have too. Goes last: the maps are in use till then.
    let pins = PinFolder::create()?;
    let listener = match settings.metrics {
        Metrics::Off => None,
        Metrics::At(address) => Some(listen(address)?),
    };
    let filter = Arc::new(attach(&chosen, &settings, &pins)?);
    warn_of(&settings);
    if let Some(listener) = listener {
        tokio::spawn(server::serve(listener, Arc::clone(&filter)));
    }
    service_manager(&[NotifyState::Ready]);

    let mut watch = Watch::default();
    let mut policy = settings.policy;
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Reload => {
                    service_manager(&reloading());
                    policy = reload(args, &settings, policy, key, &filter);
                    service_manager(&[NotifyState::Ready]);
                }
                Asked::Leave(name) => {
                    info!("{name}: detaching");
                    break;
                }
            },
            () = tokio::time::sleep(WATCH_INTERVAL) => watch.look(&filter).await,
        }
    }
    service_manager(&[NotifyState::Stopping]);
    detach(&filter).await
}

/// Attaches to all interfaces or, where one refuses, to none.
fn attach(chosen: &[Interface], settings: &Settings, pins: &PinFolder) -> Result<Filter> {
    let options = AttachOptions {
        mode: settings.mode,
        capacity: settings.capacity,
        policy: &settings.policy,
        pins: pins.path(),
    };
    let mut attachments = Vec::new();
    for (slot, interface) in (0..).zip(chosen) {
        let attachment = Attachment::attach(interface, slot, &options)?;
        info!(
            interface = interface.name,
            mode = %settings.mode,
            program = attachment.program_id,
            "attached"
        );
        attachments.push(attachment);
    }
    Ok(Filter {
        attachments,
        capacity: settings.capacity,
        reading: tokio::sync::Mutex::default(),
    })
}

/// Detaches from all interfaces and asks the kernel whether that is so.
async fn detach(filter: &Filter) -> Result<()> {
    for attachment in &filter.attachments {
        attachment.detach()?;
    }
    let all = interfaces::all().await?;
    for attachment in &filter.attachments {
        let Interface { name, index, .. } = &attachment.interface;
        if attachment.is_attached(&all) {
            bail!("the program is still on {name}; it goes when this process ends");
        } else if all.contains_key(index) {
            info!(interface = name, "detached");
        } else {
            info!(interface = name, "gone before");
        }
    }
    Ok(())
}

/// Looks whether the filter still is where it was put, and says so once if not.
#[derive(Default)]
struct Watch {
    missed: BTreeSet<u32>,
}

impl Watch {
    async fn look(&mut self, filter: &Filter) {
        let all = match interfaces::all().await {
            Ok(all) => all,
            Err(error) => return error!("cannot tell whether the filter is attached: {error:#}"),
        };
        for attachment in &filter.attachments {
            let interface = &attachment.interface;
            if !attachment.is_attached(&all) && self.missed.insert(interface.index) {
                error!(
                    interface = interface.name,
                    "the filter is no longer attached: the interface is gone, or another tool has \
                     taken the program off; restart `xdp-dedup run` to attach it again"
                );
            }
        }
    }
}

/// Reads the configuration again and puts what can change live in force; returns the policy then in
/// force. Whatever is wrong with the file, the running policy stays.
fn reload(
    args: &RunArgs,
    started: &Settings,
    running: Policy,
    key: DigestKey,
    filter: &Filter,
) -> Policy {
    let settings = match Settings::read(args, key) {
        Ok(settings) => settings,
        Err(error) => {
            error!("the policy stays as it was: {error:#}");
            return running;
        }
    };
    if (Settings {
        policy: started.policy,
        ..settings.clone()
    }) != *started
    {
        warn!("interface, mode, capacity and metrics change with a restart only");
    }
    // One map serves all attachments.
    let updated = match filter.attachments.first() {
        Some(attachment) => attachment.kernel.set_policy(&settings.policy),
        None => Ok(()),
    };
    match updated {
        Ok(()) => {
            warn_of(&settings);
            info!(changed = settings.policy != running, "policy read again");
            settings.policy
        }
        Err(error) => {
            error!("the policy stays as it was: {error:#}");
            running
        }
    }
}

/// What an operator should know of these settings.
fn warn_of(settings: &Settings) {
    let policy = &settings.policy;
    if policy.window() > Window::ADVISED {
        warn!(
            "a window of over {} ms drops iPXE's first retransmission too",
            Window::ADVISED.length().0 / 1000
        );
    }
    if policy.identity() == IdentityBy::TransactionId {
        warn!("by transaction-id alone, clients that happen to choose the same one are cut off");
    }
    if policy.observe() {
        info!("observing only: nothing is dropped");
    }
    let kept_aside = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_CONF)
        .ok()
        .flatten()
        .and_then(|cpus| u32::try_from(cpus * 256).ok());
    if let Some(kept_aside) = kept_aside.filter(|&entries| settings.capacity < 2 * entries) {
        warn!(
            "of {} entries the kernel may keep {kept_aside} aside for its CPUs: raise --capacity",
            settings.capacity
        );
    }
}

impl server::Source for Filter {
    async fn snapshot(self: Arc<Self>) -> Result<Snapshot> {
        let all = interfaces::all().await?;
        let filter = Arc::clone(&self);
        let _one_at_a_time = self.reading.lock().await;
        // Reading a large table takes milliseconds: not on the thread that waits for signals.
        tokio::task::spawn_blocking(move || {
            let mut interfaces = Vec::new();
            for (slot, attachment) in (0..).zip(&filter.attachments) {
                interfaces.push(InterfaceStatus {
                    name: attachment.interface.name.clone(),
                    mode: attachment.mode,
                    attached: attachment.is_attached(&all),
                    program_id: attachment.program_id,
                    program_tag: attachment.program_tag,
                    counters: attachment.kernel.counters(slot)?,
                });
            }
            let capacity = filter.capacity;
            let first = filter.attachments.first();
            let table_entries = first.map_or(0, |attachment| attachment.kernel.table_entries());
            Ok(Snapshot {
                interfaces,
                table_entries,
                table_capacity: capacity,
            })
        })
        .await
        .context("the scrape was interrupted")?
    }

    async fn health(self: Arc<Self>) -> Result<()> {
        let all = interfaces::all().await?;
        for attachment in &self.attachments {
            ensure!(
                attachment.is_attached(&all),
                "not attached to {}",
                attachment.interface.name
            );
        }
        Ok(())
    }
}

/// Tells systemd, if it started this process (`Type=notify`).
fn service_manager(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("cannot tell the service manager: {error}");
    }
}

fn reloading() -> Vec<NotifyState<'static>> {
    // systemd wants to know since when (sd_notify(3)).
    let since = NotifyState::monotonic_usec_now().ok();
    [NotifyState::Reloading].into_iter().chain(since).collect()
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| {
        format!(
            "cannot serve metrics at {address}: choose another with --metrics ADDR:PORT, or \
             --metrics off"
        )
    })?;
    listener
        .set_nonblocking(true)
        .context("cannot serve metrics")?;
    Ok(listener)
}

fn random_key() -> Result<DigestKey> {
    let mut words = [0; 6];
    getrandom::fill(bytemuck::cast_slice_mut(&mut words))
        .map_err(|error| anyhow::anyhow!("cannot draw a random key: {error}"))?;
    Ok(DigestKey::new(words))
}

/// What a signal asks for.
enum Asked {
    Reload,
    Leave(&'static str),
}

struct Signals {
    hang_up: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let on = |kind| signal(kind).context("cannot handle signals");
        Ok(Self {
            hang_up: on(SignalKind::hangup())?,
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.hang_up.recv() => Asked::Reload,
            _ = self.interrupt.recv() => Asked::Leave("SIGINT"),
            _ = self.terminate.recv() => Asked::Leave("SIGTERM"),
        }
    }
}
