//! Priority over whatever else this machine does.

use std::ffi::c_int;

use nix::errno::Errno;
use nix::libc;

/// The lowest in real time: still before all that is not.
const LOWEST: c_int = 1;

/// While it lives, the thread that took it is scheduled in real time, and so is what it starts for as
/// long as that runs: machines, their programs, the filter. A better nice value would not do, which
/// is compared within a session alone (autogroup).
#[derive(Debug)]
pub struct Priority(());

impl Priority {
    /// Takes it; where the kernel refuses that, it makes no difference.
    pub fn take() -> Self {
        let _ = schedule(libc::SCHED_RR, LOWEST);
        Self(())
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        // As threads are at first, which is never refused.
        let _ = schedule(libc::SCHED_OTHER, 0);
    }
}

fn schedule(policy: c_int, priority: c_int) -> Result<(), Errno> {
    let parameters = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: the kernel reads the structure, which outlives the call. 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    Errno::result(result).map(drop)
}
