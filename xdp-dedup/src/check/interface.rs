//! What stands for and against attaching to an interface. To try it might reset the link, so nothing
//! is attached: the kernel is asked what the driver offers.

mod device;
mod netdev;

use std::collections::BTreeMap;

use self::{
    device::{Channels, Device, Driver},
    netdev::XdpFeatures,
};
use super::{
    report::{Line, Outcome, Subject},
    resources::Resources,
};
use crate::{
    attachment::{Mode, described, program_name, way_out},
    interfaces::{Interface, stacked},
    kernel::Kernel,
};

/// Drivers that want as many channels for XDP as are in use, out of those that there can be: `ena` in
/// ena_xdp_allowed(), `gve` in gve_verify_xdp_configuration().
const DRIVERS_THAT_HALVE: [&str; 2] = ["ena", "gve"];

/// Features by which GRO makes one packet of several UDP datagrams.
const MERGING: [&str; 2] = ["rx-gro-list", "rx-udp-gro-forwarding"];

/// Looks at these interfaces, each with the mode asked for, out of all that there are.
pub async fn look(
    wanted: &[(String, Mode)],
    all: &BTreeMap<u32, Interface>,
    resources: &Resources,
) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut there = Vec::new();
    for (name, mode) in wanted {
        let Some(interface) = all.values().find(|interface| interface.name == *name) else {
            lines.push(missing(all).of(name));
            continue;
        };
        there.push(interface);
        lines.push(
            Line::new(
                Subject::Interface,
                format!("index {}", interface.index),
                Outcome::Ok,
            )
            .of(name),
        );
        let about = match Device::ask(interface.index).await {
            Ok(device) => device.lines(name, *mode),
            Err(error) => vec![Line::new(
                Subject::Link,
                format!("{error:#}"),
                Outcome::Fail("see whether it is still there: `ip link`".to_owned()),
            )],
        };
        lines.extend(about.into_iter().map(|line| line.of(name)));
        lines.push(incumbent(name, &interface.programs, resources).of(name));
    }
    if there.len() > 1 {
        lines.extend(stacking(&there, all));
    }
    lines
}

fn missing(all: &BTreeMap<u32, Interface>) -> Line {
    let names: Vec<_> = all.values().map(|other| other.name.as_str()).collect();
    Line::new(
        Subject::Interface,
        format!(
            "there is none of this name here; there are {}",
            names.join(", ")
        ),
        Outcome::Fail(
            "name one of these, or look in its network namespace: \
             `nsenter --net=/run/netns/NAME xdp-dedup check -i IFACE`"
                .to_owned(),
        ),
    )
}

impl Device {
    fn lines(&self, name: &str, mode: Mode) -> Vec<Line> {
        let mut lines = vec![
            self.link(name),
            self.driver(),
            self.xdp_mode(name, mode),
            self.mtu(name, mode),
            self.queues(name, mode),
        ];
        match &self.features {
            Some(features) => {
                let on = |feature: &str| features.contains(feature);
                lines.push(gro(MERGING.into_iter().filter(|name| on(name)), name, mode));
                lines.push(lro(on("rx-lro"), name));
            }
            None => lines.push(Line::new(
                Subject::Gro,
                "unknown: the kernel does not tell what is on",
                Outcome::Warn(format!(
                    "in generic mode see that `ethtool -k {name}` has {} off",
                    MERGING.join(" and ")
                )),
            )),
        }
        lines
    }

    fn link(&self, name: &str) -> Line {
        let line = |found, outcome| Line::new(Subject::Link, found, outcome);
        match (self.up, self.carrier) {
            (true, true) => line("up", Outcome::Ok),
            (true, false) => line(
                "up, but without a carrier",
                Outcome::Warn("look at the cable, or at what is at its other end".to_owned()),
            ),
            (false, _) => line(
                "down",
                Outcome::Warn(format!("`ip link set {name} up`, or no frame arrives")),
            ),
        }
    }

    fn driver(&self) -> Line {
        let found = match &self.driver {
            None => "unknown".to_owned(),
            Some(Driver { name, out_of_tree }) if *out_of_tree => {
                format!("{name}, not the kernel's own")
            }
            Some(driver) => driver.name.clone(),
        };
        Line::new(Subject::Driver, found, Outcome::Ok)
    }

