//! Two namespaces joined by a veth: the relays' side sends, the server's side receives.

use std::io::{IsTerminal as _, Write as _, stdout};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::sys::signal::Signal;
use testbed::daemon::Daemon;
use testbed::frame::reported;
use testbed::namespace::Namespace;
use testbed::receiver::Receiver;
use testbed::sender::Sender;
use testbed::veth::{End, XdpMode, join};

use super::outcome::{Counters, Outcome};
use super::scene::{
    BYSTANDER_PORT, NEIGHBOUR, NEIGHBOUR_IPV4, Owner, RELAYS_MAC, SERVER_IPV4, SERVER_MAC, Scene,
};

/// A copy that the sender itself held up for so long comes near the filter's window of 200 ms.
const TOO_LATE: Duration = Duration::from_millis(150);

/// Octets before what was sent, as the sockets hand it over: UDP, UDP, and ICMPv6 from the type of
/// an echo request to its sequence number.
const HEADERS: [usize; 3] = [0, 0, 8];

/// What the filter's exporter said at the end of a run.
pub struct Exporter {
    /// Frames by verdict and reason.
    pub counters: Counters,
    /// The same as it words them.
    pub lines: Vec<String>,
}

/// The two sides.
pub struct Bed {
    relays: End,
    server: End,
}

impl Bed {
    /// Makes them. They go with this process, however it ends.
    pub fn new() -> Result<Self> {
        let relays = End::new(&Namespace::new("relays")?, "relays0", RELAYS_MAC);
        let server = End::new(&Namespace::new("server")?, "server0", SERVER_MAC);
        join(&relays, &server)?;
        server.address(reported::SERVER, 32)?;
        server.address(SERVER_IPV4, 24)?;
        // The server's stack answers echo requests: it need not ask where to.
        server.neighbour(NEIGHBOUR, relays.mac)?;
        server.neighbour(NEIGHBOUR_IPV4, relays.mac)?;
        Ok(Self { relays, server })
    }

    /// Plays the scene with the filter on the server's side.
    pub fn play_filtered(
        &self,
        scene: &Scene,
        title: &str,
        binary: &Path,
    ) -> Result<(Outcome, Exporter)> {
        let server = &self.server;
        let daemon = Daemon::start(binary, &server.namespace, &["-i", server.name])?;
        let mode = server.xdp()?;
        if mode != Some(XdpMode::Native) {
            bail!(
                "the filter is not attached natively: {mode:?}; {}",
                daemon.log()
            );
        }
        let outcome = self.play(scene, title)?;
        let metrics = daemon.metrics()?;
        let status = daemon.stop(Signal::SIGTERM)?;
        if !status.success() || server.xdp()?.is_some() {
            bail!("the filter ended with {status}, its program still attached or not cleanly");
        }
        let exporter = Exporter {
            counters: metrics.packets(server.name),
            lines: metrics
                .lines("xdp_dedup_packets_total")
                .filter(|line| !line.ends_with(" 0"))
                .map(str::to_owned)
                .collect(),
        };
        Ok((outcome, exporter))
    }

    /// Plays the scene in real time.
    pub fn play(&self, scene: &Scene, title: &str) -> Result<Outcome> {
        let namespace = &self.server.namespace;
        let dhcp = Receiver::udp(namespace, 547)?;
        let others = [
            Receiver::udp(namespace, BYSTANDER_PORT)?,
            Receiver::icmpv6(namespace)?,
        ];
        let sender = Sender::new(&self.relays)?;

        let start = Instant::now();
        let sent = with_progress(title, &dhcp, || sender.play(start, &scene.schedule))?;
        check_pacing(scene, &sent)?;

        let mut outcome = Outcome::default();
        let receivers = [dhcp].into_iter().chain(others).collect();
        for (received, header) in Receiver::finish_all(receivers)?.into_iter().zip(HEADERS) {
            if received.discarded > 0 {
                bail!("the receiver itself lost {} datagrams", received.discarded);
            }
            for arrival in received.arrivals {
                let payload = arrival.payload.get(header..).unwrap_or_default();
                // What is not of the scene is the kernel's own, such as neighbour discovery.
                if let Some(owner) = scene.owner(payload) {
                    outcome.add(owner, arrival.time);
                }
            }
        }
        println!(
            "  {title:<24} {} frames in {:.1} s, {} of {} copies delivered",
            sent.len(),
            start.elapsed().as_secs_f64(),
            outcome.delivered(),
            scene.copies()
        );
        Ok(outcome)
    }
}

/// Runs `play`, and shows on a terminal how far it is.
fn with_progress<T>(title: &str, receiver: &Receiver, play: impl FnOnce() -> T) -> T {
    if !stdout().is_terminal() {
        return play();
    }
    // Its end is dropped when `play` returns, or panics: the other thread goes by that.
    let (playing, over) = mpsc::channel::<()>();
    thread::scope(move |scope| {
        scope.spawn(move || {
            let start = Instant::now();
            while over.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
                let (seconds, count) = (start.elapsed().as_secs_f64(), receiver.count());
                print!("\r  {title:<24} {seconds:.1} s, {count} copies delivered ...");
                // Only a terminal that is gone refuses.
                let _ = stdout().flush();
            }
            // What is printed next takes this line's place.
            print!("\r");
        });
        let result = play();
        drop(playing);
        result
    })
}

/// On a machine that let the sender wait too long, the numbers would show that and not the filter.
fn check_pacing(scene: &Scene, sent: &[Duration]) -> Result<()> {
    let mut first = vec![None; scene.transmissions.len()];
    for (owner, at) in scene.owners.iter().zip(sent) {
        let Owner::Transmission(number) = owner else {
            continue;
        };
        let gap = *at - *first[*number].get_or_insert(*at);
        if gap > TOO_LATE {
            bail!(
                "this machine was too busy to send two copies less than {} ms apart ({} ms); \
                 run the demo again",
                TOO_LATE.as_millis(),
                gap.as_millis()
            );
        }
    }
    Ok(())
}
