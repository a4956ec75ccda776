//! The kernel program, loaded: its maps as typed values, its runs outside any NIC.

use std::{fmt, path::Path, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Ebpf, EbpfError, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{Array, MapData, MapError},
    pin::PinError,
    programs::Xdp,
};
use aya_log::{EbpfLogger, Level};
use nix::{
    time::{ClockId, clock_gettime},
    unistd::{SysconfVar, sysconf},
};
use xdp_dedup_common::{Policy, Reason, Verdict, replay::ReplaySlot, time::Timestamp};

use crate::{
    maps::{self, Shared, SharedMaps},
    privileges,
};

/// The object that `build.rs` compiled.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/xdp-dedup-ebpf"));

/// Entries of the table unless `--capacity` says otherwise.
pub const DEFAULT_CAPACITY: u32 = 65536;

/// What the program's `XDP_PASS` and `XDP_DROP` are (`enum xdp_action`, linux/bpf.h).
pub const XDP_DROP: u32 = 1;
/// See [`XDP_DROP`].
pub const XDP_PASS: u32 = 2;

/// The time by the clock that the live program reads (`bpf_ktime_get_ns`), in nanoseconds.
///
/// # Errors
///
/// Where there is no such clock.
pub fn now() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the clock")?;
    Ok(Duration::from(now).as_nanos() as u64)
}

/// Where the program takes the time from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The kernel's monotonic clock.
    Live,
    /// The one that [`Kernel::decide_at`] sets: it also tells the reason of each decision.
    Replay,
}

/// How to load the program.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions<'a> {
    /// Entries of the table.
    pub capacity: u32,
    /// The interface's place in the counters, below
    /// [`MAX_INTERFACES`](xdp_dedup_common::interface::MAX_INTERFACES).
    pub interface_slot: u32,
    /// Where the time comes from.
    pub clock: Clock,
    /// Whether messages are counted by relay.
    pub relay_counters: bool,
    /// Whether each decision is logged, for [`take_log`](Kernel::take_log) to read.
    pub trace: bool,
    /// A folder on a BPF file system through which instances share their maps; without one, this
    /// instance has maps of its own.
    pub pins: Option<&'a Path>,
}

/// One run of a program outside any NIC.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// What the program returned, such as [`XDP_PASS`].
    pub action: u32,
    /// Mean time of one run.
    pub duration: Duration,
}

/// The programs in the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The filter.
    Filter,
    /// The empty program that `bench` compares with.
    BenchEmpty,
    /// The filter for `bench`, where each run sees a new message.
    BenchFirst,
}

impl Program {
    const fn name(self) -> &'static str {
        match self {
            Self::Filter => "xdp_dedup",
            Self::BenchEmpty => "xdp_empty",
            Self::BenchFirst => "xdp_first",
        }
    }
}

/// The loaded kernel program with its maps. Dropping it unloads it, unless a link still holds it.
pub struct Kernel {
    /// What it shares with other instances.
    pub maps: SharedMaps,
    object: Ebpf,
    replay: Array<MapData, Shared<ReplaySlot>>,
}

impl Kernel {
    /// Loads the program under `policy`.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses a map or the program; a lack of privileges is named.
    pub fn load(options: &LoadOptions<'_>, policy: &Policy) -> Result<Self> {
        let kernel = Self::load_without_policy(options)?;
        kernel.maps.set_policy(policy)?;
        Ok(kernel)
    }

    /// Loads the program under the policy that its maps hold. In fresh maps there is none, and the
    /// program passes everything.
    ///
    /// # Errors
    ///
    /// As for [`load`](Self::load).
    pub fn load_without_policy(options: &LoadOptions<'_>) -> Result<Self> {
        let replay_clock = u8::from(options.clock == Clock::Replay);
        let relay_counters = u8::from(options.relay_counters);
        let log_level = if options.trace { Level::Trace as u8 } else { 0 };
        let mut loader = EbpfLoader::new();
        loader
            .override_global("INTERFACE_SLOT", &options.interface_slot, true)
            .override_global("REPLAY_CLOCK", &replay_clock, true)
            .override_global("RELAY_COUNTERS", &relay_counters, true)
            .override_global("AYA_LOG_LEVEL", &log_level, true)
            .map_max_entries("TABLE", options.capacity);
        if !options.trace {
            // Nothing goes through it: the least that a ring buffer can be, which the loader makes a
            // page.
            loader.map_max_entries("AYA_LOGS", 1);
        }
        if let Some(folder) = options.pins {
            for map in maps::NAMES {
                loader.map_pin_path(map, folder.join(map));
            }
        }
        let mut object = loader
            .load(OBJECT)
            .map_err(short_map_error)
            .with_context(|| privileges::advice("create the BPF maps"))?;
        let mut take = |map: &str| {
            object
                .take_map(map)
                .with_context(|| format!("no map {map}"))
        };
        let mut kernel = Self {
            replay: take("REPLAY")?.try_into()?,
            maps: SharedMaps::from(take)?,
            object,
        };
        kernel
            .xdp_mut(Program::Filter)?
            .load()
            .map_err(short_verifier_log)?;
        Ok(kernel)
    }

