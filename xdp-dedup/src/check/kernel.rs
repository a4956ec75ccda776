//! What the kernel can do: asked of the kernel itself, by loading the very program and running it over
//! frames. Nothing is attached, and it goes with this process.

use std::io;

use anyhow::{Context as _, Result};
use nix::{errno::Errno, sys::utsname::uname};
use xdp_dedup_common::{Policy, digest::DigestKey, policy::Window};

use super::{
    privileges::Privileges,
    report::{Line, Outcome, Subject},
};
use crate::{
    bench::REPORTED_FRAME,
    kernel::{
        Clock, DEFAULT_CAPACITY, Kernel, LoadOptions, Program, VerifierRefusal, XDP_DROP, XDP_PASS,
    },
};

/// The first version with XDP programs for frames in several buffers.
const OLDEST: Version = Version {
    major: 5,
    minor: 18,
};

/// A kernel's version, as far as features go by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    /// Of a release such as `6.1.0-18-amd64`.
    fn of(release: &str) -> Option<Self> {
        let mut numbers = release.split(|char: char| !char.is_ascii_digit());
        Some(Self {
            major: numbers.next()?.parse().ok()?,
            minor: numbers.next()?.parse().ok()?,
        })
    }
}

/// What was tried.
struct Tried {
    /// Instructions that the verifier walked through, where the kernel tells (Linux 5.16).
    instructions: Option<u32>,
    /// Whether it is machine code now.
    compiled: bool,
    /// What became of a message's first copy, and of the second one.
    copies: Result<[u32; 2]>,
    /// What became of a frame in several buffers.
    long_frame: Result<u32>,
}

/// Looks at the kernel, and tries what these privileges let it.
pub fn look(privileges: &Privileges) -> Vec<Line> {
    let release = uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    if !privileges.may_call {
        let advice = "let bpf(2) through (see above), and look again";
        return vec![
            version(&release, None),
            Line::new(
                Subject::Program,
                "not tried: this process would be killed for it",
                Outcome::Warn(advice.to_owned()),
            ),
        ];
    }
    match try_program() {
        Ok(tried) => {
            let mut lines = vec![version(&release, Some(true))];
            lines.extend(tried.lines());
            lines
        }
        Err(error) => {
            let loads = (!privileges.lacking).then_some(false);
            vec![version(&release, loads), refusal(&error, privileges)]
        }
    }
}

/// Whether this version will do; `loads` where that could be tried, which counts for more: vendors
/// carry features back to older versions.
fn version(release: &str, loads: Option<bool>) -> Line {
    let old = Version::of(release).is_some_and(|version| version < OLDEST);
    let Version { major, minor } = OLDEST;
    let outcome = match loads {
        _ if !old => Outcome::Ok,
        Some(true) => Outcome::Ok,
        Some(false) => Outcome::Fail(format!("run Linux {major}.{minor} or later")),
        None => Outcome::Warn(format!(
            "as a rule it takes {major}.{minor} or later: look again with all privileges, and the \
             program will be tried"
        )),
    };
    let carried_back = match loads {
        Some(true) if old => {
            format!(", older than {major}.{minor}, but with what it takes")
        }
        _ => String::new(),
    };
    Line::new(
        Subject::Kernel,
        format!("Linux {release}{carried_back}"),
        outcome,
    )
}

fn try_program() -> Result<Tried> {
    let options = LoadOptions {
        capacity: DEFAULT_CAPACITY,
        interface_slot: 0,
        clock: Clock::Live,
        relay_counters: true,
        trace: false,
        pins: None,
    };
    // Both copies fall into the longest window, however slow the machine is.
    let policy = Policy::new(DigestKey::FIXED).with_window(Window::LONGEST);
    let kernel = Kernel::load(&options, &policy)?;
    let info = kernel
        .xdp(Program::Filter)?
        .info()
        .context("cannot ask for the loaded program")?;
    let action = |frame: &[u8]| Ok(kernel.run(Program::Filter, frame, 1)?.action);
    let copies = action(REPORTED_FRAME)
        .and_then(|first| action(REPORTED_FRAME).map(|second| [first, second]));
    // One byte too many for the first buffer, and no DHCPv6.
    let long_frame = action(&vec![0; Kernel::linear_part_of_test_run() + 1]);
    Ok(Tried {
        instructions: info.verified_instruction_count(),
        compiled: info.size_jitted() > 0,
        copies,
        long_frame,
    })
}

