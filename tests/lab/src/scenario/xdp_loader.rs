//! Beside another tool's program: libxdp's dispatcher in Debian's kernel, for the machine's own may not
//! take programs into it. Then the filter by itself in that kernel.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use pcap_file::pcap::{PcapPacket, PcapWriter};
use testbed::frame::reported::{RELAY_A, SERVER};
use testbed::frame::{Frame, reported_pair};

use super::{Row, Scenario};
use crate::kernel_object;
use crate::play::{Play, Seen};
use crate::software::guest::{self, Told};
use crate::software::xdp_tools::{self, Loaded};

pub const SCENARIO: Scenario = Scenario {
    name: "xdp-loader",
    expected: "Debian's kernel in QEMU: xdp-filter and xdp-loader's dispatcher; xdp-loader puts the \
               filter's program behind xdp-filter's, where without a policy both copies pass; `run` \
               without a dispatcher drops the second",
    at_once: 1,
    packages: &[
        "bpftool",
        "cpio",
        "findutils",
        "kmod",
        "linux-image-cloud-amd64",
        "mount",
        "qemu-system-x86",
        "tcpreplay",
    ],
    only_by_name: true,
    rows: |_| vec![Row::new("Debian's kernel", play)],
};

/// The programs that the script calls.
const PROGRAMS: &[&str] = &[
    "bpftool",
    "sleep",
    "tcpdump",
    "tcpreplay",
    "xdp-filter",
    "xdp-loader",
];

/// What xdp-tools has for the kernel.
const OBJECTS: &[&str] = &[
    "/usr/lib/x86_64-linux-gnu/bpf/xdp-dispatcher.o",
    "/usr/lib/x86_64-linux-gnu/bpf/xdpfilt_alw_all.o",
];

/// Played in the guest; the file `/filtered` is there where the filter is to be.
const SCRIPT: &str = r#"
ip link add server0 type veth peer name relay0
ip link set server0 up
ip link set relay0 up

# What of the pair gets past all programs; the last frame says that no more will come.
past() {
    tcpdump --immediate-mode -Z root -l -n -i server0 'ip6 and udp port 547' \
        > /run/past 2> /run/tcpdump & local pid=$!
    until_says /run/tcpdump 'listening on'
    tcpreplay --quiet --topspeed --intf1=relay0 /pair.pcap > /dev/null 2>&1
    until_says /run/past relay-reply
    kill $pid
    wait $pid
    cat /run/past
}
until_says() {
    local i
    for ((i = 0; i < 200; i++)); do
        case $(cat "$1") in *"$2"*) return;; esac
        sleep 0.05
    done
    echo "no $2 in $1: $(cat "$1" /run/tcpdump)"
    return 1
}

if [ -e /filtered ]; then
    tell load xdp-loader load --verbose --mode native server0 /usr/lib/xdp_dedup.bpf.o
fi
tell other xdp-filter load server0
tell status xdp-loader status server0
tell past past
if [ -e /filtered ]; then
    tell table bpftool map dump name TABLE
    tell refused xdp-dedup run -i server0 --metrics off
fi
tell unload xdp-loader unload server0 --all
tell empty xdp-loader status server0
if [ -e /filtered ]; then
    tell check xdp-dedup check -i server0
    xdp-dedup run -i server0 --metrics off > /run/log 2>&1 & pid=$!
    tell attached until_says /run/log attached
    tell alone past
    stop() { kill -TERM $pid; wait $pid; }
    tell stop stop
    tell log cat /run/log
    tell off xdp-loader status server0
fi
"#;

fn play(play: &Play<'_>) -> Result<Seen> {
    let machine = play.machine("server")?;
    let mut files = vec![("/pair.pcap", pair()?)];
    for path in OBJECTS {
        let content = fs::read(machine.path(path)).with_context(|| format!("no {path}"))?;
        files.push((path, content));
    }
    if play.filtered {
        files.push(("/filtered", Vec::new()));
        files.push((
            "/usr/lib/xdp_dedup.bpf.o",
            kernel_object::of(play.binary())?,
        ));
    }
    let (_, version) = guest::kernel(&machine)?;
    let told = guest::play(&machine, PROGRAMS, &files, play.binary(), SCRIPT)?;
    let mut seen = Seen::default();
    seen.say(format!("Linux {version}"));
    seen.figure("linux", version);
    if let Err(error) = judge(&told, play.filtered, &mut seen) {
        seen.must(false, format!("{error:#}"));
    }
    seen.hold(machine);
    Ok(seen)
}

