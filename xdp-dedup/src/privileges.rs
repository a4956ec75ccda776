//! Which privileges this process lacks for its work.

use std::os::unix::fs::MetadataExt as _;

use caps::{CapSet, Capability};

/// The capabilities that attaching the filter takes: BPF and PERFMON to load it (Linux 5.8), NET_ADMIN
/// to put it on an interface.
const NEEDED: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
];

/// The capability that finding the maps takes of a `run` which another user started.
const NEEDED_TO_FIND: [Capability; 1] = [Capability::CAP_DAC_OVERRIDE];

/// Those that reading them takes: BPF up to Linux 5.18.
const NEEDED_TO_READ: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_DAC_OVERRIDE];

/// The needed capabilities that this process does not have, by name.
pub fn missing() -> Vec<String> {
    missing_of(&NEEDED, CapSet::Effective)
}

/// Those that are not in this set of the process.
pub(crate) fn missing_from(set: CapSet) -> Vec<String> {
    missing_of(&NEEDED, set)
}

fn missing_of(needed: &[Capability], set: CapSet) -> Vec<String> {
    // CAP_SYS_ADMIN stands in for BPF and PERFMON (capabilities(7)).
    let has = |capability| caps::has_cap(None, set, capability).unwrap_or(false);
    let admin = has(Capability::CAP_SYS_ADMIN);
    let stood_in_for = [Capability::CAP_BPF, Capability::CAP_PERFMON];
    needed
        .iter()
        .filter(|&&capability| !has(capability))
        .filter(|capability| !(admin && stood_in_for.contains(capability)))
        .map(|capability| capability.to_string())
        .collect()
}

/// What could not be done, and what is likely to stand in the way where the kernel then says that it
/// is not permitted: "cannot load ...; this process lacks CAP_BPF: run it as root".
pub(crate) fn advice(what: &str) -> String {
    advice_where(&missing(), what)
}

/// The same for what takes no more than finding the maps of a `run`.
pub(crate) fn advice_to_find(what: &str) -> String {
    advice_where(&missing_of(&NEEDED_TO_FIND, CapSet::Effective), what)
}

/// The same for what takes no more than reading them.
pub(crate) fn advice_to_read(what: &str) -> String {
    advice_where(&missing_of(&NEEDED_TO_READ, CapSet::Effective), what)
}

fn advice_where(missing: &[String], what: &str) -> String {
    if !missing.is_empty() {
        return format!(
            "cannot {what}: this process lacks {}; run it as root, or give it these capabilities",
            missing.join(", ")
        );
    }
    if in_initial_user_namespace() {
        format!("cannot {what}")
    } else {
        format!(
            "cannot {what} (in a user namespace, whose capabilities the kernel does not take for \
             BPF: run it on the host, or in a privileged container)"
        )
    }
}

/// Whether this process is in the host's user namespace: the capabilities of another one do not count
/// for BPF, not even where it maps all users to themselves.
pub(crate) fn in_initial_user_namespace() -> bool {
    // linux/proc_ns.h: PROC_USER_INIT_INO. There is no such file where the kernel has no user
    // namespaces.
    const INITIAL: u64 = 0xEFFF_FFFD;
    std::fs::metadata("/proc/self/ns/user").map_or(true, |namespace| namespace.ino() == INITIAL)
}
