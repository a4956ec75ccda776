//! `events`: what the filter drops, or other frames on request, a line each as they come.

mod line;
mod listener;

use std::{collections::BTreeMap, io::Write as _, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use tokio::{
    task::{self, JoinHandle},
    time::{MissedTickBehavior, interval, timeout},
};
use xdp_dedup_common::{
    Reason, Verdict,
    event::{Outcomes, Slots},
};

use self::{
    line::Lines,
    listener::{Listener, RENEW},
};
use crate::{
    maps::SharedMaps,
    output, pins, ring,
    state::{self, Leave, Misses, NOTHING, State},
    usage::usage,
};

/// How long a reader of standard output who has stopped reading can hold up the end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Arguments of `events`.
#[derive(Args, Clone, Debug)]
pub struct EventsArgs {
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,

    /// Only frames that came in by this interface; can be given several times
    #[arg(short, long = "interface", value_name = "IFACE")]
    pub interfaces: Vec<String>,

    /// Only frames with this verdict; can be given several times, or as a list with commas [default:
    /// drop,would_drop; with --reason any]
    #[arg(long = "verdict", value_name = "VERDICT", value_delimiter = ',', value_parser = verdicts())]
    pub verdicts: Vec<Verdict>,

    /// Only frames that got their verdict for this reason; can be given several times, or as a list
    /// with commas [default: any]
    #[arg(long = "reason", value_name = "REASON", value_delimiter = ',', value_parser = reasons())]
    pub reasons: Vec<Reason>,
}

fn verdicts() -> impl TypedValueParser<Value = Verdict> {
    PossibleValuesParser::new(Verdict::ALL.map(Verdict::name)).try_map(|name| {
        let mut all = Verdict::ALL.into_iter();
        all.find(|verdict| verdict.name() == name)
            .ok_or("no verdict")
    })
}

fn reasons() -> impl TypedValueParser<Value = Reason> {
    let names = counted_reasons().iter().map(|reason| reason.name());
    PossibleValuesParser::new(names).try_map(|name| {
        let mut all = counted_reasons().iter().copied();
        all.find(|reason| reason.name() == name).ok_or("no reason")
    })
}

/// Those that the live program tells of.
const fn counted_reasons() -> &'static [Reason] {
    Reason::ALL.split_at(Reason::COUNTED).0
}

impl EventsArgs {
    fn outcomes(&self) -> Result<Outcomes> {
        let verdicts = match self.verdicts.as_slice() {
            [] if self.reasons.is_empty() => &[Verdict::Drop, Verdict::WouldDrop][..],
            [] => &Verdict::ALL,
            some => some,
        };
        let reasons = match self.reasons.as_slice() {
            [] => counted_reasons(),
            some => some,
        };
        let outcomes = Outcomes::of(verdicts, reasons);
        if outcomes.is_empty() {
            return Err(usage(
                "no frame gets this verdict for this reason: leave --verdict or --reason out",
            ));
        }
        Ok(outcomes)
    }
}

/// Follows until a signal comes, nobody reads any more, or the filter goes.
///
/// # Errors
///
/// Where nothing is attached or no longer, somebody else follows, or the state cannot be read, for want
/// of privileges for example.
pub fn run(args: &EventsArgs) -> Result<()> {
    let outcomes = args.outcomes()?;
    state::block_on(follow(args, outcomes))
}

async fn follow(args: &EventsArgs, outcomes: Outcomes) -> Result<()> {
    let mut leave = Leave::new()?;
    let Some(pinned) = pins::find()? else {
        bail!("{NOTHING}: start the filter with `xdp-dedup run -i IFACE`");
    };
    let place = pins::ReadersPlace::take(&pinned.maps)?;
    let state = State::read_some().await?;
    if !place.is_still_there() {
        bail!("a `run` has just put fresh maps in place of the others: try again");
    }
    let maps = Arc::clone(&state.maps);
    let mut followed = Followed::of(&state, &args.interfaces)?;

    let mut ring = ring::watch(maps.events()?)?;
    let mut listener = Listener::start(&maps, ring.get_mut(), outcomes, followed.slots())?;
    let mut lines = Lines::new(args.json);
    let mut writing = lines.take().map(write);
    let mut ticks = interval(RENEW);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut misses = Misses::default();
    let end = loop {
        tokio::select! {
            () = leave.asked() => break Ok(()),
            written = finished(&mut writing), if writing.is_some() => {
                writing = None;
                if !written? {
                    return Ok(());
                }
            }
            _ = ticks.tick() => {
                match misses.bear(look(&maps, &args.interfaces).await) {
                    Ok(Some(now)) => followed = now,
                    Ok(None) => {}
                    Err(error) => break Err(error),
                }
                if let Some(stopped) = listener.renew(followed.slots())? {
                    eprintln!(
                        "xdp-dedup: note: this process stood still for {stopped:.0?}: what came \
                         meanwhile is not shown"
                    );
                }
                lines.lost(listener.lost()?);
            }
            ready = ring.readable_mut(), if writing.is_none() => {
                let mut ready = ready.context("cannot wait for events")?;
                if listener.read(ready.get_inner_mut(), &followed.0, &mut lines)? {
                    ready.clear_ready();
                }
            }
        }
        if writing.is_none() {
            writing = lines.take().map(write);
        }
    };
    // What came until now is shown, and no more asked for.
    listener.stop()?;
    let rest = async {
        if !finished(&mut writing).await? {
            return Ok(());
        }
        loop {
            let is_last = listener.read(ring.get_mut(), &followed.0, &mut lines)?;
            if is_last {
                lines.lost(listener.lost()?);
            }
            let is_read = finished(&mut lines.take().map(write)).await?;
            if is_last || !is_read {
                return anyhow::Ok(());
            }
        }
    };
    match timeout(LAST_WORDS, rest).await {
        Ok(written) => written?,
        Err(_) => eprintln!("xdp-dedup: note: nobody reads the output: its end is left out"),
    }
    end
}

