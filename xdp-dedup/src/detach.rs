//! `detach`: takes off what `run --persist` left, without a daemon.

use std::{collections::BTreeMap, fs, io::Write as _, path::Path};

use anyhow::{Context as _, Error, Result, bail};
use aya::programs::links::LinkError;
use clap::{ArgGroup, Args};
use nix::libc;
use xdp_dedup_common::interface::InterfaceNote;

use crate::{
    interfaces::{self, Interface},
    maps::SharedMaps,
    output,
    pins::{self, PinFolder},
    takeover::wait_until_off,
};

/// Arguments of `detach`.
#[derive(Args, Clone, Debug)]
#[command(group(ArgGroup::new("which").required(true)))]
pub struct DetachArgs {
    /// Take the filter off this interface; can be given several times
    #[arg(short, long = "interface", value_name = "IFACE", group = "which")]
    pub interfaces: Vec<String>,

    /// Take it off all interfaces of this network namespace, and remove all that it has pinned here
    #[arg(long, group = "which")]
    pub all: bool,
}

/// Detaches.
///
/// # Errors
///
/// Where a `run` is at work, nothing is attached to an interface that was named, or the kernel
/// refuses.
pub fn run(args: &DetachArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(detach(args))
}

async fn detach(args: &DetachArgs) -> Result<()> {
    let all = interfaces::all().await?;
    let named = interfaces::choose(args.interfaces.iter().map(String::as_str), &all)?;
    let pins = PinFolder::lock_existing()?;
    let linked = match &pins {
        Some(pins) => pins.linked()?,
        None => Vec::new(),
    };
    if let Some(interface) = named.iter().find(|named| !linked.contains(&named.index)) {
        bail!(
            "`run --persist` has left nothing on {}; nothing was changed",
            interface.name
        );
    }
    let wanted: Vec<u32> = if args.all {
        linked
    } else {
        named.iter().map(|interface| interface.index).collect()
    };
    // That nobody reads it is no reason to stop half way.
    let tell = |line: &str| output::print(|output| writeln!(output, "{line}"));
    let mut told = Ok(true);
    if wanted.is_empty() {
        told = tell("nothing is attached");
    }
    let Some(pins) = pins else {
        // Who was killed at its last step has left the folder around it.
        pins::remove_root()?;
        return told.map(drop);
    };
    for index in wanted {
        let line = take_off(index, &pins, &all).await?;
        told = told.and(tell(&line));
    }
    // With the last link the maps and the folder go.
    pins.close()?;
    told.map(drop)
}

/// Takes the filter off an interface, and says what came of it.
async fn take_off(index: u32, pins: &PinFolder, all: &BTreeMap<u32, Interface>) -> Result<String> {
    let pin = pins.link(index);
    let program_id = match pins.open_link(index) {
        Ok(pin) => Some(pin.program_id),
        // What is no link has no program; its pin goes all the same.
        Err(error) if is_no_link(&error, &pin) => None,
        Err(error) => return Err(error),
    };
    pins::remove(&pin)?;
    let line = match (all.get(&index), program_id) {
        (Some(interface), Some(id)) if interface.programs.contains(&id) => {
            wait_until_off(interface, id).await?;
            format!("{}: detached", interface.name)
        }
        (Some(interface), _) => format!("{}: was off already", interface.name),
        (None, _) => format!("interface {index}: gone before"),
    };
    forget(index, pins);
    Ok(line)
}

/// Whether the reason why a pin cannot be opened is that something else than a link is there.
fn is_no_link(error: &Error, pin: &Path) -> bool {
    match error.downcast_ref::<LinkError>() {
        Some(LinkError::InvalidLink) => true,
        Some(LinkError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::EINVAL) =>
        {
            true
        }
        _ => fs::symlink_metadata(pin).is_ok_and(|status| status.is_symlink()),
    }
}

/// Clears the note of an interface. Maps of other versions cannot be read; their programs' notes say
/// what they said until the maps go.
fn forget(index: u32, pins: &PinFolder) {
    let Ok(maps) = SharedMaps::open(&pins.maps()) else {
        return;
    };
    for (slot, note) in maps.interfaces().unwrap_or_default() {
        if note.index == index {
            // A note that stays names an interface without the program that it names.
            let _ = maps.note_interface(slot, InterfaceNote::default());
        }
    }
}