    /// What reads the program's own log and hands it on to `logger`; once only.
    ///
    /// # Errors
    ///
    /// Where it was taken before, or the kernel refuses to map its memory.
    pub fn take_log<T: log::Log>(&mut self, logger: T) -> Result<EbpfLogger<T>> {
        EbpfLogger::init_with_logger(&mut self.object, logger)
            .context("cannot read the kernel program's log")
    }

    /// Loads the programs of `bench` too.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses one.
    pub fn load_bench(&mut self) -> Result<()> {
        for program in [Program::BenchEmpty, Program::BenchFirst] {
            self.xdp_mut(program)?.load().map_err(short_verifier_log)?;
        }
        Ok(())
    }

    /// Runs a program over `frame`, `repeat` times, without a NIC (`BPF_PROG_TEST_RUN`).
    ///
    /// # Errors
    ///
    /// Where the kernel refuses; a frame must have at least 14 bytes.
    pub fn run(&self, program: Program, frame: &[u8], repeat: u32) -> Result<Run> {
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat,
            ..TestRunOptions::default()
        };
        let result = self
            .xdp(program)?
            .test_run(options)
            .with_context(|| format!("BPF_PROG_TEST_RUN of a frame of {} bytes", frame.len()))?;
        Ok(Run {
            action: result.return_value,
            duration: result.duration,
        })
    }

    /// What the filter decides of `frame`, received at `time`; with [`Clock::Replay`] only.
    ///
    /// # Errors
    ///
    /// As for [`run`](Self::run); also where the program's action contradicts its verdict.
    pub fn decide_at(&mut self, frame: &[u8], time: Timestamp) -> Result<(Verdict, Reason)> {
        self.replay
            .set(0, Shared(ReplaySlot::at(time)), 0)
            .context("cannot set the replay clock")?;
        let run = self.run(Program::Filter, frame, 1)?;
        let slot = self
            .replay
            .get(&0, 0)
            .context("cannot read the decision")?
            .0;
        let (verdict, reason) = slot
            .decision()
            .ok_or_else(|| anyhow!("the kernel program left no decision"))?;
        let expected = if verdict == Verdict::Drop {
            XDP_DROP
        } else {
            XDP_PASS
        };
        if run.action != expected {
            return Err(anyhow!(
                "verdict {verdict:?}, but XDP action {}",
                run.action
            ));
        }
        Ok((verdict, reason))
    }

    /// Bytes of a frame that `BPF_PROG_TEST_RUN` puts into its first buffer: a page less headroom
    /// and `struct skb_shared_info` (net/bpf/test_run.c). Longer frames get more buffers.
    pub fn linear_part_of_test_run() -> usize {
        const HEADROOM_AND_TAILROOM: usize = 256 + 320;
        let page = sysconf(SysconfVar::PAGE_SIZE)
            .ok()
            .flatten()
            .unwrap_or(4096);
        page as usize - HEADROOM_AND_TAILROOM
    }

    pub(crate) fn xdp_mut(&mut self, program: Program) -> Result<&mut Xdp> {
        let name = program.name();
        let program = self
            .object
            .program_mut(name)
            .with_context(|| format!("no program {name}"))?;
        Ok(program.try_into()?)
    }

    pub(crate) fn xdp(&self, program: Program) -> Result<&Xdp> {
        let name = program.name();
        let program = self
            .object
            .program(name)
            .with_context(|| format!("no program {name}"))?;
        Ok(program.try_into()?)
    }
}

/// The map and the kernel's reason, which the loader's own text says twice.
fn short_map_error(error: EbpfError) -> anyhow::Error {
    match error {
        EbpfError::MapError(MapError::CreateError { name, io_error }) => {
            anyhow::Error::new(io_error).context(format!("map {name}"))
        }
        EbpfError::MapError(MapError::PinError { name, error }) => {
            let name = name.unwrap_or_default();
            let cause = match error {
                PinError::SyscallError(error) => error.io_error.into(),
                other => anyhow!(other),
            };
            cause.context(format!("map {name} cannot be pinned"))
        }
        other => other.into(),
    }
}

/// That the verifier took the program for unsafe, and the end of its log. Tells it, in an error's
/// chain, from what privileges or security modules refuse.
#[derive(Debug)]
pub struct VerifierRefusal(pub String);

impl fmt::Display for VerifierRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the verifier refused the program: {}", self.0)
    }
}

/// The end of the verifier's log, where its reason stands, instead of all of it.
fn short_verifier_log(error: aya::programs::ProgramError) -> anyhow::Error {
    use aya::programs::ProgramError::LoadError;
    match error {
        LoadError {
            io_error,
            verifier_log,
        } => {
            let log = verifier_log.to_string();
            let lines: Vec<_> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(5)..].join(" | ");
            let error = anyhow::Error::new(io_error);
            let error = if end.is_empty() {
                error.context("the kernel refused the program")
            } else {
                error.context(VerifierRefusal(end))
            };
            error.context(privileges::advice("load the BPF program"))
        }
        other => other.into(),
    }
}
