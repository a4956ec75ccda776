//! A kernel that refuses one command of bpf(2), by a seccomp filter in its place.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::{env, io};

use anyhow::{Result, ensure};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use testbed::binary::binary;

use crate::Test;
use crate::bed::Bed;

pub const TESTS: &[(&str, Test)] = &[(
    "a program that the kernel attaches without a link is taken off again",
    no_link,
)];

/// `BPF_OBJ_GET` (linux/bpf.h).
pub const OBJECT_GET: u64 = 7;

/// `BPF_LINK_CREATE`.
const LINK_CREATE: u64 = 28;

/// Has this command of bpf(2) fail with this error.
pub fn refuse(command: &mut Command, call: u64, errno: i32) -> Result<()> {
    let is_it = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, call)?;
    let filter: BpfProgram = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_bpf, vec![SeccompRule::new(vec![is_it])?])]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.cast_unsigned()),
        env::consts::ARCH.try_into()?,
    )?
    .try_into()?;
    let install = move || seccompiler::apply_filter(&filter).map_err(io::Error::other);
    // SAFETY: between fork and exec this makes two system calls; it allocates only to say that one of
    // them failed, and then the test has failed.
    unsafe { command.pre_exec(install) };
    Ok(())
}

fn no_link() -> Result<()> {
    let bed = Bed::new()?;
    for arguments in [&["--persist"][..], &[]] {
        for mode in ["native", "generic"] {
            let mut command = bed.command(&binary()?);
            command
                .args(["run", "--metrics", "off", "--mode", mode])
                .args(Bed::arguments(arguments));
            // After that the loader tries netlink, which knows no links.
            refuse(&mut command, LINK_CREATE, libc::EINVAL)?;
            let output = command.output()?;
            let stderr = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code() == Some(1), "{stderr}");
            ensure!(stderr.contains("without a link"), "{stderr}");
            bed.expect_nothing()?;
        }
    }
    Ok(())
}
