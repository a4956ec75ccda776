//! What the kernel says of this network namespace's interfaces, over netlink.

use std::{
    collections::BTreeMap,
    os::{fd::AsRawFd as _, unix::net::UnixDatagram},
};

use anyhow::{Context as _, Result, bail};
use futures_util::TryStreamExt as _;
use nix::{errno::Errno, libc};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage, LinkXdp};

/// An interface, as far as attaching to it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name now; it may be renamed.
    pub name: String,
    /// Its index, which stays.
    pub index: u32,
    /// Ids of the XDP programs on it, in whatever modes.
    pub programs: Vec<u32>,
    /// Whether one of them runs in generic mode.
    pub generic: bool,
    /// Names of the interfaces right above this one that have XDP programs, and the programs' ids.
    pub programs_above: Vec<(String, u32)>,
    /// Indices of the interfaces that this one lies on or under, one step away: the bridge or bond
    /// that it is a port of, the parent of a VLAN.
    upper: Option<u32>,
    lower: Option<u32>,
}

#[cfg(test)]
impl Interface {
    pub(crate) fn without_programs(name: &str, index: u32) -> Self {
        Self {
            name: name.to_owned(),
            index,
            programs: Vec::new(),
            generic: false,
            programs_above: Vec::new(),
            upper: None,
            lower: None,
        }
    }
}

/// Low half of this network namespace's cookie. Its inode number, by which the pins go, is the next
/// one's as soon as it is gone.
///
/// # Errors
///
/// Where the kernel is older than 5.14.
pub fn namespace() -> Result<u32> {
    let socket = UnixDatagram::unbound().context("cannot open a socket")?;
    let mut cookie = 0_u64;
    let mut length = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, which is what `cookie` has.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &mut length,
        )
    };
    Errno::result(answer).context("cannot tell this network namespace from others")?;
    Ok(cookie as u32)
}

/// All interfaces of this network namespace, by index.
///
/// # Errors
///
/// Where netlink refuses.
pub async fn all() -> Result<BTreeMap<u32, Interface>> {
    let (connection, handle, _) = rtnetlink::new_connection().context("cannot open netlink")?;
    let connection = tokio::spawn(connection);
    let links: Result<Vec<_>, _> = handle.link().get().execute().try_collect().await;
    connection.abort();
    let links = links.context("cannot list the interfaces over netlink")?;
    let links = links.into_iter().filter_map(interface);
    let mut all = links.map(|i| (i.index, i)).collect();
    note_programs_above(&mut all);
    Ok(all)
}

fn note_programs_above(all: &mut BTreeMap<u32, Interface>) {
    let mut found = Vec::new();
    for interface in all.values() {
        let controller = interface.upper.and_then(|index| all.get(&index));
        let pairs = [
            (Some(interface.index), controller),
            (interface.lower, Some(interface)),
        ];
        for pair in pairs {
            if let (Some(lower), Some(upper)) = pair
                && let Some(&id) = upper.programs.first()
            {
                found.push((lower, (upper.name.clone(), id)));
            }
        }
    }
    for (lower, above) in found {
        if let Some(interface) = all.get_mut(&lower) {
            interface.programs_above.push(above);
        }
    }
}

/// The interfaces with these names, in their order.
///
/// # Errors
///
/// Where one does not exist, or sees the frames of another one of them.
pub fn choose<'a>(
    names: impl IntoIterator<Item = &'a str>,
    all: &BTreeMap<u32, Interface>,
) -> Result<Vec<Interface>> {
    let mut chosen: Vec<Interface> = Vec::new();
    for name in names {
        let Some(interface) = all.values().find(|interface| interface.name == name) else {
            let others: Vec<_> = all
                .values()
                .map(|interface| interface.name.as_str())
                .collect();
            bail!(
                "there is no interface {name} here; there are {}",
                others.join(", ")
            );
        };
        if let Some(other) = chosen.iter().find(|other| stacked(interface, other, all)) {
            bail!(
                "{name} and {} are stacked on one another: both would see the same frame, and the \
                 second would take it for a copy and drop it; attach to one of them only",
                other.name
            );
        }
        chosen.push(interface.clone());
    }
    Ok(chosen)
}

/// Whether the frames that one of them receives go on to the other.
pub(crate) fn stacked(a: &Interface, b: &Interface, all: &BTreeMap<u32, Interface>) -> bool {
    reaches_up(a.index, b.index, all) || reaches_up(b.index, a.index, all)
}

/// Whether `top` lies somewhere above `bottom`.
fn reaches_up(bottom: u32, top: u32, all: &BTreeMap<u32, Interface>) -> bool {
    let mut above = vec![bottom];
    let mut next = 0;
    while let Some(&current) = above.get(next) {
        next += 1;
        let upper = all.get(&current).and_then(|interface| interface.upper);
        let stacked_on_it = all
            .values()
            .filter(|interface| interface.lower == Some(current))
            .map(|i| i.index);
        for index in upper.into_iter().chain(stacked_on_it) {
            if index == top {
                return true;
            }
            if !above.contains(&index) {
                above.push(index);
            }
        }
    }
    false
}

/// What a netlink message says; `None` for one without a name.
fn interface(message: LinkMessage) -> Option<Interface> {
    let mut found = Interface {
        name: String::new(),
        index: message.header.index,
        programs: Vec::new(),
        generic: false,
        programs_above: Vec::new(),
        upper: None,
        lower: None,
    };
    let mut in_other_namespace = false;
    let mut is_tunnel_end = false;
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => found.name = name,
            LinkAttribute::Controller(index) if index != 0 => found.upper = Some(index),
            LinkAttribute::Link(index) if index != found.index && index != 0 => {
                found.lower = Some(index);
            }
            LinkAttribute::LinkNetNsId(_) => in_other_namespace = true,
            LinkAttribute::LinkInfo(infos) => {
                // The other end of a veth or netkit pair is no lower device: what one end receives,
                // the other has sent.
                is_tunnel_end = infos
                    .iter()
                    .any(|info| matches!(info, LinkInfo::Kind(InfoKind::Veth | InfoKind::Netkit)));
            }
            LinkAttribute::Xdp(xdp) => {
                found.generic = xdp.iter().any(|xdp| matches!(xdp, LinkXdp::SkbProgId(_)));
                found.programs = xdp
                    .iter()
                    .filter_map(|xdp| match xdp {
                        LinkXdp::ProgId(id)
                        | LinkXdp::DrvProgId(id)
                        | LinkXdp::SkbProgId(id)
                        | LinkXdp::HwProgId(id) => Some(*id),
                        _ => None,
                    })
                    .collect();
            }
            _ => {}
        }
    }
    if in_other_namespace || is_tunnel_end {
        found.lower = None;
    }
    (!found.name.is_empty()).then_some(found)
}