impl Tried {
    fn lines(&self) -> [Line; 4] {
        [
            self.program(),
            self.test_run(),
            self.multi_buffer(),
            self.jit(),
        ]
    }

    fn program(&self) -> Line {
        let found = match self.instructions {
            Some(count) => format!("loaded, {count} instructions verified"),
            None => "loaded".to_owned(),
        };
        Line::new(Subject::Program, found, Outcome::Ok)
    }

    fn test_run(&self) -> Line {
        let line = |found: String, outcome| Line::new(Subject::TestRun, found, outcome);
        match &self.copies {
            Ok([XDP_PASS, XDP_DROP]) => line(
                "a first copy passes, the second is dropped".to_owned(),
                Outcome::Ok,
            ),
            Ok([first, second]) => line(
                format!("two copies came to XDP actions {first} and {second}, not pass and drop"),
                Outcome::Fail(REPORT_IT.to_owned()),
            ),
            Err(error) => line(
                format!("{error:#}"),
                Outcome::Warn(
                    "the program is loaded, but cannot be tried (BPF_PROG_TEST_RUN)".to_owned(),
                ),
            ),
        }
    }

    fn multi_buffer(&self) -> Line {
        let line = |found: String, outcome| Line::new(Subject::MultiBuffer, found, outcome);
        match &self.long_frame {
            Ok(XDP_PASS) => line("a frame in several buffers passes".to_owned(), Outcome::Ok),
            Ok(action) => line(
                format!("a frame in several buffers came to XDP action {action}, not pass"),
                Outcome::Fail(REPORT_IT.to_owned()),
            ),
            Err(error) => line(
                format!("{error:#}"),
                Outcome::Warn("jumbo frames may be a problem: keep the MTU at 1500".to_owned()),
            ),
        }
    }

    fn jit(&self) -> Line {
        let line = |found, outcome| Line::new(Subject::Jit, found, outcome);
        if self.compiled {
            line("the program is compiled", Outcome::Ok)
        } else {
            line(
                "the program is interpreted, several times slower for all traffic",
                Outcome::Warn("`sysctl net.core.bpf_jit_enable=1`".to_owned()),
            )
        }
    }
}

const REPORT_IT: &str = "do not run it here, and report this with the kernel's version and the CPU";