    fn xdp_mode(&self, name: &str, mode: Mode) -> Line {
        let line = |found: String, outcome| Line::new(Subject::XdpMode, found, outcome);
        let offered = match (mode, self.xdp) {
            (Mode::Generic, _) => {
                return line(
                    "generic, which works with every driver, later in the receive path".to_owned(),
                    Outcome::Ok,
                );
            }
            (Mode::Native, None) => {
                return line(
                    "native: unknown until `run` tries it (the kernel tells from Linux 6.3 on)"
                        .to_owned(),
                    Outcome::Warn(format!(
                        "try it when a short loss of the link does no harm; `--mode {name}=generic` \
                         works with every driver"
                    )),
                );
            }
            (Mode::Native, Some(offered)) => offered,
        };
        if offered.basic() {
            return line(format!("native: the driver offers {offered}"), Outcome::Ok);
        }
        if self
            .driver
            .as_ref()
            .is_some_and(|driver| driver.out_of_tree)
        {
            return line(
                "native: the driver does not say that it can".to_owned(),
                Outcome::Warn(format!(
                    "not being the kernel's own, it may all the same: `run` will tell; \
                     `--mode {name}=generic` works with every driver"
                )),
            );
        }
        line(
            "native: the driver cannot, at least not as it is set up now".to_owned(),
            Outcome::Fail(format!(
                "`--mode {name}=generic` works with every driver; where this one has XDP, its MTU, \
                 channels or LRO stand in the way (`ethtool -l {name}`, `ethtool -k {name}`)"
            )),
        )
    }

    /// In native mode a frame lies in a page, with room before and behind it, unless the driver can
    /// use several; how much they take exactly differs by driver.
    fn mtu(&self, name: &str, mode: Mode) -> Line {
        const ETHERNET_WITH_TWO_TAGS: usize = 14 + 2 * 4;
        let most = Kernel::linear_part_of_test_run() - ETHERNET_WITH_TWO_TAGS;
        let fits = self.mtu as usize <= most;
        // Where it offers nothing, that is the line to read.
        let may_not_do = |offered: XdpFeatures| offered.basic() && !offered.several_buffers();
        let outcome = if fits || mode == Mode::Generic || !self.xdp.is_none_or(may_not_do) {
            Outcome::Ok
        } else {
            Outcome::Warn(format!(
                "without rx-sg, XDP takes about {most} at most: if `run` is refused, lower it \
                 (`ip link set {name} mtu 1500`), or take `--mode {name}=generic`"
            ))
        };
        Line::new(Subject::Mtu, self.mtu.to_string(), outcome)
    }

    fn queues(&self, name: &str, mode: Mode) -> Line {
        let line = |found: String, outcome| Line::new(Subject::Queues, found, outcome);
        let found = match self.receive_queues {
            None => return line("unknown".to_owned(), Outcome::Ok),
            Some(1) => "1, so one CPU filters".to_owned(),
            Some(count) => format!("{count}, so up to {count} CPUs filter at once"),
        };
        let halves = |driver: &Driver| DRIVERS_THAT_HALVE.contains(&driver.name.as_str());
        match self.channels {
            Some(Channels { count, max, kind })
                if mode == Mode::Native
                    && self.driver.as_ref().is_some_and(halves)
                    && 2 * count > max =>
            {
                let wanted = max / 2;
                let command = match kind {
                    "tx" => format!("ethtool -L {name} rx {wanted} tx {wanted}"),
                    _ => format!("ethtool -L {name} {kind} {wanted}"),
                };
                line(
                    format!(
                        "{count} of at most {max} channels, and this driver wants as many for XDP"
                    ),
                    Outcome::Fail(format!(
                        "`{command}` (the link goes down for a moment), or `--mode {name}=generic`"
                    )),
                )
            }
            _ => line(found, Outcome::Ok),
        }
    }
}

/// Generic XDP runs after GRO, native XDP before it.
fn gro(merging: impl Iterator<Item = &'static str>, name: &str, mode: Mode) -> Line {
    let on: Vec<_> = merging.collect();
    let line = |found: String, outcome| Line::new(Subject::Gro, found, outcome);
    if on.is_empty() {
        return line("merges no UDP datagrams".to_owned(), Outcome::Ok);
    }
    let which = on.join(" and ");
    match mode {
        Mode::Native => line(
            format!("{which} on, which comes after native XDP"),
            Outcome::Ok,
        ),
        Mode::Generic => {
            let off: Vec<_> = on.iter().map(|feature| format!("{feature} off")).collect();
            line(
                format!("{which} on: a frame may hold several datagrams, and copies go unseen"),
                Outcome::Warn(format!("`ethtool -K {name} {}`", off.join(" "))),
            )
        }
    }
}

