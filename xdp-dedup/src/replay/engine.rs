//! Who decides: the kernel program, or the same code on the host.

use std::io;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use xdp_dedup_common::{
    Reason, Verdict,
    datagram::{ETHERNET_HEADER, IPV6_HEADER, MAX_TAGS, TAG},
    decide,
    exact_table::ExactTable,
    packet::Bytes,
    time::Timestamp,
};

use crate::{
    kernel::{Clock, DEFAULT_CAPACITY, Kernel, LoadOptions},
    policy::Rules,
};

/// Where the longest IPv6 payload ends in a frame with tags. No decision depends on what lies behind,
/// and `BPF_PROG_TEST_RUN` refuses frames of more than one and 17 pages (`MAX_SKB_FRAGS`).
const FURTHEST_BYTE: usize = ETHERNET_HEADER + TAG * MAX_TAGS + IPV6_HEADER + u16::MAX as usize;

/// Values of `--engine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineFlag {
    /// The kernel program itself, through BPF_PROG_TEST_RUN; needs the privileges of `run`.
    Kernel,
    /// The same decision code on the host; needs no privileges.
    Userspace,
}

/// Decides of one frame after the other. Both kinds decide the same, as long as the kernel's table
/// need not evict.
pub enum Engine {
    /// The kernel program.
    Kernel(Box<Kernel>),
    /// The decision on the host.
    Userspace {
        /// What passed before.
        table: Box<ExactTable>,
        /// Bytes of a frame in its first buffer, as the kernel program would have it.
        linear_part: usize,
    },
}

impl Engine {
    /// The engine asked for; without a wish the kernel program where this process may load it, else
    /// the host, with the reason why.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses the program for another cause, or was asked for.
    pub fn new(wish: Option<EngineFlag>, rules: &Rules) -> Result<(Self, Option<anyhow::Error>)> {
        if wish == Some(EngineFlag::Userspace) {
            return Ok((Self::userspace(rules), None));
        }
        match Self::kernel(rules) {
            Ok(engine) => Ok((engine, None)),
            Err(error) if wish.is_none() && is_permission_denied(&error) => {
                Ok((Self::userspace(rules), Some(error)))
            }
            Err(error) => Err(error.context(
                "cannot replay through the kernel program (`--engine userspace` needs no kernel)",
            )),
        }
    }

    fn kernel(rules: &Rules) -> Result<Self> {
        let options = LoadOptions {
            capacity: DEFAULT_CAPACITY,
            interface_slot: 0,
            clock: Clock::Replay,
            relay_counters: false,
            trace: false,
            pins: None,
        };
        let kernel = Kernel::load(&options, &rules.policy)?;
        kernel.maps.set_rules(rules)?;
        Ok(Self::Kernel(Box::new(kernel)))
    }

    fn userspace(rules: &Rules) -> Self {
        let mut table = ExactTable::new(rules.policy);
        table.set_trusted_relays(&rules.trusted_relays);
        Self::Userspace {
            table: Box::new(table),
            linear_part: Kernel::linear_part_of_test_run(),
        }
    }

    /// What becomes of `frame`, received at `time`.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses to run the program.
    pub fn decide(&mut self, frame: &[u8], time: Timestamp) -> Result<(Verdict, Reason)> {
        match self {
            // Too short for an Ethernet header: what NIC and kernel discard before the program.
            Self::Kernel(_) if frame.len() < ETHERNET_HEADER => {
                Ok((Verdict::Pass, Reason::NotDhcp))
            }
            Self::Kernel(kernel) => kernel
                .decide_at(&frame[..frame.len().min(FURTHEST_BYTE)], time)
                .context("the kernel program cannot decide"),
            Self::Userspace { table, linear_part } => {
                table.set_time(time);
                let packet = Bytes::with_linear_part(frame, *linear_part);
                let decision = decide(&packet, table.as_ref());
                Ok((decision.verdict(), decision.reason()))
            }
        }
    }
}

fn is_permission_denied(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::PermissionDenied)
}
