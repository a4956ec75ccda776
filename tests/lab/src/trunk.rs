//! A VLAN trunk from a switch to a machine, in a kernel without 802.1Q devices.
//!
//! On the cable between the two every frame carries its tag in its bytes, as it would on a wire, and
//! so the machine's NIC, with XDP on it, sees it. What the kernel would do at either end a *tagger*
//! does here, a thread a direction between packet sockets: at the switch's end it is the trunk port,
//! at the machine's end the VLAN interface, which takes frames of its own VLAN only.
//!
//! ```text
//!     segment ---- tagger ==== cable ==== NIC ---- tagger ---- VLAN interface
//!        (switch)         (tagged frames)          (machine)
//! ```

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, send, setsockopt, sockopt,
};
use nix::sys::time::TimeVal;
use nix::{setsockopt_impl, sockopt_impl};
use testbed::namespace::Namespace;
use testbed::sender;
use testbed::veth::{self, End};

use crate::machine::Machine;
use crate::network::{Cable, Switch};
use crate::site::{ETH0, VLAN};

/// Longest frame that is carried, in bytes.
const LONGEST: usize = 4096;

/// How often a tagger looks whether it is still wanted.
const GLANCE: TimeVal = TimeVal::new(0, 20_000);

/// Both MAC addresses, behind which the tag stands.
const MACS: usize = 12;

sockopt_impl!(
    /// Receive what the kernel has taken off a frame, its tag, beside the frame.
    Auxiliary,
    SetOnly,
    libc::SOL_PACKET,
    libc::PACKET_AUXDATA,
    bool
);

/// The taggers at both ends of a trunk. They end when this is dropped.
#[derive(Debug)]
pub struct Trunk {
    /// The machine's interface in the VLAN.
    pub vlan_interface: End,
    stop: Arc<AtomicBool>,
}

impl Trunk {
    /// Lays one from the new port `port` in `segment` to `machine`'s new NIC `nic`, behind which the
    /// machine has the segment on `eth0`.
    ///
    /// # Errors
    ///
    /// Where the segment does not exist, or a name is taken.
    pub fn lay(
        switch: &Switch,
        segment: &'static str,
        port: &'static str,
        machine: &Machine,
        nic: &'static str,
        mac: [u8; 6],
    ) -> Result<(Cable, Self)> {
        let [a, b, c, d, e, f] = mac;
        // The VLAN interface is one end of a pair, and so is the port in the segment: the taggers
        // have the other ends.
        let pair = |namespace: &Namespace, outer, inner, mac| {
            let ends = (
                End::new(namespace, outer, mac),
                End::new(namespace, inner, [a ^ 0x82, b, c, d, e, f]),
            );
            veth::join(&ends.0, &ends.1)?;
            namespace.sysctl(&format!("net/ipv6/conf/{inner}/disable_ipv6"), "1")?;
            anyhow::Ok(ends)
        };
        let (vlan_interface, in_machine) = pair(&machine.namespace, ETH0, "vlan", mac)?;
        // A frame that is read and sent again has to have all of its checksum.
        vlan_interface.checksum_offload(false)?;
        let (vlan_port, in_switch) = pair(
            &switch.namespace,
            "vlan-port",
            "vlan",
            [a ^ 0x42, b, c, d, e, f],
        )?;
        let vlan_port = vlan_port.name;
        switch
            .namespace
            .ip(&format!("link set {vlan_port} master {segment}"))?;

        let cable = Cable {
            machine: End::new(&machine.namespace, nic, mac),
            port: End::new(&switch.namespace, port, [a ^ 0xc2, b, c, d, e, f]),
        };
        veth::join(&cable.port, &cable.machine)?;
        // The machine says nothing outside of the VLAN.
        let quiet = format!("net/ipv6/conf/{nic}/disable_ipv6");
        machine.namespace.sysctl(&quiet, "1")?;

        let trunk = Self {
            vlan_interface,
            stop: Arc::default(),
        };
        trunk.tag_between(&in_switch, &cable.port)?;
        trunk.tag_between(&in_machine, &cable.machine)?;
        Ok((cable, trunk))
    }

