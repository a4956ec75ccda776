//! Putting the filter on interfaces, and taking over what an earlier `run` left pinned: its memory,
//! its counters, and its place on the interfaces, where one program follows the other without a gap.
//!
//! In this order, so that whatever fails leaves what was there before at work, and so that being
//! killed between any two steps leaves something that the next `run` or `detach` copes with.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use tracing::{error, info, warn};
use xdp_dedup_common::{
    digest::DigestKey,
    interface::{InterfaceNote, MAX_INTERFACES},
};

use crate::{
    attachment::{self, Attachment, Mode, Place},
    interfaces::{self, Interface},
    kernel::{Clock, Kernel, LoadOptions},
    layout::{self, Found},
    maps::{self, SharedMaps},
    pins::{self, LinkPin, PinFolder},
    policy::Rules,
    settings::Settings,
    trace,
};

/// Most time that the kernel may take to let go of a link; it does so in the background.
const LETTING_GO: Duration = Duration::from_secs(5);

/// What an earlier `run` left in the pin folder.
pub struct Legacy {
    /// Low half of this network namespace's cookie.
    namespace: u32,
    maps: Maps,
    /// Filters that are at work, and their interfaces, by index.
    links: BTreeMap<u32, (Interface, LinkPin)>,
    /// Interfaces that are gone, but still have a pin, by index.
    gone: Vec<u32>,
}

enum Maps {
    /// They go on: its memory and counters.
    Adopted(Box<SharedMaps>),
    /// Fresh ones are needed; why, if there are others.
    Fresh(Option<String>),
}

impl Legacy {
    /// Looks; changes nothing.
    ///
    /// # Errors
    ///
    /// Where a pin is there but cannot be opened.
    pub fn find(pins: &PinFolder, capacity: u32, all: &BTreeMap<u32, Interface>) -> Result<Self> {
        let namespace = interfaces::namespace()?;
        let mut legacy = Self {
            namespace,
            maps: Maps::find(pins, capacity, namespace)?,
            links: BTreeMap::new(),
            gone: Vec::new(),
        };
        for index in pins.linked()? {
            let pin = pins.open_link(index)?;
            // An interface that is gone may have left its index to another one.
            let at_work = |interface: &&Interface| interface.programs.contains(&pin.program_id);
            match all.get(&index).filter(at_work) {
                Some(interface) => {
                    legacy.links.insert(index, (interface.clone(), pin));
                }
                None => legacy.gone.push(index),
            }
        }
        Ok(legacy)
    }

    /// The secret under which the table was filled, if it is adopted.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the look-up.
    pub fn digest_key(&self) -> Result<Option<DigestKey>> {
        match &self.maps {
            Maps::Adopted(maps) => Ok(Some(*maps.policy()?.digest_key())),
            Maps::Fresh(_) => Ok(None),
        }
    }
}

impl Maps {
    fn find(pins: &PinFolder, capacity: u32, namespace: u32) -> Result<Self> {
        let folder = pins.maps();
        if folder.exists() {
            return Ok(match layout::look(&folder, capacity)? {
                Found::Usable(maps) if is_of(&maps, namespace)? => Self::Adopted(maps),
                Found::Usable(_) => Self::Fresh(Some(
                    "the pinned ones are of a network namespace that is gone, whose inode number this one has"
                        .to_owned(),
                )),
                Found::Unusable(reason) => Self::Fresh(Some(reason)),
            });
        }
        let others = pins.other_layouts()?;
        Ok(Self::Fresh(others.last().map(|other| {
            format!("its layout is {}, and was {other}", maps::LAYOUT)
        })))
    }
}

/// Whether the notes in the maps are of this network namespace.
fn is_of(maps: &SharedMaps, namespace: u32) -> Result<bool> {
    let notes = maps.interfaces()?;
    Ok(notes.iter().all(|(_, note)| note.namespace == namespace))
}

/// An instance that is loaded, and not yet on its interface.
struct Waiting {
    place: Place,
    kernel: Kernel,
    /// The filter that it is to follow.
    predecessor: Option<LinkPin>,
}

