//! What else passes the server's NIC. Each kind does the same without the filter and with it, while
//! the filter is at work on a client's messages: nothing is lost, and nothing of it is counted.

mod stage;

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use self::stage::{NEIGHBOUR, NEIGHBOUR_V4, SERVER_V4, Stage};
use super::{Row, Scenario};
use crate::counter::Counter;
use crate::play::{Play, Seen};
use crate::site::{ETH0, SERVER, Site, acquaint};
use crate::software::client::Client;
use crate::software::server::Lifetimes;
use crate::software::{dnsmasq, radvd};
use crate::traffic::{self, Echo};

pub const SCENARIO: Scenario = Scenario {
    name: "bystanders",
    expected: "other traffic on the server's NIC, while a client's messages come twice: the same \
               with the filter as without, nothing lost, nothing of it counted",
    at_once: 3,
    packages: &[],
    only_by_name: false,
    rows: |_| {
        vec![
            Row::new("router advertisements", router_advertisements),
            Row::new("dns", dns),
            Row::new("tcp", tcp),
            Row::new("ipv4", ipv4),
            Row::new("forwarding", forwarding),
            Row::new("own client", own_client),
            Row::new("jumbo frames", jumbo_frames),
        ]
    },
};

/// Most time that a step may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A router on the segment advertises itself and a prefix: the server takes an address and a default
/// route from it.
fn router_advertisements(play: &Play<'_>) -> Result<Seen> {
    const LINK: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xad, 0, 0, 0, 0, 0);
    /// Made of the prefix and the server's MAC address.
    const ADDRESS: &str = "2001:db8:ad::ff:fe00:b7/64";
    const ENOUGH: u64 = 20;

    let stage = Stage::new(play)?;
    let (server, router) = (&stage.site.server, &stage.neighbour);
    server
        .namespace
        .sysctl("net/ipv6/conf/eth0/accept_ra", "1")?;
    let what = "icmpv6 type nd-router-advert";
    let sent = Counter::sent(router, "advertisements", what)?;
    let received = Counter::received(server, "advertisements", what)?;
    let at_work = stage.start(play)?;
    let mut radvd = radvd::start(router, LINK)?;
    at_work.beside_it(|| {
        let start = received.packets()?;
        radvd.until("router advertisements", PATIENCE, |_| {
            let more = |received| received >= start + ENOUGH;
            received.packets().is_ok_and(more)
        })
    })?;
    // Told to end by SIGTERM it would take its word back.
    radvd.stop(Signal::SIGKILL)?;

    let mut seen = Seen::default();
    let [sent, received] = sent.packets_here_and_there(&received)?;
    let addresses = server.namespace.ip(&format!("-6 addr show dev {ETH0}"))?;
    let routes = server.namespace.ip("-6 route show default")?;
    seen.say(format!("{received} of {sent} router advertisements"));
    seen.say("address and default route learnt");
    seen.figure("router_advertisements_sent", sent);
    seen.figure("router_advertisements_received", received);
    seen.must(received == sent, "a router advertisement was lost");
    seen.must(
        addresses.contains(ADDRESS),
        format!("no address was learnt: {addresses}"),
    );
    seen.must(
        routes.contains("proto ra"),
        format!("no default route was learnt: {routes}"),
    );
    at_work.finish(&mut seen)?;
    seen.hold(stage);
    Ok(seen)
}

/// The server is a name server as well.
fn dns(play: &Play<'_>) -> Result<Seen> {
    let stage = Stage::new(play)?;
    let name_server = dnsmasq::name_server(&stage.site.server)?;
    let at_work = stage.start(play)?;
    let (mut over_ipv6, mut over_ipv4) = (Tally::default(), Tally::default());
    at_work.beside_it(|| {
        for (tally, address) in [
            (&mut over_ipv6, SERVER.into()),
            (&mut over_ipv4, SERVER_V4.into()),
        ] {
            const QUESTIONS: u16 = 500;
            let (domain, answer) = (dnsmasq::DOMAIN, dnsmasq::ANSWER);
            let from = &stage.neighbour;
            tally.sent += usize::from(QUESTIONS);
            tally.came += traffic::names_resolved(from, address, domain, answer, QUESTIONS)?;
        }
        Ok(())
    })?;

    let mut seen = Seen::default();
    over_ipv6.tell(&mut seen, "names resolved over IPv6");
    over_ipv4.tell(&mut seen, "names resolved over IPv4");
    at_work.finish(&mut seen)?;
    seen.hold((stage, name_server));
    Ok(seen)
}

