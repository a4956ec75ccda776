//! Which privileges this process lacks for its work.

use caps::{CapSet, Capability};

/// The capabilities that attaching the filter takes: BPF and PERFMON to load it (Linux 5.8), NET_ADMIN
/// to put it on an interface.
const NEEDED: [Capability; 3] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
];

/// The needed capabilities that this process does not have, by name.
pub fn missing() -> Vec<String> {
    // CAP_SYS_ADMIN stands in for BPF and PERFMON (capabilities(7)).
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let admin = has(Capability::CAP_SYS_ADMIN);
    NEEDED
        .into_iter()
        .filter(|&capability| !has(capability))
        .filter(|&capability| !(admin && capability != Capability::CAP_NET_ADMIN))
        .map(|capability| capability.to_string())
        .collect()
}

/// What could not be done, with the missing capabilities if there are any: "cannot load ...; this
/// process lacks CAP_BPF: run it as root".
pub(crate) fn advice(what: &str) -> String {
    let missing = missing();
    if missing.is_empty() {
        format!("cannot {what}")
    } else {
        format!(
            "cannot {what}: this process lacks {}; run it as root, or give it these capabilities",
            missing.join(", ")
        )
    }
}