    /// Starts a tagger between an end in the VLAN and one on the trunk.
    fn tag_between(&self, inside: &End, outside: &End) -> Result<()> {
        for (from, to, way) in [
            (inside, outside, put_tag as fn(&Frame<'_>) -> _),
            (outside, inside, take_tag),
        ] {
            let receiver = sender::packet_socket(from, libc::ETH_P_ALL as u16)?;
            setsockopt(&receiver, Auxiliary, &true)?;
            setsockopt(&receiver, sockopt::ReceiveTimeout, &GLANCE)?;
            let sender = sender::packet_socket(to, 0)?;
            let stop = Arc::clone(&self.stop);
            thread::Builder::new()
                .name("tagger".to_owned())
                .spawn(move || carry(&receiver, &sender, way, &stop))
                .context("cannot start a tagger")?;
        }
        Ok(())
    }
}

impl Drop for Trunk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A frame as the kernel hands it over: without its tag, which stands beside it.
struct Frame<'a> {
    bytes: &'a [u8],
    /// The number of its VLAN.
    vlan: Option<u16>,
}

fn put_tag(frame: &Frame<'_>) -> Option<Vec<u8>> {
    let (macs, rest) = frame.bytes.split_at_checked(MACS)?;
    let tag = [libc::ETH_P_8021Q as u16, VLAN].map(u16::to_be_bytes);
    frame
        .vlan
        .is_none()
        .then(|| [macs, tag.as_flattened(), rest].concat())
}

fn take_tag(frame: &Frame<'_>) -> Option<Vec<u8>> {
    (frame.vlan == Some(VLAN)).then(|| frame.bytes.to_vec())
}

fn carry(
    receiver: &OwnedFd,
    sender: &OwnedFd,
    way: fn(&Frame<'_>) -> Option<Vec<u8>>,
    stop: &AtomicBool,
) {
    let mut bytes = vec![0; LONGEST];
    let mut control = nix::cmsg_space!(libc::tpacket_auxdata);
    while !stop.load(Ordering::Relaxed) {
        // As on a wire, what cannot be received or sent is lost.
        if let Ok(Some(frame)) = receive(receiver, &mut bytes, &mut control)
            && let Some(carried) = way(&frame)
        {
            let _ = send(sender.as_raw_fd(), &carried, MsgFlags::empty());
        }
    }
}

/// Receives a frame; none if this machine sent it.
fn receive<'a>(
    socket: &OwnedFd,
    bytes: &'a mut [u8],
    control: &mut [u8],
) -> Result<Option<Frame<'a>>, Errno> {
    let mut slices = [IoSliceMut::new(bytes)];
    let message = recvmsg::<LinkAddr>(
        socket.as_raw_fd(),
        &mut slices,
        Some(control),
        MsgFlags::empty(),
    )?;
    let vlan = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Unknown(auxiliary) => vlan(&auxiliary.data_bytes),
        _ => None,
    });
    let outgoing = message
        .address
        .is_some_and(|address| address.pkttype() == libc::PACKET_OUTGOING);
    let length = message.bytes;
    Ok((!outgoing).then(|| Frame {
        bytes: &bytes[..length],
        vlan,
    }))
}

/// The number of the VLAN in a `struct tpacket_auxdata`.
fn vlan(auxiliary: &[u8]) -> Option<u16> {
    const STATUS: usize = std::mem::offset_of!(libc::tpacket_auxdata, tp_status);
    const TAG: usize = std::mem::offset_of!(libc::tpacket_auxdata, tp_vlan_tci);
    const NUMBER: u16 = 0xfff;
    let status = u32::from_ne_bytes(*auxiliary.get(STATUS..)?.first_chunk()?);
    let tag = u16::from_ne_bytes(*auxiliary.get(TAG..)?.first_chunk()?);
    (status & libc::TP_STATUS_VLAN_VALID != 0).then_some(tag & NUMBER)
}
