//! xdp-tools: `xdp-loader`, which puts several programs on one interface by libxdp's dispatcher, and
//! `xdp-filter`, whose program is one of those.

use anyhow::Result;

use crate::machine::Machine;

/// What `xdp-loader status` tells of one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its name.
    pub program: String,
    /// Its place among those behind a dispatcher; none for the dispatcher, and for a program alone.
    pub priority: Option<u32>,
    /// The actions after which the next program is called.
    pub chain_actions: String,
}

/// What `xdp-loader status` says of the programs on an interface, the one that the kernel calls first.
///
/// # Errors
///
/// Where it fails.
pub fn status(machine: &Machine, interface: &str) -> Result<Vec<Loaded>> {
    machine
        .run("xdp-loader", ["status", interface])
        .map(|printed| read(&printed, interface))
}

/// The programs in the table that `xdp-loader status` printed. The columns are interface or ` =>`, priority where there is one,
/// name, mode where the interface stands, id, tag, actions.
pub fn read(printed: &str, interface: &str) -> Vec<Loaded> {
    let mut programs = Vec::new();
    for line in printed.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (priority, program, actions) = match words[..] {
            [name, program, "native" | "skb" | "hw", _, _] if name == interface => {
                (None, program, "")
            }
            ["=>", priority, program, _, _, actions] => (priority.parse().ok(), program, actions),
            ["=>", priority, program, _, _] => (priority.parse().ok(), program, ""),
            _ => continue,
        };
        programs.push(Loaded {
            program: program.to_owned(),
            priority,
            chain_actions: actions.to_owned(),
        });
    }
    programs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(program: &str, priority: Option<u32>, chain_actions: &str) -> Loaded {
        Loaded {
            program: program.to_owned(),
            priority,
            chain_actions: chain_actions.to_owned(),
        }
    }

    // As version 1.3.1 printed them.
    #[test]
    fn programs_behind_a_dispatcher_are_read_with_their_places() {
        let printed = "\
CURRENT XDP PROGRAM STATUS:

Interface        Prio  Program name      Mode     ID   Tag               Chain actions
--------------------------------------------------------------------------------------
server0                xdp_dispatcher    native   34   90f686eb86991928 
 =>              10     xdpfilt_alw_all           43   d4fe5e0b973c9290  XDP_PASS
 =>              20     xdp_dedup                 24   5ed1d230474a8058  XDP_PASS

";
        assert_eq!(
            read(printed, "server0"),
            [
                loaded("xdp_dispatcher", None, ""),
                loaded("xdpfilt_alw_all", Some(10), "XDP_PASS"),
                loaded("xdp_dedup", Some(20), "XDP_PASS"),
            ]
        );
    }

    #[test]
    fn a_program_alone_is_read_and_so_is_none() {
        let alone = "server0                xdp_dedup         native   42413 3f3eb0deecfc8536 \n";
        assert_eq!(read(alone, "server0"), [loaded("xdp_dedup", None, "")]);
        let none = "server0                <No XDP program loaded!>\n";
        assert_eq!(read(none, "server0"), []);
    }
}
