//! dhcpcd.

use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::machine::{Machine, Process};
use crate::site::ETH0;
use crate::software::PATIENCE;

/// How long it may take to say that it has heard a signal.
const HEARD: Duration = Duration::from_millis(100);

/// It asks without waiting for a router.
const CONFIGURATION: &str = "\
duid ll
ipv6only
noipv6rs
interface eth0
ia_na 1
";

pub fn start(machine: &Machine) -> Result<Process> {
    machine.write("/etc/lab/dhcpcd.conf", CONFIGURATION)?;
    // It drops privileges before it writes there.
    let folders = ["/run/dhcpcd", "/var/lib/dhcpcd"];
    machine.run("mkdir", [&["-p"], &folders[..]].concat())?;
    machine.run("chown", [&["dhcpcd"], &folders[..]].concat())?;
    let configuration = "/etc/lab/dhcpcd.conf";
    machine.start(
        "dhcpcd",
        ["-B", "-d", "-f", configuration, "-c", "/bin/true", ETH0],
    )
}

/// Sends what `dhcpcd -k` does. dhcpcd 9.4.1 gives nothing back while it waits for the answer to a
/// Renew, and loses a signal that comes while it waits for its privileged part, as it does after each
/// answer: so each answer is waited for, and the signal sent until it was heard.
pub fn release(process: &mut Process) -> Result<()> {
    let start = Instant::now();
    loop {
        process.until("answer to its last Renew", PATIENCE, |process| {
            let log = process.log();
            let renewed = log.matches("executing: /bin/true RENEW6").count();
            renewed > 0 && renewed == log.matches("broadcasting RENEW6").count()
        })?;
        process.signal(Signal::SIGALRM)?;
        let Err(deaf) = process.until_it_says("received SIGALRM", HEARD) else {
            return Ok(());
        };
        if process.ended()?.is_some() || start.elapsed() > PATIENCE {
            return Err(deaf);
        }
    }
}