/// Names of the interfaces that are followed, by slot.
#[derive(Debug)]
struct Followed(BTreeMap<u32, String>);

impl Followed {
    /// Those of these names, or all.
    fn of(state: &State, wanted: &[String]) -> Result<Self> {
        let attached = || state.interfaces.iter().filter(|on| on.attached);
        let names: Vec<_> = attached().map(|on| on.name.as_str()).collect();
        if names.is_empty() {
            bail!(
                "{NOTHING}: what an earlier `run` left is not attached any more; start \
                 `xdp-dedup run`"
            );
        }
        let is_on = |name: &&String| names.contains(&name.as_str());
        if let Some(missing) = wanted.iter().find(|name| !is_on(name)) {
            bail!(
                "the filter is not on {missing}; it is on {}",
                names.join(", ")
            );
        }
        let followed = attached().filter(|on| wanted.is_empty() || wanted.contains(&on.name));
        Ok(Self(
            followed.map(|on| (on.slot, on.name.clone())).collect(),
        ))
    }

    fn slots(&self) -> Slots {
        self.0.keys().copied().collect()
    }
}

/// Looks what is followed now.
async fn look(maps: &SharedMaps, interfaces: &[String]) -> Result<Followed> {
    let Some(state) = State::read().await? else {
        return Err(anyhow!("the filter is gone: its `run` has ended"));
    };
    if state.maps.table_id() != maps.table_id() {
        return Err(anyhow!(
            "the filter is another one now, with a table and events of its own: start \
             `xdp-dedup events` again"
        ));
    }
    Followed::of(&state, interfaces)
}

/// Writes while signals and the lease are looked after: who reads the output may take their time.
fn write(text: String) -> JoinHandle<Result<bool>> {
    task::spawn_blocking(move || output::print(|output| output.write_all(text.as_bytes())))
}

/// Whether what was being written has found a reader.
async fn finished(writing: &mut Option<JoinHandle<Result<bool>>>) -> Result<bool> {
    match writing {
        Some(writing) => writing.await.context("cannot write to standard output")?,
        None => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: EventsArgs,
    }

    fn outcomes(line: &str) -> Result<Outcomes> {
        let words = ["events"].into_iter().chain(line.split_whitespace());
        Cli::try_parse_from(words)?.args.outcomes()
    }

    #[test]
    fn what_is_asked_for_is_followed() {
        let all = counted_reasons();
        let drops = &[Verdict::Drop, Verdict::WouldDrop];
        for (line, verdicts, reasons) in [
            ("", &drops[..], all),
            ("--verdict drop", &[Verdict::Drop], all),
            (
                "--verdict pass,would_drop",
                &[Verdict::Pass, Verdict::WouldDrop],
                all,
            ),
            (
                "--verdict pass --verdict drop",
                &[Verdict::Pass, Verdict::Drop],
                all,
            ),
            ("--reason first", &Verdict::ALL, &[Reason::First]),
            (
                "--reason first,escalated --reason malformed",
                &Verdict::ALL,
                &[Reason::First, Reason::Escalated, Reason::Malformed],
            ),
            (
                "--verdict pass --reason untrusted_relay,first",
                &[Verdict::Pass],
                &[Reason::UntrustedRelay, Reason::First],
            ),
        ] {
            let expected = Outcomes::of(verdicts, reasons);
            assert_eq!(outcomes(line).unwrap(), expected, "{line:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_wrong_usage() {
        for line in [
            "--verdict drop --reason first",
            "--verdict accept",
            "--reason not_dhcp",
            "--reason",
        ] {
            assert!(outcomes(line).is_err(), "{line:?}");
        }
    }
}
