//! Two namespaces, one or two cables between them, and sockets at both ends.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

use anyhow::{Result, ensure};
use testbed::binary::binary;
use testbed::bystander::{self, Macs};
use testbed::daemon::Daemon;
use testbed::frame::{Frame, reported};
use testbed::namespace::Namespace;
use testbed::receiver::{Arrival, Receiver};
use testbed::sender::Sender;
use testbed::veth::{End, XdpMode, join};

/// Where bystanders go.
const OTHER_PORT: u16 = 514;
const NEIGHBOUR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const NEIGHBOUR_IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const SERVER_IPV4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const RELAYS: [Ipv6Addr; 2] = [reported::RELAY_A, reported::RELAY_B];

/// The ends of the cables, the relays' first.
const NAMES: [(&str, &str); 2] = [("relay0", "server0"), ("relay1", "server1")];

/// The filter's mode on the server's end of either cable.
pub type Modes = [XdpMode; 2];

/// How the relays send.
#[derive(Clone, Copy, Debug)]
pub enum Via {
    /// Whole frames, as from the wire.
    PacketSocket,
    /// UDP sockets on the relays' addresses.
    UdpSocket {
        /// Whether the checksum is left to the NIC, and so arrives in its partial form.
        offload: bool,
    },
}

/// What the server's sockets received.
pub struct Received {
    /// On port 547.
    pub messages: Vec<Arrival>,
    /// How many bystanders, of all kinds.
    pub bystanders: usize,
    /// What the sockets discarded: a full buffer, or a wrong checksum.
    pub discarded: u32,
}

/// The server's sockets: the one on port 547 first.
pub struct Sockets(Vec<Receiver>);

impl Sockets {
    pub fn finish(self) -> Result<Received> {
        let mut all = Receiver::finish_all(self.0)?;
        let discarded = all.iter().map(|received| received.discarded).sum();
        let messages = std::mem::take(&mut all[0].arrivals);
        let others = all.iter().flat_map(|received| &received.arrivals);
        Ok(Received {
            messages,
            bystanders: others
                .filter(|arrival| arrival.payload.ends_with(TEXT))
                .count(),
            discarded,
        })
    }
}

const TEXT: &[u8] = b"bystander";

/// A cable for each relay, or one for both.
pub struct Bed {
    server: Namespace,
    cables: Vec<Cable>,
    sockets: Vec<UdpSocket>,
}

struct Cable {
    relay: End,
    server: End,
    sender: Sender,
}

impl Bed {
    pub fn new(cables: usize, via: Via) -> Result<Self> {
        let server = Namespace::new("server")?;
        let relays = Namespace::new("relays")?;
        let mut bed = Self {
            server,
            cables: Vec::new(),
            sockets: Vec::new(),
        };
        for (number, (relay, server)) in (0..).zip(NAMES).take(cables) {
            let relay = End::new(&relays, relay, [0x02, 0, 0, 0, 0xff, number]);
            let server = End::new(&bed.server, server, [0x02, 0, 0, 0, 0xb0, number]);
            join(&relay, &server)?;
            if number == 0 {
                server.address(reported::SERVER, 32)?;
                server.address(SERVER_IPV4, 24)?;
                // Echo requests are answered without looking for the one who asked.
                server.neighbour(NEIGHBOUR, relay.mac)?;
                server.neighbour(NEIGHBOUR_IPV4, relay.mac)?;
            }
            if let Via::UdpSocket { offload } = via {
                relay.checksum_offload(offload)?;
                relay.neighbour(reported::SERVER, server.mac)?;
                for address in RELAYS {
                    relay.address(address, 32)?;
                    let socket = relays.inside(|| UdpSocket::bind((address, 547)))?;
                    bed.sockets.push(socket?);
                }
            }
            let sender = Sender::new(&relay)?;
            bed.cables.push(Cable {
                relay,
                server,
                sender,
            });
        }
        Ok(bed)
    }

    /// Sets the MTU of all cables, in bytes.
    pub fn mtu(&self, bytes: u32) -> Result<()> {
        for cable in &self.cables {
            cable.relay.mtu(bytes)?;
            cable.server.mtu(bytes)?;
        }
        Ok(())
    }