/// Attaches to all interfaces or, where one refuses, to no other than before. `settings` have the
/// digest key of the maps that are adopted.
///
/// # Errors
///
/// Where another program is on an interface, the kernel or a driver refuses, or privileges lack.
pub async fn take_over(
    chosen: &[Interface],
    settings: &Settings,
    pins: &PinFolder,
    mut legacy: Legacy,
) -> Result<Vec<Attachment>> {
    for interface in chosen {
        let ours = legacy.links.get(&interface.index);
        attachment::refuse_incumbent(interface, ours.map(|(_, pin)| pin.program_id))?;
    }
    let folder = match &legacy.maps {
        Maps::Adopted(_) => pins.maps(),
        Maps::Fresh(_) => pins.prepare()?,
    };
    let waiting = load(chosen, settings, &folder, &mut legacy)?;
    let fresh: Vec<_> = waiting
        .iter()
        .filter(|waiting| waiting.predecessor.is_none())
        .map(|waiting| waiting.place.interface.index)
        .collect();
    let before = Before::note(&folder, fresh, &legacy)?;
    let result = switch(waiting, settings, pins, &legacy).await;
    match result {
        Ok(mut attachments) => {
            let place = |attachment: &Attachment| {
                let index = attachment.interface.index;
                chosen.iter().position(|chosen| chosen.index == index)
            };
            attachments.sort_by_key(place);
            Ok(attachments)
        }
        Err(error) => {
            if let Err(error) = before.restore(pins) {
                error!("{error:#}");
            }
            Err(error)
        }
    }
}

/// Loads an instance for each interface; nothing that is at work changes.
fn load(
    chosen: &[Interface],
    settings: &Settings,
    folder: &Path,
    legacy: &mut Legacy,
) -> Result<Vec<Waiting>> {
    let noted = match &legacy.maps {
        Maps::Adopted(maps) => maps.interfaces()?,
        Maps::Fresh(_) => Vec::new(),
    };
    let slots = slots(chosen, &noted);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_micros() as u64);
    let modes = settings.interfaces.iter().map(|(_, mode)| *mode);
    let mut waiting = Vec::new();
    for ((interface, mode), (slot, note)) in chosen.iter().zip(modes).zip(slots) {
        let options = LoadOptions {
            capacity: settings.capacity,
            interface_slot: slot,
            clock: Clock::Live,
            relay_counters: settings.relay_counters,
            trace: settings.trace,
            pins: Some(folder),
        };
        let mut kernel = Kernel::load_without_policy(&options)?;
        if settings.trace {
            trace::follow(&mut kernel, &interface.name)?;
        }
        if note.is_none() {
            kernel.maps.reset_counters(slot)?;
        }
        let predecessor = legacy.links.remove(&interface.index).map(|(_, pin)| pin);
        let since = predecessor.as_ref().and(note).map(|note| note.since);
        waiting.push(Waiting {
            place: Place {
                interface: interface.clone(),
                mode,
                slot,
                namespace: legacy.namespace,
                since: since.unwrap_or(now),
            },
            kernel,
            predecessor,
        });
    }
    Ok(waiting)
}

/// A slot for each interface: the one that it is noted in, or a free one.
fn slots(
    chosen: &[Interface],
    noted: &[(u32, InterfaceNote)],
) -> Vec<(u32, Option<InterfaceNote>)> {
    let note_of = |interface: &Interface| {
        noted
            .iter()
            .find(|(_, note)| note.index == interface.index)
            .copied()
    };
    let kept: BTreeSet<_> = chosen
        .iter()
        .filter_map(note_of)
        .map(|(slot, _)| slot)
        .collect();
    // Those of interfaces that will be detached come last.
    let (others, free): (Vec<_>, Vec<_>) = (0..MAX_INTERFACES as u32)
        .filter(|slot| !kept.contains(slot))
        .partition(|slot| noted.iter().any(|(noted, _)| noted == slot));
    let mut free = free.into_iter().chain(others);
    chosen
        .iter()
        .filter_map(|interface| match note_of(interface) {
            Some((slot, note)) => Some((slot, Some(note))),
            None => free.next().map(|slot| (slot, None)),
        })
        .collect()
}

