//! What this process may do, and what takes it away: capabilities, user namespaces, seccomp, lockdown.

use std::{fs, path::Path};

use caps::CapSet;
use nix::{
    errno::Errno,
    libc,
    sys::{
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, fork},
};

use super::report::{Line, Outcome, Subject};
use crate::privileges;

/// What was found, as far as it decides what else can be tried.
#[derive(Clone, Debug)]
pub struct Privileges {
    /// The lines.
    pub lines: Vec<Line>,
    /// Whether one of them explains a refusal.
    pub lacking: bool,
    /// Whether bpf(2) can be called without being killed for it.
    pub may_call: bool,
}

/// Looks at this process.
pub fn look() -> Privileges {
    let facts = Facts {
        missing: privileges::missing(),
        out_of_reach: privileges::missing_from(CapSet::Bounding),
        in_initial_user_namespace: privileges::in_initial_user_namespace(),
        seccomp: Seccomp::of_this_process(),
        bpf_call: BpfCall::try_one(),
        lockdown: lockdown(Path::new("/sys/kernel/security/lockdown")),
    };
    let lines = facts.lines();
    Privileges {
        lacking: lines
            .iter()
            .any(|line| matches!(line.outcome, Outcome::Fail(_))),
        may_call: facts.bpf_call != BpfCall::Killed,
        lines,
    }
}

/// What the lines tell of.
#[derive(Clone, Debug)]
struct Facts {
    /// Capabilities that lack.
    missing: Vec<String>,
    /// Those that not even root could have here.
    out_of_reach: Vec<String>,
    in_initial_user_namespace: bool,
    seccomp: Seccomp,
    bpf_call: BpfCall,
    lockdown: Option<String>,
}

impl Facts {
    fn lines(&self) -> Vec<Line> {
        vec![
            self.capabilities(),
            self.user_namespace(),
            self.bpf_call(),
            self.lockdown(),
        ]
    }

    fn capabilities(&self) -> Line {
        let line = |found: String, outcome| Line::new(Subject::Capabilities, found, outcome);
        if self.missing.is_empty() {
            return line("all that it takes".to_owned(), Outcome::Ok);
        }
        let found = format!("this process lacks {}", self.missing.join(", "));
        let advice = if self.out_of_reach.is_empty() {
            "run it as root, or give it these capabilities".to_owned()
        } else {
            format!(
                "not even root can have {} here: the unit (CapabilityBoundingSet=) or the container \
                 (--cap-add) must grant what lacks",
                self.out_of_reach.join(", ")
            )
        };
        line(found, Outcome::Fail(advice))
    }

    fn user_namespace(&self) -> Line {
        let line = |found, outcome| Line::new(Subject::UserNamespace, found, outcome);
        if self.in_initial_user_namespace {
            line("the host's", Outcome::Ok)
        } else {
            line(
                "not the host's: capabilities that this process has do not count for BPF",
                Outcome::Fail(
                    "run it on the host, or in a container without a user namespace of its own \
                     (privileged, or host users)"
                        .to_owned(),
                ),
            )
        }
    }

