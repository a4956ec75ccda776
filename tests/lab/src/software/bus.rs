//! The message bus, D-Bus, that some clients are told by.

use anyhow::Result;

use crate::machine::Machine;

/// Where libdbus and GLib look for it, and that whoever is on this machine may do all.
const CONFIGURATION: &str = r#"<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <listen>unix:path=/var/run/dbus/system_bus_socket</listen>
  <policy context="default">
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"#;

/// Starts it; it stays up as long as the machine.
///
/// # Errors
///
/// With its complaint, where it does not come up.
pub fn start(machine: &Machine) -> Result<()> {
    let file = "/etc/lab/bus.conf";
    machine.write(file, CONFIGURATION)?;
    machine.run("mkdir", ["-p", "/run/dbus", "/var/run/dbus"])?;
    // It forks when it listens.
    let configuration = format!("--config-file={file}");
    machine
        .run("dbus-daemon", [&configuration, "--fork", "--nopidfile"])
        .map(drop)
}
