//! Putting the program on an interface, and taking it off again.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::programs::{
    Link, ProgramError, XdpError, XdpMode, links::FdLink, loaded_programs, xdp::XdpLink,
};
use clap::ValueEnum;
use nix::errno::Errno;
use xdp_dedup_common::interface::InterfaceNote;

use crate::{
    interfaces::Interface,
    kernel::{Kernel, Program},
    privileges,
};

/// Where in the receive path the program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// In the NIC's driver, before the kernel has made a packet of the frame.
    #[default]
    Native,
    /// In the kernel's stack, for drivers without XDP: later, and slower.
    Generic,
}

/// As on the command line and in metrics.
impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// The program on one interface. Dropping it detaches, unless the link is pinned.
pub struct Attachment {
    /// The interface, as it was when the program was attached.
    pub interface: Interface,
    /// The mode that it runs in.
    pub mode: Mode,
    /// Its place in the counters.
    pub slot: u32,
    /// Low half of the network namespace's cookie.
    pub namespace: u32,
    /// Since when the filter is on the interface, in microseconds since 1970.
    pub since: u64,
    /// Id of the program in the kernel.
    pub program_id: u32,
    /// Tag of the program: a digest of its instructions.
    pub program_tag: u64,
    /// The instance on this interface.
    pub kernel: Kernel,
    link: Mutex<Option<XdpLink>>,
}

impl Attachment {
    /// An instance of the program that is on an interface by this link, and notes so in the map of
    /// interfaces.
    ///
    /// # Errors
    ///
    /// Where the kernel does not tell of the program, or refuses the note; the link is then dropped.
    pub fn hold(place: Place, kernel: Kernel, link: XdpLink) -> Result<Self> {
        let Place {
            interface,
            mode,
            slot,
            namespace,
            since,
        } = place;
        let info = kernel.xdp(Program::Filter)?.info();
        let info = info.context("cannot read the program's id")?;
        let attachment = Self {
            interface,
            mode,
            slot,
            namespace,
            since,
            program_id: info.id(),
            program_tag: info.tag(),
            kernel,
            link: Mutex::new(Some(link)),
        };
        let maps = &attachment.kernel.maps;
        maps.note_interface(slot, attachment.note())?;
        Ok(attachment)
    }

    /// Pins the link: the program stays when this process ends, however it ends.
    ///
    /// # Errors
    ///
    /// Where the file system refuses; the program is then off the interface.
    pub fn pin(&self, pin: &Path) -> Result<()> {
        let mut held = lock(&self.link);
        let Some(link) = held.take() else {
            return Ok(());
        };
        let name = &self.interface.name;
        let pin_link = || -> Result<XdpLink> {
            let pinned = FdLink::try_from(link)?.pin(pin)?;
            Ok(XdpLink::try_from(FdLink::from(pinned))?)
        };
        *held =
            Some(pin_link().with_context(|| {
                format!("cannot pin the filter of {name} at {}", pin.display())
            })?);
        Ok(())
    }

    /// Takes the program off the interface, unless the link is pinned; a second time there is nothing
    /// to do.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn detach(&self) -> Result<()> {
        let name = &self.interface.name;
        let link = lock(&self.link).take();
        link.map_or(Ok(()), Link::detach)
            .with_context(|| format!("cannot detach from {name}"))?;
        self.kernel
            .maps
            .note_interface(self.slot, InterfaceNote::default())
    }

    /// What other commands are to know of it.
    pub fn note(&self) -> InterfaceNote {
        InterfaceNote {
            index: self.interface.index,
            generic: u32::from(self.mode == Mode::Generic),
            program_id: self.program_id,
            namespace: self.namespace,
            program_tag: self.program_tag,
            since: self.since,
        }
    }

    /// Whether the program is on the interface, as the kernel tells of all interfaces by index.
    pub fn is_attached(&self, all: &BTreeMap<u32, Interface>) -> bool {
        all.get(&self.interface.index)
            .is_some_and(|interface| interface.programs.contains(&self.program_id))
    }
}

/// Where an instance of the program goes.
#[derive(Clone, Debug)]
pub struct Place {
    /// The interface, as the kernel tells of it now.
    pub interface: Interface,
    /// The mode to run in.
    pub mode: Mode,
    /// The interface's place in the counters.
    pub slot: u32,
    /// Low half of the network namespace's cookie.
    pub namespace: u32,
    /// Since when the filter is on it, in microseconds since 1970.
    pub since: u64,
}

/// Attaches an instance of the program. Never displaces another program, and never takes the other
/// mode instead.
///
/// # Errors
///
/// Where the driver or the kernel refuses, or privileges lack.
pub fn attach(kernel: &mut Kernel, interface: &Interface, mode: Mode) -> Result<XdpLink> {
    let program = kernel.xdp_mut(Program::Filter)?;
    let link = program
        .attach_to_if_index(
            interface.index,
            match mode {
                Mode::Native => XdpMode::Driver,
                Mode::Generic => XdpMode::Skb,
            },
        )
        .map_err(|error| refusal(error, interface, mode))?;
    let link = program.take_link(link).context("cannot hold the link")?;
    if is_over_netlink(&link) {
        let name = &interface.name;
        link.detach()
            .with_context(|| format!("cannot detach from {name}"))?;
        bail!(
            "cannot attach to {name} in {mode} mode: the kernel took the program without a link \
             only, so that it would stay if this process were killed; it is off again: start \
             `xdp-dedup run` again, and see whether a seccomp filter or a security module refuses \
             BPF_LINK_CREATE"
        );
    }
    Ok(link)
}