/// Drivers and the kernel (generic_xdp_install()) switch it off for XDP, or refuse to attach.
fn lro(on: bool, name: &str) -> Line {
    if on {
        Line::new(
            Subject::Lro,
            "on: attaching switches it off, or the driver refuses",
            Outcome::Warn(format!(
                "`ethtool -K {name} lro off` beforehand, and see whether the CPUs bear it"
            )),
        )
    } else {
        Line::new(Subject::Lro, "off", Outcome::Ok)
    }
}

/// The XDP program on the interface, and whose it is.
fn incumbent(name: &str, programs: &[u32], resources: &Resources) -> Line {
    const OWN_NAME: &str = "xdp_dedup";
    let line = |found: String, outcome| Line::new(Subject::XdpProgram, found, outcome);
    let Some(&id) = programs.first() else {
        return line("none yet".to_owned(), Outcome::Ok);
    };
    let kept = resources.kept.contains(&id);
    // Not everybody may ask for a program's name; that of a `run` at work is the likeliest.
    let has_own_name = || program_name(id).is_none_or(|name| name == OWN_NAME);
    match resources.running {
        Some(pid) if kept || has_own_name() => line(
            format!("xdp-dedup itself (program id {id}), held by process {pid}"),
            Outcome::Warn("nothing to do if that one is to stay; else stop it first".to_owned()),
        ),
        None if kept => line(
            format!("xdp-dedup itself (program id {id}), left in place by --persist"),
            Outcome::Ok,
        ),
        _ => line(
            format!("{} is attached", described(id)),
            Outcome::Fail(format!(
                "`run` never displaces another program: {}",
                way_out(name, id)
            )),
        ),
    }
}

