//! What joins the lab's machines: segments (bridges) in a namespace of their own, and cables.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use testbed::namespace::Namespace;
use testbed::veth::{self, End};

use crate::line::Line;
use crate::machine::Machine;

/// A switch, with any number of segments that nothing joins.
#[derive(Clone, Debug)]
pub struct Switch {
    pub(crate) namespace: Namespace,
}

/// A cable from a machine to a switch.
#[derive(Clone, Debug)]
pub struct Cable {
    /// The machine's end.
    pub machine: End,
    /// The switch's end, which sees the other way round what the machine's end sees, and also what
    /// the machine's XDP program drops.
    pub port: End,
}

impl Switch {
    /// Makes one without segments.
    ///
    /// # Errors
    ///
    /// Without root.
    pub fn new() -> Result<Self> {
        let namespace = Namespace::new("the switch")?;
        // Nothing on a switch speaks itself.
        namespace.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        Ok(Self { namespace })
    }

    /// Makes a segment. It forwards at once and floods all multicast.
    ///
    /// # Errors
    ///
    /// In a kernel without bridges.
    pub fn segment(&self, name: &'static str) -> Result<()> {
        self.namespace.ip(&format!(
            "link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
        ))?;
        self.namespace.ip(&format!("link set {name} up")).map(drop)
    }

    /// Lays a cable from `machine`'s new interface `interface` to the new port `port` in `segment`.
    /// Checksums are whole on it.
    ///
    /// # Errors
    ///
    /// Where the segment does not exist, or a name is taken.
    pub fn plug(
        &self,
        segment: &'static str,
        port: &'static str,
        machine: &Machine,
        interface: &'static str,
        mac: [u8; 6],
    ) -> Result<Cable> {
        let [a, b, c, d, e, f] = mac;
        let cable = Cable {
            machine: End::new(&machine.namespace, interface, mac),
            // Locally administered, and unlike any machine's.
            port: End::new(&self.namespace, port, [a ^ 0x42, b, c, d, e, f]),
        };
        veth::join(&cable.port, &cable.machine)?;
        cable.machine.checksum_offload(false)?;
        self.namespace
            .ip(&format!("link set {port} master {segment}"))?;
        until_link_local(&cable.machine)?;
        Ok(cable)
    }

    /// Makes a cable so long that every frame on it takes `delay` to `segment`, and as much back,
    /// while the line is held. One cable of a switch can be.
    ///
    /// # Errors
    ///
    /// Where the cable is gone, or one has been made long already.
    pub fn lengthen(&self, cable: &Cable, segment: &'static str, delay: Duration) -> Result<Line> {
        let near = End::new(&self.namespace, "line-near", [0x42, 0, 0, 0, 0, 1]);
        let far = End::new(&self.namespace, "line-far", [0x42, 0, 0, 0, 0, 2]);
        veth::join(&near, &far)?;
        for (port, place) in [
            (cable.port.name, "nomaster"),
            (far.name, &format!("master {segment}")),
        ] {
            self.namespace.ip(&format!("link set {port} {place}"))?;
        }
        Line::join(&cable.port, &near, delay)
    }
}

impl Cable {
    /// Pulls it out of the switch.
    ///
    /// # Errors
    ///
    /// Where it is gone.
    pub fn pull(&self) -> Result<()> {
        self.set("down")
    }

    /// Puts it back.
    ///
    /// # Errors
    ///
    /// Where it is gone.
    pub fn put_back(&self) -> Result<()> {
        self.set("up")
    }

    fn set(&self, state: &str) -> Result<()> {
        let port = self.port.name;
        self.port
            .namespace
            .ip(&format!("link set {port} {state}"))
            .map(drop)
    }
}

/// Waits for an interface's link-local address, which the kernel gives it some time after it is up:
/// clients do not.
fn until_link_local(end: &End) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let start = Instant::now();
    loop {
        // linux/net/ipv6: address, interface number, prefix length, scope, flags (all in
        // hexadecimal) and the interface's name.
        let shown = end
            .namespace
            .inside(|| fs::read_to_string("/proc/thread-self/net/if_inet6"))??;
        let serves = shown.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            matches!(words[..], [address, _, _, _, flags, name]
                if name == end.name && address.starts_with("fe80") && !is_tentative(flags))
        });
        if serves {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!("{} gets no link-local address", end.name);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Whether an address may not be used yet, by its flags (linux/if_addr.h).
fn is_tentative(flags: &str) -> bool {
    const TENTATIVE: u8 = 0x40;
    u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & TENTATIVE != 0)
}