/// Whether a program was attached in the way of old, which aya tries where the kernel refuses a link
/// with EINVAL: nothing detaches such a program when its process is killed, and it cannot be pinned.
fn is_over_netlink(link: &XdpLink) -> bool {
    // The types that would tell are aya's own.
    format!("{:?}", link.id()).contains("NlLink")
}

/// Puts an instance of the program in place of the one that a link holds: at each moment one of them
/// is on the interface.
///
/// # Errors
///
/// Where the kernel refuses; the program that was there stays, if the link is pinned.
pub fn adopt(kernel: &mut Kernel, link: FdLink, interface: &Interface) -> Result<XdpLink> {
    let program = kernel.xdp_mut(Program::Filter)?;
    let link = XdpLink::try_from(link).context("cannot read the link")?;
    let link = program.attach_to_link(link).map_err(|error| {
        let name = &interface.name;
        let what = format!("put the new program in place of the one on {name}, which stays");
        short(error).context(privileges::advice(&what))
    })?;
    program.take_link(link).context("cannot hold the link")
}

/// Refuses an interface with an XDP program on it, unless that is this one.
///
/// # Errors
///
/// One that names the program.
pub fn refuse_incumbent(interface: &Interface, ours: Option<u32>) -> Result<()> {
    let foreign = |id: &&u32| Some(**id) != ours;
    match interface.programs.iter().find(foreign) {
        Some(&id) => bail!("{}", incumbent(interface, id)),
        None => Ok(()),
    }
}

fn lock<T>(link: &Mutex<T>) -> MutexGuard<'_, T> {
    link.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a loaded program, where this process may know it: that takes CAP_SYS_ADMIN.
pub(crate) fn program_name(id: u32) -> Option<String> {
    let mut programs = loaded_programs().flatten();
    let program = programs.find(|program| program.id() == id)?;
    program.name_as_str().map(str::to_owned)
}

/// A program as an operator would look for it.
pub(crate) fn described(program_id: u32) -> String {
    match program_name(program_id) {
        Some(name) => format!("program {name} (id {program_id})"),
        None => format!("the program with id {program_id}"),
    }
}

/// What libxdp's dispatcher is called in the kernel.
const DISPATCHER: &str = "xdp_dispatcher";

/// What to do about another program on the interface.
pub(crate) fn way_out(interface: &str, program_id: u32) -> String {
    if program_name(program_id).as_deref() == Some(DISPATCHER) {
        format!(
            "behind libxdp's dispatcher are the programs that `xdp-loader status {interface}` lists, \
             and `run` cannot join them; `xdp-loader unload {interface} --all` takes them all off"
        )
    } else {
        "stop the tool that attached it (`bpftool link` shows who holds it; what xdp-loader attached, \
         `xdp-loader unload` takes off)"
            .to_owned()
    }
}

/// Says who is on the interface already.
fn incumbent(interface: &Interface, id: u32) -> String {
    let program = described(id);
    let name = &interface.name;
    let way_out = way_out(name, id);
    format!(
        "{name} already has an XDP program: {program}; xdp-dedup never displaces another program: \
         {way_out}"
    )
}

/// Says why the kernel did not attach the program, and what to do.
fn refusal(error: ProgramError, interface: &Interface, mode: Mode) -> anyhow::Error {
    let name = &interface.name;
    let errno = match &error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        // After EINVAL aya tries it once more, over netlink.
        ProgramError::XdpError(XdpError::NetlinkError(error)) => error.raw_os_error(),
        _ => None,
    };
    let what = format!("attach to {name} in {mode} mode");
    let what_to_do = match errno.map(Errno::from_raw) {
        // As drivers say it: veth has ENOSPC for channels, ERANGE for an MTU.
        Some(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSPC | Errno::ERANGE)
            if mode == Mode::Native =>
        {
            format!(
                "cannot {what}: its driver cannot run XDP natively, at least not as it is set up \
                 now (MTU, channels); `--mode generic` works with every driver"
            )
        }
        Some(Errno::EBUSY) => format!("cannot {what}: another XDP program came first"),
        // dev_xdp_attach() in the kernel asks the interfaces right above, too.
        Some(Errno::EEXIST) => match interface.programs_above.first() {
            Some((above, id)) => format!(
                "cannot {what}: {above} above it already has an XDP program: {}, and the kernel \
                 takes none below that: {}",
                described(*id),
                way_out(above, *id)
            ),
            None => format!(
                "cannot {what}: another XDP program came first, on it or on an interface above it \
                 (`ip link` shows them)"
            ),
        },
        Some(Errno::ENODEV) => format!("cannot {what}: the interface is gone"),
        _ => privileges::advice(&what),
    };
    short(error).context(what_to_do)
}

/// The kernel's reason alone, without the name of the call.
fn short(error: ProgramError) -> anyhow::Error {
    match error {
        ProgramError::SyscallError(error) => anyhow::Error::new(error.io_error),
        other => anyhow!(other),
    }
}