/// Interfaces of which one gets the other's frames.
fn stacking(there: &[&Interface], all: &BTreeMap<u32, Interface>) -> Vec<Line> {
    let mut lines = Vec::new();
    for (number, lower) in there.iter().enumerate() {
        for upper in &there[number + 1..] {
            if stacked(lower, upper, all) {
                lines.push(Line::new(
                    Subject::Stacking,
                    format!(
                        "{} and {} are stacked on one another: both would see the same frame, and \
                         the second would take it for a copy and drop it",
                        lower.name, upper.name
                    ),
                    Outcome::Fail("attach to one of them only".to_owned()),
                ));
            }
        }
    }
    if lines.is_empty() {
        lines.push(Line::new(
            Subject::Stacking,
            "none of them gets another's frames",
            Outcome::Ok,
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a good server NIC says of itself.
    fn device() -> Device {
        Device {
            up: true,
            carrier: true,
            driver: Some(driver("ice")),
            mtu: 1500,
            receive_queues: Some(8),
            channels: Some(Channels {
                count: 8,
                max: 8,
                kind: "combined",
            }),
            xdp: Some(XdpFeatures(0x7f)),
            features: Some(["rx-gro".to_owned()].into()),
        }
    }

    fn driver(name: &str) -> Driver {
        Driver {
            name: name.to_owned(),
            out_of_tree: false,
        }
    }

    fn with_feature(feature: &str) -> Device {
        Device {
            features: Some([feature.to_owned()].into()),
            ..device()
        }
    }

    #[test]
    fn a_good_nic_is_told_so_in_either_mode() {
        for mode in [Mode::Native, Mode::Generic] {
            for line in device().lines("eth0", mode) {
                assert_eq!(line.outcome, Outcome::Ok, "{mode}: {line:?}");
            }
        }
    }

    #[test]
    fn what_stands_in_the_way_is_told_with_advice() {
        use Mode::{Generic, Native};
        use Subject::{Gro, Link, Lro, Mtu, Queues, XdpMode};
        let without_xdp = |driver| Device {
            xdp: Some(XdpFeatures(0)),
            driver: Some(driver),
            ..device()
        };
        let halving = |name, count, kind| Device {
            driver: Some(driver(name)),
            channels: Some(Channels {
                count,
                max: 8,
                kind,
            }),
            ..device()
        };
        let jumbo = |xdp| Device {
            mtu: 9000,
            xdp,
            ..device()
        };
        let basic = Some(XdpFeatures(1));
        #[rustfmt::skip]
        let rows = [
            (Link, Native, Device { up: false, ..device() }, "warn", "ip link set eth0 up"),
            (Link, Native, Device { carrier: false, ..device() }, "warn", "cable"),
            (XdpMode, Native, without_xdp(driver("tg3")), "fail", "--mode eth0=generic"),
            (XdpMode, Generic, without_xdp(driver("tg3")), "ok", ""),
            (XdpMode, Native, without_xdp(Driver { out_of_tree: true, ..driver("ixgbe") }), "warn", "`run` will tell"),
            (XdpMode, Native, Device { xdp: None, ..device() }, "warn", "--mode eth0=generic"),
            (Mtu, Native, jumbo(basic), "warn", "about 3498"),
            (Mtu, Native, jumbo(None), "warn", "about 3498"),
            (Mtu, Native, jumbo(device().xdp), "ok", ""),
            (Mtu, Generic, jumbo(basic), "ok", ""),
            (Mtu, Native, jumbo(Some(XdpFeatures(0))), "ok", ""),
            (Mtu, Native, Device { mtu: 3498, xdp: basic, ..device() }, "ok", ""),
            (Mtu, Native, Device { mtu: 3499, xdp: basic, ..device() }, "warn", "mtu 1500"),
            (Queues, Native, halving("ena", 8, "combined"), "fail", "ethtool -L eth0 combined 4"),
            (Queues, Native, halving("gve", 5, "tx"), "fail", "ethtool -L eth0 rx 4 tx 4"),
            (Queues, Native, halving("ena", 4, "combined"), "ok", ""),
            (Queues, Generic, halving("ena", 8, "combined"), "ok", ""),
            (Gro, Generic, with_feature("rx-gro-list"), "warn", "ethtool -K eth0 rx-gro-list off"),
            (Gro, Generic, with_feature("rx-udp-gro-forwarding"), "warn", "rx-udp-gro-forwarding off"),
            (Gro, Native, with_feature("rx-gro-list"), "ok", ""),
            (Gro, Native, Device { features: None, ..device() }, "warn", "ethtool -k eth0"),
            (Lro, Native, with_feature("rx-lro"), "warn", "lro off"),
            (Lro, Generic, with_feature("rx-lro"), "warn", "lro off"),
        ];
        for (subject, mode, device, outcome, advice) in rows {
            let lines = device.lines("eth0", mode);
            let line = lines.iter().find(|line| line.subject == subject).unwrap();
            let told = match &line.outcome {
                Outcome::Ok => ("ok", ""),
                Outcome::Warn(text) => ("warn", text.as_str()),
                Outcome::Fail(text) => ("fail", text.as_str()),
            };
            assert_eq!(told.0, outcome, "{line:?}");
            assert!(told.1.contains(advice), "{advice:?} in {line:?}");
        }
    }

    #[test]
    fn a_program_of_one_s_own_is_no_stranger() {
        let resources = |running, kept| Resources {
            lines: Vec::new(),
            running,
            kept,
        };
        let pid = Some(77);
        // No program has the highest id that there is.
        let id = u32::MAX;
        for (programs, resources, outcome, found) in [
            (vec![], resources(None, vec![]), "ok", "none"),
            (vec![id], resources(None, vec![]), "fail", "is attached"),
            (vec![id], resources(None, vec![1]), "fail", "is attached"),
            (vec![id], resources(pid, vec![]), "warn", "by process 77"),
            (vec![id], resources(pid, vec![id]), "warn", "by process 77"),
            (
                vec![id],
                resources(None, vec![id]),
                "ok",
                "left in place by --persist",
            ),
        ] {
            let line = incumbent("server0", &programs, &resources);
            let told = match &line.outcome {
                Outcome::Ok => "ok",
                Outcome::Warn(_) => "warn",
                Outcome::Fail(_) => "fail",
            };
            assert_eq!(told, outcome, "{line:?}");
            assert!(line.found.contains(found), "{found:?} in {line:?}");
        }
    }
}