/// TCP over IPv6, to the server and from it.
fn tcp(play: &Play<'_>) -> Result<Seen> {
    let stage = Stage::new(play)?;
    let at_work = stage.start(play)?;
    let mut transfers = Transfers::default();
    at_work.beside_it(|| transfers.round(&stage, SERVER.into(), NEIGHBOUR.into()))?;

    let mut seen = Seen::default();
    transfers.tell(&mut seen);
    at_work.finish(&mut seen)?;
    seen.hold(stage);
    Ok(seen)
}

/// UDP and TCP over IPv4. The UDP port is DHCPv6's, and each datagram comes twice.
fn ipv4(play: &Play<'_>) -> Result<Seen> {
    let stage = Stage::new(play)?;
    let at_work = stage.start(play)?;
    let echo = stage.echo((SERVER_V4, 547).into())?;
    let (mut echoes, mut transfers) = (Tally::default(), Transfers::default());
    at_work.beside_it(|| {
        echoes.round(&echo, 512)?;
        transfers.round(&stage, SERVER_V4.into(), NEIGHBOUR_V4.into())
    })?;

    let mut seen = Seen::default();
    echoes.tell(&mut seen, "datagrams to port 547 and back");
    transfers.tell(&mut seen);
    at_work.finish(&mut seen)?;
    seen.hold(stage);
    Ok(seen)
}

/// The server's host forwards to another DHCPv6 server behind it, and the relays send to both. The
/// filter takes what is for the one and what is for the other for different messages.
fn forwarding(play: &Play<'_>) -> Result<Seen> {
    const BEHIND: &str = "behind";
    const HOST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1);
    const OTHER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 0xb007);
    const FIRST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 2, 0, 0, 1);
    const LAST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 2, 0, 0, 0xffff);

    let stage = Stage::new(play)?;
    let Site {
        switch,
        server,
        relays,
        ..
    } = &stage.site;
    let other = play.machine("other")?;
    switch.segment(BEHIND)?;
    let inner = switch.plug(BEHIND, "inner", server, "eth1", [2, 0, 0, 0, 1, 0xb7])?;
    let outer = switch.plug(BEHIND, "other", &other, ETH0, [2, 0, 0, 0, 1, 0xb8])?;
    inner.machine.address(HOST, 64)?;
    outer.machine.address(OTHER, 64)?;
    server
        .namespace
        .sysctl("net/ipv6/conf/all/forwarding", "1")?;
    other
        .namespace
        .ip(&format!("route add default via {HOST}"))?;
    for relay in relays {
        let route = format!("route add {OTHER}/128 via {SERVER}");
        relay.machine.namespace.ip(&route)?;
    }
    acquaint(server, OTHER)?;
    acquaint(&other, HOST)?;
    let dnsmasq = dnsmasq::dhcpv6_server(&other, FIRST, LAST, Lifetimes::LONG)?;
    let at_work = stage.start_with(play, &[(SERVER, server), (OTHER, &other)])?;

    let mut seen = Seen::default();
    if let [own, forwarded] = at_work.finish(&mut seen)?[..] {
        seen.say(format!(
            "{own} frames to the host's own server, {forwarded} to the one behind it"
        ));
        seen.figure("frames_at_own_server", own);
        seen.figure("frames_at_server_behind", forwarded);
    }
    seen.hold((stage, other, dnsmasq));
    Ok(seen)
}

