//! Putting the program on an interface, and taking it off again.

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::programs::{Link, ProgramError, XdpMode, loaded_programs, xdp::XdpLink};
use clap::ValueEnum;
use xdp_dedup_common::interface::InterfaceNote;

use crate::{
    interfaces::Interface,
    kernel::{Clock, Kernel, LoadOptions, Program},
    policy::Rules,
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

/// The program on one interface. Dropping it detaches.
pub struct Attachment {
    /// The interface, as it was when the program was attached.
    pub interface: Interface,
    /// The mode that it runs in.
    pub mode: Mode,
    /// Id of the program in the kernel.
    pub program_id: u32,
    /// Tag of the program: a digest of its instructions.
    pub program_tag: u64,
    /// The instance on this interface.
    pub kernel: Kernel,
    link: Mutex<Option<XdpLink>>,
}

/// What all instances on the interfaces of one `run` have in common.
#[derive(Clone, Copy, Debug)]
pub struct AttachOptions<'a> {
    /// Entries of the table.
    pub capacity: u32,
    /// The rules in force from the first frame on.
    pub rules: &'a Rules,
    /// Whether messages are counted by relay.
    pub relay_counters: bool,
    /// The folder of the shared maps.
    pub pins: &'a Path,
}

impl Attachment {
    /// Loads an instance of the program and attaches it. Never displaces another program, and never
    /// takes the other mode instead.
    ///
    /// # Errors
    ///
    /// Where another program is attached, the driver or the kernel refuses, or privileges lack.
    pub fn attach(
        interface: &Interface,
        mode: Mode,
        interface_slot: u32,
        options: &AttachOptions<'_>,
    ) -> Result<Self> {
        let AttachOptions {
            capacity,
            rules,
            relay_counters,
            pins,
        } = *options;
        if let Some(&id) = interface.programs.first() {
            bail!("{}", incumbent(interface, id));
        }
        let load = LoadOptions {
            capacity,
            interface_slot,
            clock: Clock::Live,
            relay_counters,
            pins: Some(pins),
        };
        let mut kernel = Kernel::load(&load, &rules.policy)?;
        kernel.maps.set_rules(rules)?;
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
        let info = program.info().context("cannot read the program's id")?;
        Ok(Self {
            interface: interface.clone(),
            mode,
            program_id: info.id(),
            program_tag: info.tag(),
            kernel,
            link: Mutex::new(Some(link)),
        })
    }

    /// Takes the program off the interface; a second time there is nothing to do.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    pub fn detach(&self) -> Result<()> {
        let link = self
            .link
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let name = &self.interface.name;
        link.map_or(Ok(()), Link::detach)
            .with_context(|| format!("cannot detach from {name}"))
    }

    /// What other commands are to know of it.
    pub fn note(&self, since: SystemTime) -> InterfaceNote {
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
        InterfaceNote {
            index: self.interface.index,
            generic: u32::from(self.mode == Mode::Generic),
            program_id: self.program_id,
            reserved: 0,
            program_tag: self.program_tag,
            since: u64::try_from(since.as_micros()).unwrap_or(u64::MAX),
        }
    }

    /// Whether the program is on the interface, as the kernel tells of all interfaces by index.
    pub fn is_attached(&self, all: &BTreeMap<u32, Interface>) -> bool {
        all.get(&self.interface.index)
            .is_some_and(|interface| interface.programs.contains(&self.program_id))
    }
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

/// Says who is on the interface already.
fn incumbent(interface: &Interface, id: u32) -> String {
    let program = described(id);
    let name = &interface.name;
    format!(
        "{name} already has an XDP program: {program}; xdp-dedup never displaces another program: \
         stop the tool that attached it (`bpftool link` shows who holds it)"
    )
}

/// Says why the kernel did not attach the program, and what to do.
fn refusal(error: ProgramError, interface: &Interface, mode: Mode) -> anyhow::Error {
    let name = &interface.name;
    let errno = match &error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    };
    let what = format!("attach to {name} in {mode} mode");
    let what_to_do = match errno.map(nix::errno::Errno::from_raw) {
        // As drivers say it: veth has ENOSPC for channels, ERANGE for an MTU.
        Some(
            nix::errno::Errno::EOPNOTSUPP
            | nix::errno::Errno::EINVAL
            | nix::errno::Errno::ENOSPC
            | nix::errno::Errno::ERANGE,
        ) if mode == Mode::Native => {
            format!(
                "cannot {what}: its driver cannot run XDP natively, at least not as it is set up \
                 now (MTU, channels); `--mode generic` works with every driver"
            )
        }
        Some(nix::errno::Errno::EBUSY | nix::errno::Errno::EEXIST) => {
            format!("cannot {what}: another XDP program came first")
        }
        Some(nix::errno::Errno::ENODEV) => format!("cannot {what}: the interface is gone"),
        _ => privileges::advice(&what),
    };
    match error {
        ProgramError::SyscallError(error) => anyhow::Error::new(error.io_error),
        other => anyhow!(other),
    }
    .context(what_to_do)
}