    /// Attaches the filter to all of the server's interfaces, in these modes.
    pub fn filter(&self, modes: Modes, arguments: &[&str]) -> Result<Daemon> {
        let [first, second] = modes.map(|mode| match mode {
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
        });
        let of_second = format!("{}={second}", NAMES[1].1);
        let mut all = vec!["--mode", first];
        if self.cables.len() > 1 && first != second {
            all.extend(["--mode", &of_second]);
        }
        if !arguments.contains(&"--window") {
            all.extend(["--window", "1s"]);
        }
        all.extend(
            self.cables
                .iter()
                .flat_map(|cable| ["-i", cable.server.name]),
        );
        all.extend(arguments);
        let daemon = Daemon::start(&binary()?, &self.server, &all)?;
        self.expect_xdp(modes.map(Some))?;
        Ok(daemon)
    }

    /// Checks what is attached to the server's interfaces.
    pub fn expect_xdp(&self, expected: [Option<XdpMode>; 2]) -> Result<()> {
        for (cable, expected) in self.cables.iter().zip(expected) {
            let name = cable.server.name;
            let found = cable.server.xdp()?;
            ensure!(
                found == expected,
                "{name} has {found:?} instead of {expected:?}"
            );
        }
        Ok(())
    }

    pub fn sockets(&self) -> Result<Sockets> {
        Ok(Sockets(vec![
            Receiver::udp(&self.server, 547)?,
            Receiver::udp(&self.server, OTHER_PORT)?,
            Receiver::icmpv6(&self.server)?,
        ]))
    }

    /// The cable of this relay.
    fn cable(&self, relay: usize) -> &Cable {
        &self.cables[relay % self.cables.len()]
    }

    /// The packet socket of this relay.
    pub fn sender(&self, relay: usize) -> &Sender {
        &self.cable(relay).sender
    }

    /// The frame for the interface that this relay's cable ends at.
    pub fn addressed(&self, frame: &Frame, relay: usize) -> Frame {
        Frame {
            destination_mac: self.cable(relay).server.mac.0,
            ..frame.clone()
        }
    }

    /// Sends what this relay forwards.
    pub fn send(&self, relay: usize, frame: &Frame) -> Result<()> {
        match self.sockets.get(relay) {
            Some(socket) => {
                socket.send_to(&frame.payload, (frame.destination, 547))?;
                Ok(())
            }
            None => self
                .sender(relay)
                .send(&self.addressed(frame, relay).bytes()),
        }
    }

    /// Sends one of each kind of what is none of the filter's business.
    pub fn send_bystanders(&self, number: u16) -> Result<()> {
        let relay = usize::from(number);
        let destination = self.cable(relay).server.mac.0;
        let macs = Macs {
            destination,
            source: [0x02, 0, 0, 0, 0, 1],
        };
        for frame in [
            bystander::udp_over_ipv6(macs, NEIGHBOUR, reported::SERVER, OTHER_PORT, TEXT),
            bystander::udp_over_ipv4(macs, NEIGHBOUR_IPV4, SERVER_IPV4, OTHER_PORT, TEXT),
            bystander::echo_request(macs, NEIGHBOUR, reported::SERVER, TEXT),
        ] {
            self.sender(relay).send(&frame)?;
        }
        Ok(())
    }

    /// What the exporter counts on all interfaces together; zeros left out.
    pub fn counters(&self, filter: &Daemon) -> Result<BTreeMap<(String, String), u64>> {
        let mut sum = BTreeMap::new();
        for cable in 0..self.cables.len() {
            for (key, count) in self.counters_of(filter, cable)? {
                *sum.entry(key).or_default() += count;
            }
        }
        Ok(sum)
    }

    /// What it counts on one interface.
    pub fn counters_of(
        &self,
        filter: &Daemon,
        cable: usize,
    ) -> Result<BTreeMap<(String, String), u64>> {
        Ok(filter.metrics()?.packets(self.cables[cable].server.name))
    }
}