/// Why the kernel did not take the program.
fn refusal(error: &anyhow::Error, privileges: &Privileges) -> Line {
    // The outermost context is what `run` would say of privileges; the lines above tell of those.
    let mut causes: Vec<_> = error.chain().map(ToString::to_string).collect();
    if causes.len() > 1 {
        causes.remove(0);
    }
    let found = format!("not loaded: {}", causes.join(": "));
    let errno = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error())
        .map(Errno::from_raw);
    let by_the_verifier = error.is::<VerifierRefusal>();
    let outcome = match errno {
        Some(Errno::EPERM | Errno::EACCES | Errno::ENOSYS) if privileges.lacking => {
            Outcome::Warn("mend what privileges lack (see above), and look again".to_owned())
        }
        Some(Errno::EACCES) if by_the_verifier => Outcome::Fail(format!(
            "this kernel's verifier does not understand the program, as newer ones than {}.{} should: \
             report it with the kernel's version (`uname -r`)",
            OLDEST.major, OLDEST.minor
        )),
        Some(Errno::EPERM | Errno::EACCES) => Outcome::Fail(
            "no privilege lacks, so ask the security modules: `cat /sys/kernel/security/lsm`, then \
             their log (`dmesg`, `ausearch -m avc`)"
                .to_owned(),
        ),
        Some(Errno::ENOMEM) => Outcome::Fail(
            "memory is short, or limited for this process (MemoryMax= in a systemd unit)".to_owned(),
        ),
        _ => Outcome::Fail(format!(
            "it takes Linux {}.{} or later on a 64-bit machine; if this is one, report what it says",
            OLDEST.major, OLDEST.minor
        )),
    };
    Line::new(Subject::Program, found, outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_judged_by_what_loads() {
        let (ok, warn, fail) = ("ok", "warn", "fail");
        for (release, loads, outcome) in [
            ("6.18.44-fc-v669", Some(true), ok),
            ("6.1.0-18-amd64", None, ok),
            // The program line tells why.
            ("5.18.0", Some(false), ok),
            ("5.14.0-427.el9.x86_64", Some(true), ok),
            ("5.14.0-427.el9.x86_64", None, warn),
            ("5.15.0-105-generic", Some(false), fail),
            ("4.19", Some(false), fail),
        ] {
            let line = version(release, loads);
            let judged = match line.outcome {
                Outcome::Ok => ok,
                Outcome::Warn(_) => warn,
                Outcome::Fail(_) => fail,
            };
            assert_eq!(judged, outcome, "{release} {loads:?}");
            assert!(line.found.contains(release));
        }
    }

    #[test]
    fn what_goes_wrong_is_told_with_advice() {
        let tried = |copies, compiled| Tried {
            instructions: None,
            compiled,
            copies,
            long_frame: Ok(XDP_DROP),
        };
        let outcomes: Vec<_> = tried(Ok([XDP_PASS, XDP_PASS]), false)
            .lines()
            .into_iter()
            .map(|line| line.outcome)
            .collect();
        assert_eq!(outcomes[0], Outcome::Ok);
        assert_eq!(outcomes[1], Outcome::Fail(REPORT_IT.to_owned()));
        assert_eq!(outcomes[2], Outcome::Fail(REPORT_IT.to_owned()));
        let Outcome::Warn(advice) = &outcomes[3] else {
            panic!("{outcomes:?}");
        };
        assert!(advice.contains("bpf_jit_enable=1"));
        let lines = tried(Err(anyhow::anyhow!("ENOTSUPP")), true).lines();
        assert!(matches!(lines[1].outcome, Outcome::Warn(_)));
        assert_eq!(lines[3].outcome, Outcome::Ok);
    }

    #[test]
    fn a_refusal_is_explained_by_its_errno() {
        let privileges = |lacking| Privileges {
            lines: Vec::new(),
            lacking,
            may_call: true,
        };
        for (errno, lacking, advice) in [
            (Errno::EPERM, true, "see above"),
            (Errno::ENOSYS, true, "see above"),
            (Errno::EPERM, false, "security modules"),
            (Errno::EACCES, false, "security modules"),
            (Errno::ENOMEM, false, "MemoryMax="),
            (Errno::EINVAL, false, "Linux 5.18"),
        ] {
            let error = anyhow::Error::new(io::Error::from(errno))
                .context("map TABLE")
                .context("cannot create the BPF maps: this process lacks CAP_BPF");
            let line = refusal(&error, &privileges(lacking));
            assert!(
                line.found.starts_with("not loaded: map TABLE: "),
                "{line:?}"
            );
            match line.outcome {
                Outcome::Warn(text) => assert!(lacking && text.contains(advice), "{text}"),
                Outcome::Fail(text) => assert!(!lacking && text.contains(advice), "{text}"),
                Outcome::Ok => panic!("{line:?}"),
            }
        }
    }

    #[test]
    fn a_verifier_that_does_not_understand_is_no_security_module() {
        let error = anyhow::Error::new(io::Error::from(Errno::EACCES))
            .context(VerifierRefusal("invalid access to packet".to_owned()))
            .context("cannot load the BPF program");
        let privileges = Privileges {
            lines: Vec::new(),
            lacking: false,
            may_call: true,
        };
        let line = refusal(&error, &privileges);
        assert!(line.found.contains("invalid access to packet"), "{line:?}");
        let Outcome::Fail(advice) = &line.outcome else {
            panic!("{line:?}");
        };
        assert!(advice.contains("uname -r"), "{advice}");
    }
}
