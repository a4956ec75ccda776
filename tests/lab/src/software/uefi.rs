//! A machine's own firmware: OVMF in QEMU, without KVM.

use anyhow::Result;

use crate::machine::{Machine, Process};
use crate::site::ETH0;

/// Switches a virtual machine on that has but a NIC to boot from, by IPv6. Its NIC is bridged to the
/// machine's `eth0`, and its console is the process's log.
///
/// # Errors
///
/// In a kernel without tap devices.
pub fn start(machine: &Machine) -> Result<Process> {
    for words in [
        "link add bridge0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
        "tuntap add dev tap0 mode tap",
        "link set tap0 up master bridge0",
        &format!("link set {ETH0} master bridge0"),
        "link set bridge0 up",
    ] {
        machine.namespace.ip(words)?;
    }
    machine.run("cp", ["/usr/share/OVMF/OVMF_VARS.fd", VARIABLES])?;
    let flash = |unit: u8, mode: &str, file: &str| {
        format!("if=pflash,unit={unit},format=raw,readonly={mode},file={file}")
    };
    machine.start(
        "qemu-system-x86_64",
        [
            "-machine",
            "q35",
            "-accel",
            "tcg",
            "-m",
            "256",
            "-nodefaults",
            "-display",
            "none",
            "-serial",
            "stdio",
            "-drive",
            &flash(0, "on", "/usr/share/OVMF/OVMF_CODE.fd"),
            "-drive",
            &flash(1, "off", VARIABLES),
            "-netdev",
            "tap,id=net,ifname=tap0,script=no,downscript=no",
            // Without QEMU's own boot ROM on it: the firmware has a driver.
            "-device",
            "virtio-net-pci,netdev=net,romfile=,mac=52:54:00:00:00:01",
            // Without random numbers OVMF has no network.
            "-device",
            "virtio-rng-pci",
            "-fw_cfg",
            "name=opt/org.tianocore/IPv4PXESupport,string=n",
        ],
    )
}

/// Where it keeps its settings.
const VARIABLES: &str = "/run/OVMF_VARS.fd";
