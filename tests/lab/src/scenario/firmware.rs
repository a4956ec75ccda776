//! A real UEFI that boots over the network: OVMF loads iPXE, which boots over the network in its turn.
//! OVMF has two exchanges under way at once, and gives their addresses back; iPXE sends its Request
//! under the transaction-id of its Solicit.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Row, Scenario};
use crate::dhcp::Message;
use crate::play::{Play, Seen};
use crate::site::{ETH0, Site};
use crate::software::kea::Kea;
use crate::software::relay::Relay;
use crate::software::server::Lifetimes;
use crate::software::{dnsmasq, radvd, uefi};
use crate::tally::ClientSide;
use crate::tap::Tap;

pub const SCENARIO: Scenario = Scenario {
    name: "firmware",
    expected: "OVMF in QEMU loads iPXE by PXE over IPv6, and iPXE asks again: two answers to each \
               message, which neither minds; with the filter exactly one",
    at_once: 1,
    packages: &["ipxe", "ovmf", "qemu-system-x86"],
    only_by_name: true,
    rows: |_| vec![Row::new("OVMF, iPXE", boot)],
};

/// Most time that a step may take: every instruction is emulated.
const PATIENCE: Duration = Duration::from_secs(180);

fn boot(play: &Play<'_>) -> Result<Seen> {
    let site = Site::new(play)?;
    let kea = Kea {
        boot_file: "tftp://[2001:db8:b::b007]/snponly.efi",
        ..Kea::new(Lifetimes::LONG)
    };
    let server = kea.start(&site.server)?;
    let [a, _] = &site.relays;
    let relays = Relay::ISC.start_pair(&site)?;
    let router = radvd::tell_to_use_dhcp(&a.machine)?;
    let files = dnsmasq::tftp_server(&site.server, "/usr/lib/ipxe")?;
    let filter = play.filter(&site.server, &["-i", ETH0])?;
    let at_client = play.tap("client", &site.client_cable.machine)?;
    let on_wire = play.tap("wire", &site.server_cable.port)?;
    let at_server = play.tap("server", &site.server_cable.machine)?;

    let power_on = Instant::now();
    let mut firmware = uefi::start(&site.client)?;
    firmware.until_it_says("NBP filename is", PATIENCE)?;
    let named = power_on.elapsed();
    firmware.until_it_says("NBP file downloaded successfully", PATIENCE)?;
    firmware.until_it_says("iPXE initialising devices", PATIENCE)?;
    // iPXE has an address, and the name of its boot file.
    firmware.until_it_says("Filename: tftp://", PATIENCE)?;
    let console = firmware.log();
    // Before it asks once more: its boot file is iPXE again.
    drop(firmware);

    let relay_forwards = |tap: Tap| -> Result<Vec<Message>> {
        let mut messages = tap.finish()?;
        messages.retain(Message::is_relay_forward);
        Ok(messages)
    };
    let boot = Boot {
        named,
        file: console
            .lines()
            .find_map(|line| line.trim().strip_prefix("NBP filename is "))
            .unwrap_or_default()
            .to_owned(),
        client: ClientSide::of(&at_client.finish()?),
        relayed: relay_forwards(on_wire)?.len(),
        reached: relay_forwards(at_server)?.len(),
        counters: match &filter {
            Some(filter) => Some(filter.metrics()?.packets(ETH0)),
            None => None,
        },
    };
    let mut seen = boot.seen();
    seen.hold((site, server, relays, router, files, filter));
    Ok(seen)
}

/// What was seen of it.
struct Boot {
    /// How long after power-on OVMF named its boot file.
    named: Duration,
    file: String,
    client: ClientSide,
    /// Frames that the relays sent to the server.
    relayed: usize,
    /// Those of them that reached its stack.
    reached: usize,
    /// The filter's counters, by verdict and reason.
    counters: Option<BTreeMap<(String, String), u64>>,
}

impl Boot {
    fn seen(self) -> Seen {
        let mut seen = Seen::default();
        let ClientSide { sent, answers, .. } = self.client;
        seen.say(format!(
            "OVMF finds and starts {} after {:.0} s, and that is served too",
            self.file,
            self.named.as_secs_f64()
        ));
        seen.say(format!("{sent} messages, {answers} answers"));
        if self.client.addresses_offered > 1 {
            seen.say(format!(
                "{} addresses offered for one Solicit",
                self.client.addresses_offered
            ));
        }
        if !self.client.complaints.is_empty() {
            seen.say(format!(
                "server complains: {}",
                self.client.complaints.join(", ")
            ));
        }
        seen.figure("seconds_to_boot_file", self.named.as_secs_f64());
        seen.figure("messages_sent_by_client", sent);
        seen.figure("answers_to_client", answers);
        seen.figure(
            "addresses_offered_for_one_solicit",
            self.client.addresses_offered,
        );
        seen.figure("complaints_of_server", self.client.complaints.clone());
        seen.figure("frames_relayed", self.relayed);
        seen.figure("frames_at_server", self.reached);
        seen.must(
            self.relayed == 2 * sent,
            "the relays did not both send a copy of each message",
        );
        match &self.counters {
            None => seen.must(
                self.reached == self.relayed && answers == 2 * sent,
                "the fault did not show: not two answers to each message",
            ),
            Some(counters) => self.judge(counters, &mut seen),
        }
        seen
    }

    /// What must hold with the filter.
    fn judge(&self, counters: &BTreeMap<(String, String), u64>, seen: &mut Seen) {
        let duplicate = ("drop".to_owned(), "duplicate".to_owned());
        let dropped = counters.get(&duplicate).copied().unwrap_or(0);
        seen.say(format!("{dropped} copies dropped"));
        seen.figure("duplicates_dropped", dropped);
        seen.must(
            self.client.fewest_answers == 1 && self.client.most_answers == 1,
            "not exactly one answer to each message",
        );
        seen.must(
            self.client.complaints.is_empty(),
            "the server complains to the client",
        );
        seen.must(
            self.reached == self.client.sent,
            "not exactly one copy of each message reached the server",
        );
        seen.must(
            self.reached as u64 + dropped == self.relayed as u64
                && counters.values().sum::<u64>() == self.relayed as u64,
            format!("the counters do not tell what became of each frame: {counters:?}"),
        );
    }
}