/// The server's host is a client as well, of another DHCPv6 server on its segment.
fn own_client(play: &Play<'_>) -> Result<Seen> {
    const FIRST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 1, 0, 0, 1);
    const LAST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 1, 0, 0, 0xffff);
    /// How those from the first to the last begin.
    const LEASED: &str = "2001:db8:b:0:1:";

    let stage = Stage::new(play)?;
    let host = &stage.site.server;
    let dnsmasq = dnsmasq::dhcpv6_server(&stage.neighbour, FIRST, LAST, Lifetimes::LONG)?;
    let at_work = stage.start(play)?;
    let on_segment = play.tap("neighbour", &stage.neighbour_cable.port)?;
    let mut client = Client::Dhclient.start(host)?;
    client.until("address", PATIENCE, |_| {
        let addresses = host.namespace.ip(&format!("-6 addr show dev {ETH0}"));
        addresses.is_ok_and(|addresses| addresses.contains(LEASED))
    })?;

    let mut seen = Seen::default();
    let mut messages = on_segment.finish()?;
    messages.retain(|message| message.envelopes.is_empty());
    let answers = messages
        .iter()
        .filter(|message| !message.is_of_client())
        .count();
    let sent = messages.len() - answers;
    seen.say(format!(
        "host leased an address: {sent} messages, {answers} answers"
    ));
    seen.figure("messages_sent_by_host", sent);
    seen.figure("answers_to_host", answers);
    seen.must(
        sent == answers,
        "not each message of the host's client was answered once",
    );
    at_work.finish(&mut seen)?;
    seen.hold((stage, dnsmasq, client));
    Ok(seen)
}

/// Datagrams that fill frames of 9000 bytes.
fn jumbo_frames(play: &Play<'_>) -> Result<Seen> {
    const MTU: u32 = 9000;
    /// What the headers of IPv6 and UDP leave of it.
    const LENGTH: usize = MTU as usize - 40 - 8;

    let stage = Stage::new(play)?;
    stage.mtu(MTU)?;
    let at_work = stage.start(play)?;
    let echo = stage.echo((SERVER, 7).into())?;
    let mut echoes = Tally::default();
    at_work.beside_it(|| echoes.round(&echo, LENGTH))?;

    let mut seen = Seen::default();
    echoes.tell(&mut seen, &format!("datagrams of {LENGTH} bytes and back"));
    at_work.finish(&mut seen)?;
    seen.hold(stage);
    Ok(seen)
}

/// What was sent, and what of that came.
#[derive(Debug, Default)]
struct Tally {
    sent: usize,
    came: usize,
}

impl Tally {
    /// Datagrams to the server and back.
    fn round(&mut self, echo: &Echo, length: usize) -> Result<()> {
        const COUNT: usize = 500;
        self.sent += COUNT;
        self.came += echo.round(length, COUNT)?;
        Ok(())
    }

    fn tell(&self, seen: &mut Seen, what: &str) {
        let Self { sent, came } = self;
        seen.say(format!("{came} of {sent} {what}"));
        let name = what.replace(' ', "_").to_lowercase();
        seen.figure(&format!("{name}_sent"), *sent);
        seen.figure(&format!("{name}_came"), *came);
        seen.must(came == sent, format!("{} were lost: {what}", sent - came));
    }
}

/// Bytes over TCP, in blocks of 64 KiB.
#[derive(Debug, Default)]
struct Transfers {
    blocks: Tally,
    segments: u64,
    segments_sent_again: u64,
}

impl Transfers {
    /// 32 MiB to the server, and as much from it.
    fn round(&mut self, stage: &Stage, server: IpAddr, neighbour: IpAddr) -> Result<()> {
        const BLOCKS: usize = 512;
        let ends = [
            (&stage.neighbour, &stage.site.server, server),
            (&stage.site.server, &stage.neighbour, neighbour),
        ];
        for (from, to, address) in ends {
            let [sent_before, again_before] = traffic::segments_sent(from)?;
            self.blocks.sent += BLOCKS;
            self.blocks.came += traffic::blocks_transferred(from, to, address, BLOCKS)?;
            let [sent, again] = traffic::segments_sent(from)?;
            self.segments += sent - sent_before;
            self.segments_sent_again += again - again_before;
        }
        Ok(())
    }

    fn tell(&self, seen: &mut Seen) {
        self.blocks.tell(seen, "blocks of 64 KiB over TCP");
        let (sent, again) = (self.segments, self.segments_sent_again);
        seen.say(format!("{again} of {sent} segments sent again"));
        seen.figure("tcp_segments_sent", sent);
        seen.figure("tcp_segments_sent_again", again);
        // On a busy machine a segment waits so long now and then that TCP takes it for lost.
        seen.must(
            again * 1000 <= sent,
            format!("{again} of {sent} segments were lost"),
        );
    }
}