    fn bpf_call(&self) -> Line {
        const LET_IT_THROUGH: &str = "allow bpf(2) in it: SystemCallFilter=bpf in a systemd unit, \
                                      a seccomp profile of its own for a container";
        let line = |found: String, outcome| Line::new(Subject::BpfCall, found, outcome);
        match (self.bpf_call, self.seccomp) {
            (BpfCall::Reached, Seccomp::Off) => line(
                "bpf(2) reaches the kernel, no seccomp filter".to_owned(),
                Outcome::Ok,
            ),
            (BpfCall::Reached, Seccomp::On) => line(
                "the seccomp filter lets bpf(2) through".to_owned(),
                Outcome::Ok,
            ),
            (BpfCall::Killed, _) => line(
                "a seccomp filter kills who calls bpf(2)".to_owned(),
                Outcome::Fail(LET_IT_THROUGH.to_owned()),
            ),
            (BpfCall::Refused(Errno::ENOSYS), Seccomp::Off) => line(
                "this kernel has no bpf(2)".to_owned(),
                Outcome::Fail("take a kernel with CONFIG_BPF_SYSCALL".to_owned()),
            ),
            // Before Linux 5.19 the kernel asks for the capability first.
            (BpfCall::Refused(Errno::EPERM), _) if !self.missing.is_empty() => line(
                "bpf(2) is refused, as it may be for want of the capabilities".to_owned(),
                Outcome::Warn("give it those, and look again".to_owned()),
            ),
            (BpfCall::Refused(errno), Seccomp::On) => line(
                format!("a seccomp filter refuses bpf(2): {}", errno.desc()),
                Outcome::Fail(LET_IT_THROUGH.to_owned()),
            ),
            (BpfCall::Refused(errno), Seccomp::Off) => line(
                format!("bpf(2) is refused: {}", errno.desc()),
                Outcome::Fail(
                    "no seccomp filter is in force, so ask the security modules: \
                     `cat /sys/kernel/security/lsm`, then their log (`dmesg`, `ausearch -m avc`)"
                        .to_owned(),
                ),
            ),
        }
    }

    /// Lockdown takes away helpers that read the kernel's memory (LOCKDOWN_BPF_READ_KERNEL) or write
    /// a process's (LOCKDOWN_BPF_WRITE_USER), and no XDP program has either.
    fn lockdown(&self) -> Line {
        let found = match self.lockdown.as_deref() {
            None => "none to be seen".to_owned(),
            Some("none") => "none".to_owned(),
            Some(level) => format!("{level}, which leaves XDP programs alone"),
        };
        Line::new(Subject::Lockdown, found, Outcome::Ok)
    }
}

/// Whether a filter of system calls is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seccomp {
    Off,
    On,
}

impl Seccomp {
    fn of_this_process() -> Self {
        // proc(5): 0 for none, 2 for a filter; in mode 1 no program would have come so far.
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mode = status
            .lines()
            .find_map(|line| line.strip_prefix("Seccomp:"));
        match mode.map(str::trim) {
            None | Some("0") => Self::Off,
            Some(_) => Self::On,
        }
    }
}

/// What became of a call of bpf(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BpfCall {
    /// The kernel has answered.
    Reached,
    /// Something has answered in its place.
    Refused(Errno),
    /// The caller was killed.
    Killed,
}

impl BpfCall {
    /// Calls bpf(2) with a command that there is not, which the kernel refuses as such, whoever asks:
    /// any other answer is somebody else's. In a child, for it may be killed.
    fn try_one() -> Self {
        const NO_SUCH_COMMAND: libc::c_int = 9999;
        // SAFETY: the child makes two system calls and nothing else; it neither allocates nor returns.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                // SAFETY: bpf(2) reads no attributes where their size is zero.
                let answer = unsafe {
                    libc::syscall(
                        libc::SYS_bpf,
                        NO_SUCH_COMMAND,
                        std::ptr::null::<libc::c_void>(),
                        0,
                    )
                };
                let code = if answer < 0 { Errno::last_raw() } else { 0 };
                // SAFETY: it ends the child without running what the parent has yet to run.
                unsafe { libc::_exit(code) }
            }
            Ok(ForkResult::Parent { child }) => match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, code)) => Self::from_errno(Errno::from_raw(code)),
                Ok(WaitStatus::Signaled(_, Signal::SIGSYS, _)) => Self::Killed,
                // Whoever reaps this process's children, or kills them, does not say why.
                _ => Self::Reached,
            },
            Err(_) => Self::Reached,
        }
    }

    const fn from_errno(errno: Errno) -> Self {
        match errno {
            Errno::EPERM | Errno::EACCES | Errno::ENOSYS => Self::Refused(errno),
            _ => Self::Reached,
        }
    }
}

