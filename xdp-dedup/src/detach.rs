//! `detach`: takes off what `run --persist` left, without a daemon.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use clap::{ArgGroup, Args};
use xdp_dedup_common::interface::InterfaceNote;

use crate::{
    interfaces::{self, Interface},
    maps::SharedMaps,
    pins::{self, PinFolder},
    privileges,
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
    if wanted.is_empty() {
        println!("nothing is attached");
    }
    let Some(pins) = pins else {
        // Who was killed at its last step has left the folder around it.
        return pins::remove_root();
    };
    for index in wanted {
        take_off(index, &pins, &all).await?;
    }
    // With the last link the maps and the folder go.
    pins.close()
}

async fn take_off(index: u32, pins: &PinFolder, all: &BTreeMap<u32, Interface>) -> Result<()> {
    let program_id = match pins.open_link(index) {
        Ok(pin) => Some(pin.program_id),
        Err(error) if !privileges::missing().is_empty() => return Err(error),
        // What is no link has no program; its pin goes all the same.
        Err(_) => None,
    };
    pins::remove(&pins.link(index))?;
    match (all.get(&index), program_id) {
        (Some(interface), Some(id)) if interface.programs.contains(&id) => {
            wait_until_off(interface, id).await?;
            println!("{}: detached", interface.name);
        }
        (Some(interface), _) => println!("{}: was off already", interface.name),
        (None, _) => println!("interface {index}: gone before"),
    }
    forget(index, pins);
    Ok(())
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
