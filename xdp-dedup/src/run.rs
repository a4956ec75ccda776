//! `run`: the daemon that holds the filter on its interfaces.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::MissedTickBehavior,
};
use tracing::{error, info, warn};
use xdp_dedup_common::{
    digest::DigestKey,
    policy::{IdentityBy, Window},
};

use crate::{
    attachment::Attachment,
    flags::{Metrics, RunArgs},
    interfaces::{self, Interface},
    log,
    metrics::{InterfaceStatus, Snapshot},
    pins::{self, PinFolder},
    policy::Rules,
    server,
    settings::Settings,
    takeover::{self, Legacy},
    watchdog::Watchdog,
};

/// How soon it is noticed that the filter is no longer attached.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// The program on all interfaces of this `run`.
struct Filter {
    attachments: Vec<Attachment>,
    capacity: u32,
}

/// Attaches or takes over, serves, and at SIGINT or SIGTERM detaches, unless the filter is to go on.
///
/// # Errors
///
/// One line that says what was tried, why it failed and what to do. What an earlier `run` left goes
/// on; nothing else is then left attached or pinned.
pub fn run(args: RunArgs) -> Result<()> {
    log::start();
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

async fn serve(args: &RunArgs, mut settings: Settings, mut key: DigestKey) -> Result<()> {
    // Before anything is attached, so that no signal ends the process half way.
    let mut signals = Signals::new()?;
    let names = settings.interfaces.iter().map(|(name, _)| name.as_str());
    let names: Vec<_> = names.collect();
    // Without any privileges.
    interfaces::choose(names.iter().copied(), &interfaces::all().await?)?;
    // Before the port, which another `run` would have too. Goes last: the maps are in use till then.
    let pins = PinFolder::lock()?;
    // Once more, since another `run` may have left meanwhile.
    let all = interfaces::all().await?;
    let chosen = interfaces::choose(names, &all)?;
    let legacy = Legacy::find(&pins, settings.capacity, &all)?;
    if let Some(inherited) = legacy.digest_key()? {
        key = inherited;
        settings.rules.policy = settings.rules.policy.with_digest_key(key);
    }
    let listener = match settings.metrics {
        Metrics::Off => None,
        Metrics::At(address) => Some(listen(address)?),
    };
    let attachments = takeover::take_over(&chosen, &settings, &pins, legacy).await?;
    let filter = Arc::new(Filter {
        attachments,
        capacity: settings.capacity,
    });
    warn_of(&settings);
    if let Some(listener) = listener {
        tokio::spawn(server::serve(listener, Arc::clone(&filter)));
    }
    service_manager(&[NotifyState::Ready]);

    // Fed by this loop alone: if it hangs, the service manager starts the daemon anew.
    let mut watchdog = Watchdog::new();
    let mut watch = Watch::default();
    let mut time_to_look = tokio::time::interval(WATCH_INTERVAL);
    time_to_look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rules = settings.rules.clone();
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Reload => {
                    service_manager(&reloading());
                    rules = reload(args, &settings, rules, key, &filter);
                    service_manager(&[NotifyState::Ready]);
                }
                Asked::Leave(name) => {
                    info!("{name}: leaving");
                    break;
                }
            },
            () = watchdog.due() => service_manager(&[NotifyState::Watchdog]),
            _ = time_to_look.tick() => watch.look(&filter).await,
        }
    }
    service_manager(&[NotifyState::Stopping]);
    if settings.persist {
        stay(&filter, &pins).await
    } else {
        detach(&filter).await
    }
}

/// Leaves the filter where it is.
async fn stay(filter: &Filter, pins: &PinFolder) -> Result<()> {
    let all = interfaces::all().await?;
    let (mut there, mut gone): (Vec<_>, Vec<_>) = filter
        .attachments
        .iter()
        .partition(|attachment| attachment.is_attached(&all));
    if !gone.is_empty() {
        // A list that was made while interfaces came or went may lack one that is there.
        let all = interfaces::all().await?;
        there.extend(gone.extract_if(.., |attachment| attachment.is_attached(&all)));
    }
    for attachment in gone {
        let Interface { name, index, .. } = &attachment.interface;
        info!(interface = name, "gone before");
        pins::remove(&pins.link(*index))?;
    }
    for attachment in &there {
        info!(interface = attachment.interface.name, "the filter stays");
    }
    if !there.is_empty() {
        info!("the next `xdp-dedup run` takes over; `xdp-dedup detach --all` detaches");
    }
    Ok(())
}

/// Detaches from all interfaces and asks the kernel whether that is so.
async fn detach(filter: &Filter) -> Result<()> {
    for attachment in &filter.attachments {
        attachment.detach()?;
    }
    let all = interfaces::all().await?;
    for attachment in &filter.attachments {
        let Interface { name, index, .. } = &attachment.interface;
        if all.contains_key(index) {
            takeover::wait_until_off(&attachment.interface, attachment.program_id).await?;
            info!(interface = name, "detached");
        } else {
            info!(interface = name, "gone before");
        }
    }
    Ok(())
}

/// Looks whether the filter still is where it was put, and says so once each time that it is not.
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
            if attachment.is_attached(&all) {
                if self.missed.remove(&interface.index) {
                    info!(interface = interface.name, "the filter is attached again");
                }
            } else if self.missed.insert(interface.index) {
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
    running: Rules,
    key: DigestKey,
    filter: &Filter,
) -> Rules {
    let settings = match Settings::read(args, key) {
        Ok(settings) => settings,
        Err(error) => {
            error!("the policy stays as it was: {error:#}");
            return running;
        }
    };
    let fixed = started.fixed_differences(&settings);
    if !fixed.is_empty() {
        warn!("these change with a restart only: {}", fixed.join(", "));
    }
    // One map serves all attachments.
    let updated = match filter.attachments.first() {
        Some(attachment) => attachment.kernel.maps.set_rules(&settings.rules),
        None => Ok(()),
    };
    match updated {
        Ok(()) => {
            warn_of(&settings);
            info!(changed = settings.rules != running, "policy read again");
            settings.rules
        }
        Err(error) => {
            error!("the policy stays as it was: {error:#}");
            running
        }
    }
}

/// What an operator should know of these settings.
fn warn_of(settings: &Settings) {
    let policy = &settings.rules.policy;
    if policy.window() > Window::ADVISED {
        warn!(
            "a window of over {} ms can drop the first retransmission of a client that sends the \
             same bytes again",
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
        // Reading a large table takes milliseconds: not on the thread that waits for signals.
        tokio::task::spawn_blocking(move || {
            let mut interfaces = Vec::new();
            for attachment in &filter.attachments {
                interfaces.push(InterfaceStatus {
                    name: attachment.interface.name.clone(),
                    mode: attachment.mode,
                    attached: attachment.is_attached(&all),
                    program_id: attachment.program_id,
                    program_tag: attachment.program_tag,
                    counters: attachment.kernel.maps.counters(attachment.slot)?,
                });
            }
            let capacity = filter.capacity;
            // One map of each kind serves all attachments.
            let shared = filter.attachments.first().context("no interface")?;
            Ok(Snapshot {
                interfaces,
                relays: shared.kernel.maps.relays()?,
                table_entries: shared.kernel.maps.table_entries(),
                table_capacity: capacity,
                window: shared.kernel.maps.policy()?.window(),
                events_lost: shared.kernel.maps.lost_events()?,
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