/// From the first step that changes something to the last one.
async fn switch(
    waiting: Vec<Waiting>,
    settings: &Settings,
    pins: &PinFolder,
    legacy: &Legacy,
) -> Result<Vec<Attachment>> {
    let shared = waiting.first().context("no interface")?;
    shared.kernel.maps.set_rules(&settings.rules)?;
    for index in &legacy.gone {
        info!("interface {index} is gone: its pin is removed");
        pins::remove(&pins.link(*index))?;
    }
    let (followers, others): (Vec<_>, Vec<_>) = waiting
        .into_iter()
        .partition(|waiting| waiting.predecessor.is_some());
    let (changers, followers): (Vec<_>, Vec<_>) = followers.into_iter().partition(|waiting| {
        waiting.place.interface.generic != (waiting.place.mode == Mode::Generic)
    });

    let mut attachments = Vec::new();
    // What is most likely to fail comes before what cannot be taken back.
    for Waiting {
        place, mut kernel, ..
    } in others
    {
        let link = attachment::attach(&mut kernel, &place.interface, place.mode)?;
        let attachment = Attachment::hold(place, kernel, link)?;
        tell("attached", &attachment);
        attachments.push(attachment);
    }
    match &legacy.maps {
        Maps::Adopted(_) => {}
        Maps::Fresh(reason) => {
            pins.install()?;
            if let Some(reason) = reason {
                warn!("the table and the counters start anew: {reason}");
            }
        }
    }
    for Waiting {
        place,
        mut kernel,
        predecessor,
    } in followers
    {
        let predecessor = predecessor.context("no predecessor")?;
        let link = attachment::adopt(&mut kernel, predecessor.link, &place.interface)?;
        let attachment = Attachment::hold(place, kernel, link)?;
        tell("taken over, without a gap", &attachment);
        attachments.push(attachment);
    }
    for waiting in changers {
        let attachment = change_mode(waiting, pins).await?;
        tell("attached", &attachment);
        attachments.push(attachment);
    }
    let pin_of = |attachment: &Attachment| pins.link(attachment.interface.index);
    if settings.persist {
        for attachment in &attachments {
            let pin = pin_of(attachment);
            if !pin.exists() {
                attachment.pin(&pin)?;
            }
        }
    }
    release(&attachments, legacy)?;
    pins.tidy()?;
    if !settings.persist {
        // From here on the filter goes with this process.
        for attachment in &attachments {
            pins::remove(&pin_of(attachment))?;
        }
    }
    Ok(attachments)
}

/// Takes the filter off the interfaces that nobody asks for any more.
fn release(attachments: &[Attachment], legacy: &Legacy) -> Result<()> {
    for (interface, pin) in legacy.links.values() {
        warn!(
            interface = interface.name,
            program = pin.program_id,
            "detached: an earlier run left the filter there, and this one was not asked to go on"
        );
        pins::remove(&pin.path)?;
    }
    let Some(shared) = attachments.first() else {
        return Ok(());
    };
    let maps = &shared.kernel.maps;
    let is_held = |slot: u32| attachments.iter().any(|attachment| attachment.slot == slot);
    for (slot, _) in maps.interfaces()? {
        if !is_held(slot) {
            maps.note_interface(slot, InterfaceNote::default())?;
        }
    }
    Ok(())
}

/// Detaches and attaches again: a link keeps its mode.
async fn change_mode(waiting: Waiting, pins: &PinFolder) -> Result<Attachment> {
    let Waiting {
        place,
        mut kernel,
        predecessor,
    } = waiting;
    let (interface, mode) = (&place.interface, place.mode);
    let name = &interface.name;
    warn!(
        interface = name,
        %mode,
        "the mode changes: the filter is off for a moment, and copies pass"
    );
    let before = match mode {
        Mode::Native => Mode::Generic,
        Mode::Generic => Mode::Native,
    };
    let pin = pins.link(interface.index);
    pins::remove(&pin)?;
    let is_off = match predecessor {
        Some(LinkPin {
            program_id, link, ..
        }) => {
            drop(link);
            wait_until_off(interface, program_id).await
        }
        None => Ok(()),
    };
    let changed = is_off.and_then(|()| attachment::attach(&mut kernel, interface, mode));
    let (mode, link, refusal) = match changed {
        Ok(link) => (mode, Ok(link), None),
        Err(refusal) => {
            let link = attachment::attach(&mut kernel, interface, before);
            (before, link, Some(refusal))
        }
    };
    // Pinned at once: where another interface refuses, this one goes on.
    let held = link.and_then(|link| {
        let place = Place {
            mode,
            ..place.clone()
        };
        let attachment = Attachment::hold(place, kernel, link)?;
        attachment.pin(&pin)?;
        Ok(attachment)
    });
    match (held, refusal) {
        (Ok(attachment), None) => Ok(attachment),
        (Ok(_), Some(refusal)) => {
            info!(interface = name, %mode, "attached again");
            Err(refusal)
        }
        (Err(error), refusal) => {
            error!(interface = name, "no filter stays on it: {error:#}");
            Err(refusal.unwrap_or(error))
        }
    }
}