/// The level of kernel lockdown; `None` where none can be seen.
fn lockdown(file: &Path) -> Option<String> {
    // "none [integrity] confidentiality"
    let levels = fs::read_to_string(file).ok()?;
    let (_, rest) = levels.split_once('[')?;
    let (level, _) = rest.split_once(']')?;
    Some(level.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            missing: Vec::new(),
            out_of_reach: Vec::new(),
            in_initial_user_namespace: true,
            seccomp: Seccomp::Off,
            bpf_call: BpfCall::Reached,
            lockdown: None,
        }
    }

    #[test]
    fn who_may_do_everything_is_told_so() {
        for line in facts().lines() {
            assert_eq!(line.outcome, Outcome::Ok, "{line:?}");
        }
    }

    #[test]
    fn what_takes_privileges_away_is_named() {
        let bpf = || vec!["CAP_BPF".to_owned()];
        let rows: [(&str, Facts, &str, &str); 8] = [
            (
                "a user",
                Facts {
                    missing: bpf(),
                    ..facts()
                },
                "fail",
                "run it as root",
            ),
            (
                "a container's root",
                Facts {
                    missing: bpf(),
                    out_of_reach: bpf(),
                    ..facts()
                },
                "fail",
                "not even root can have CAP_BPF here",
            ),
            (
                "a user namespace",
                Facts {
                    in_initial_user_namespace: false,
                    ..facts()
                },
                "fail",
                "on the host",
            ),
            (
                "a filter that refuses",
                Facts {
                    seccomp: Seccomp::On,
                    bpf_call: BpfCall::Refused(Errno::EPERM),
                    ..facts()
                },
                "fail",
                "SystemCallFilter=bpf",
            ),
            (
                "a filter that kills",
                Facts {
                    seccomp: Seccomp::On,
                    bpf_call: BpfCall::Killed,
                    ..facts()
                },
                "fail",
                "SystemCallFilter=bpf",
            ),
            (
                "a kernel without bpf(2)",
                Facts {
                    bpf_call: BpfCall::Refused(Errno::ENOSYS),
                    ..facts()
                },
                "fail",
                "CONFIG_BPF_SYSCALL",
            ),
            (
                "a security module",
                Facts {
                    bpf_call: BpfCall::Refused(Errno::EPERM),
                    ..facts()
                },
                "fail",
                "/sys/kernel/security/lsm",
            ),
            (
                "an old kernel that asks for capabilities first",
                Facts {
                    missing: bpf(),
                    bpf_call: BpfCall::Refused(Errno::EPERM),
                    ..facts()
                },
                "warn",
                "look again",
            ),
        ];
        for (name, facts, outcome, advice) in rows {
            let lines = facts.lines();
            let told = lines.iter().any(|line| match &line.outcome {
                Outcome::Ok => false,
                Outcome::Warn(text) => outcome == "warn" && text.contains(advice),
                Outcome::Fail(text) => outcome == "fail" && text.contains(advice),
            });
            assert!(told, "{name}: {lines:?}");
        }
    }

    #[test]
    fn lockdown_is_read_and_never_stands_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lockdown");
        for (text, level) in [
            ("[none] integrity confidentiality\n", "none"),
            ("none [integrity] confidentiality\n", "integrity"),
            ("none integrity [confidentiality]\n", "confidentiality"),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(lockdown(&file).as_deref(), Some(level));
            let line = Facts {
                lockdown: lockdown(&file),
                ..facts()
            }
            .lockdown();
            assert_eq!(line.outcome, Outcome::Ok);
            assert!(line.found.starts_with(level), "{line:?}");
        }
        assert_eq!(lockdown(&folder.path().join("none")), None);
    }

    #[test]
    fn a_call_that_there_is_not_reaches_the_kernel() {
        assert_eq!(BpfCall::try_one(), BpfCall::Reached);
    }
}