/// The reported pair, and a message from the server.
fn pair() -> Result<Vec<u8>> {
    const RELAY_REPLY: u8 = 13;
    let [a, b] = reported_pair();
    let mut reply = vec![0; 34];
    reply[0] = RELAY_REPLY;
    let mut writer = PcapWriter::new(Vec::new())?;
    for frame in [a, b, Frame::new(SERVER, RELAY_A, reply)] {
        let bytes = frame.bytes();
        let length = bytes.len() as u32;
        writer.write_packet(&PcapPacket::new(Duration::ZERO, length, &bytes))?;
    }
    Ok(writer.into_writer())
}

/// How many copies got past all programs.
fn copies(told: &Told, name: &str) -> Result<usize> {
    let past = told.good(name)?;
    Ok(past
        .lines()
        .filter(|line| line.contains("relay-fwd"))
        .count())
}

fn judge(told: &Told, filtered: bool, seen: &mut Seen) -> Result<()> {
    let behind = |program: &str, priority| Loaded {
        program: program.to_owned(),
        priority: Some(priority),
        chain_actions: "XDP_PASS".to_owned(),
    };
    let mut expected = vec![behind("xdpfilt_alw_all", 10)];
    if filtered {
        // If the verifier refuses the program, `check` says why.
        told.good("load").with_context(|| {
            told.any("check")
                .map_or_else(|_| String::new(), |(_, text)| text.to_owned())
        })?;
        expected.push(behind("xdp_dedup", 20));
    }
    told.good("other")?;
    let status = xdp_tools::read(told.good("status")?, "server0");
    let shown: Vec<_> = status
        .iter()
        .filter_map(|it| Some(format!("{} at {}", it.program, it.priority?)))
        .collect();
    seen.say(format!("behind the dispatcher: {}", shown.join(", ")));
    seen.figure("behind_the_dispatcher", shown);
    seen.must(
        status
            .first()
            .is_some_and(|it| it.program == "xdp_dispatcher")
            && status.get(1..) == Some(&expected),
        format!("not as expected behind the dispatcher: {status:?}"),
    );
    let past = copies(told, "past")?;
    seen.say(format!("{past} of 2 copies pass"));
    seen.figure("copies_past_the_dispatcher", past);
    seen.must(past == 2, "not both copies got past the dispatcher");
    told.good("unload")?;
    let empty = xdp_tools::read(told.good("empty")?, "server0");
    seen.must(empty.is_empty(), format!("left on it: {empty:?}"));
    if filtered {
        judge_filter(told, seen)?;
    }
    Ok(())
}

/// The filter's own part.
fn judge_filter(told: &Told, seen: &mut Seen) -> Result<()> {
    let entries = told.good("table")?.matches("\"key\"").count();
    seen.must(
        entries == 1,
        format!("the table behind the dispatcher has {entries} entries, not one"),
    );
    let (code, refused) = told.any("refused")?;
    seen.must(
        code == 1 && refused.contains("xdp-loader status server0"),
        format!("`run` said of the dispatcher ({code}): {refused}"),
    );
    told.good("check")?;
    told.good("attached")?;
    let alone = copies(told, "alone")?;
    seen.say(format!("`run` by itself: {alone} of 2"));
    seen.figure("copies_past_run", alone);
    seen.must(alone == 1, "`run` did not drop exactly the second copy");
    told.good("stop")?;
    let off = xdp_tools::read(told.good("off")?, "server0");
    let log = told.good("log")?;
    seen.must(off.is_empty(), format!("left by `run`: {off:?}: {log}"));
    Ok(())
}