/// Waits until a program whose last link was closed is off the interface.
///
/// # Errors
///
/// Where it stays.
pub async fn wait_until_off(interface: &Interface, program_id: u32) -> Result<()> {
    let start = Instant::now();
    loop {
        let all = interfaces::all().await;
        let is_on = |all: &BTreeMap<_, Interface>| {
            let now = all.get(&interface.index);
            now.is_some_and(|interface| interface.programs.contains(&program_id))
        };
        if all.as_ref().is_ok_and(|all| !is_on(all)) {
            return Ok(());
        }
        if start.elapsed() > LETTING_GO {
            all?;
            bail!(
                "the program (id {program_id}) is still on {}: another process holds its link \
                 (`bpftool link` shows which)",
                interface.name
            );
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What there was before the first change, for after a failure.
struct Before {
    /// The maps that the new instances share.
    maps: SharedMaps,
    /// The rules in force, if the maps are adopted. Fresh ones had none: who has them goes on.
    rules: Option<Rules>,
    notes: Vec<(u32, InterfaceNote)>,
    /// The interfaces, by index, that had no filter.
    fresh: Vec<u32>,
}

impl Before {
    /// Looks; changes nothing. `folder` is that of the maps, which may move.
    fn note(folder: &Path, fresh: Vec<u32>, legacy: &Legacy) -> Result<Self> {
        let maps = SharedMaps::open(folder)?;
        Ok(Self {
            rules: match legacy.maps {
                Maps::Adopted(_) => Some(maps.rules()?),
                Maps::Fresh(_) => None,
            },
            notes: maps.interfaces()?,
            maps,
            fresh,
        })
    }

    /// The rules that were in force; no pins and no notes of interfaces on which nothing stays.
    fn restore(&self, pins: &PinFolder) -> Result<()> {
        for index in &self.fresh {
            pins::remove(&pins.link(*index))?;
        }
        if let Some(rules) = &self.rules {
            self.maps.set_rules(rules)?;
        }
        for (slot, note) in self.maps.interfaces()? {
            if self.fresh.contains(&note.index) {
                let noted = self.notes.iter().find(|(noted, _)| *noted == slot);
                let before = noted.map_or_else(InterfaceNote::default, |(_, note)| *note);
                self.maps.note_interface(slot, before)?;
            }
        }
        Ok(())
    }
}

fn tell(what: &str, attachment: &Attachment) {
    info!(
        interface = attachment.interface.name,
        mode = %attachment.mode,
        program = attachment.program_id,
        "{what}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32) -> Interface {
        Interface::without_programs("eth", index)
    }

    fn note(index: u32) -> InterfaceNote {
        InterfaceNote {
            index,
            ..InterfaceNote::default()
        }
    }

    /// The slots that interfaces with these indices get, and whether each keeps its counters.
    fn slots_of(chosen: &[u32], noted: &[(u32, u32)]) -> Vec<(u32, bool)> {
        let chosen: Vec<_> = chosen.iter().map(|&index| interface(index)).collect();
        let noted: Vec<_> = noted
            .iter()
            .map(|&(slot, index)| (slot, note(index)))
            .collect();
        let slots = slots(&chosen, &noted).into_iter();
        slots.map(|(slot, note)| (slot, note.is_some())).collect()
    }

    #[test]
    fn an_interface_keeps_its_slot_and_another_one_gets_a_free_one() {
        assert_eq!(slots_of(&[5, 7], &[]), [(0, false), (1, false)]);
        assert_eq!(slots_of(&[5, 7], &[(0, 7), (3, 5)]), [(3, true), (0, true)]);
        assert_eq!(slots_of(&[9, 7], &[(0, 7)]), [(1, false), (0, true)]);
        // Slot 0 is that of an interface that is to be detached: it counts there till then.
        assert_eq!(
            slots_of(&[9, 7], &[(0, 5), (1, 7)]),
            [(2, false), (1, true)]
        );
    }

    #[test]
    fn all_slots_can_be_had_though_others_were_in_them() {
        const ALL: u32 = MAX_INTERFACES as u32;
        let chosen: Vec<_> = (1..=ALL).collect();
        let noted: Vec<_> = (0..ALL).map(|slot| (slot, slot + 100)).collect();
        let mut slots: Vec<_> = slots_of(&chosen, &noted)
            .into_iter()
            .map(|(slot, _)| slot)
            .collect();
        slots.sort_unstable();
        assert_eq!(slots, (0..ALL).collect::<Vec<_>>());
    }
}
