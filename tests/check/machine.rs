//! The machine: privileges and what takes them away, the BPF file system, the port, another `run`.

use std::collections::BTreeMap;
use std::io;
use std::net::TcpListener;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use testbed::veth::cable;
use testbed::{
    binary::binary,
    daemon::Daemon,
    harness::{needs_root, trial},
    namespace::Namespace,
};

use crate::report::{BPF_FILE_SYSTEM, Complaint, Report, Start};

/// What a trial runs.
type Test = fn() -> Result<()>;

/// Everything that `check` looks at without an interface.
const MACHINE: [&str; 13] = [
    "kernel",
    "capabilities",
    "user_namespace",
    "bpf_call",
    "lockdown",
    "program",
    "test_run",
    "multi_buffer",
    "jit",
    "bpf_file_system",
    "pin_folder",
    "other_run",
    "metrics_port",
];

/// How it is started: what a shell does before, and who starts it; and what it then complains of.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static [Complaint<'static>],
);

const NOT_TRIED: Complaint<'_> = (
    "program",
    None,
    "warn",
    "not loaded: map ",
    "what privileges lack (see above)",
);

const ROWS: &[Row] = &[
    (
        "finds nothing wrong where nothing is",
        BPF_FILE_SYSTEM,
        "",
        &[],
    ),
    (
        "names the capabilities that a user lacks",
        "mount -t bpf -o mode=777 bpf /sys/fs/bpf",
        "setpriv --reuid=65534 --regid=65534 --clear-groups",
        &[
            (
                "capabilities",
                None,
                "fail",
                "lacks CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON",
                "run it as root",
            ),
            NOT_TRIED,
        ],
    ),
    (
        "says that a BPF file system is not this user's",
        BPF_FILE_SYSTEM,
        "setpriv --reuid=65534 --regid=65534 --clear-groups",
        &[
            (
                "capabilities",
                None,
                "fail",
                "lacks CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON",
                "run it as root",
            ),
            NOT_TRIED,
            (
                "bpf_file_system",
                None,
                "fail",
                "where this process cannot write: Permission denied",
                "run it as root",
            ),
            ("pin_folder", None, "warn", "not looked at", "as root"),
        ],
    ),
    (
        "sends a user to root where the pin folder is root's",
        "mount -t bpf -o mode=777 bpf /sys/fs/bpf && mkdir -m 700 /sys/fs/bpf/xdp-dedup",
        "setpriv --reuid=65534 --regid=65534 --clear-groups",
        &[
            (
                "capabilities",
                None,
                "fail",
                "lacks CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON",
                "run it as root",
            ),
            NOT_TRIED,
            (
                "pin_folder",
                None,
                "warn",
                "/sys/fs/bpf/xdp-dedup is root's",
                "look again as root",
            ),
        ],
    ),
    (
        "names the capabilities that not even root can have",
        BPF_FILE_SYSTEM,
        "setpriv --bounding-set=-all,+net_admin --inh-caps=-all",
        &[
            (
                "capabilities",
                None,
                "fail",
                "lacks CAP_BPF, CAP_PERFMON",
                "not even root can have CAP_BPF, CAP_PERFMON here: the unit (CapabilityBoundingSet=)",
            ),
            NOT_TRIED,
        ],
    ),
    (
        "knows that the capabilities of a user namespace do not count",
        BPF_FILE_SYSTEM,
        "unshare --user --map-root-user",
        &[
            (
                "user_namespace",
                None,
                "fail",
                "do not count for BPF",
                "run it on the host",
            ),
            NOT_TRIED,
        ],
    ),
    (
        "says how to mount a BPF file system where there is none, as under `ip netns exec`",
        "mount -t sysfs sysfs /sys",
        "",
        &[(
            "bpf_file_system",
            None,
            "fail",
            "none at /sys/fs/bpf",
            "mount -t bpf -o mode=700 bpf /sys/fs/bpf",
        )],
    ),
    (
        "says that a BPF file system is read-only",
        "mount -t bpf -o mode=700,ro bpf /sys/fs/bpf",
        "",
        &[
            (
                "bpf_file_system",
                None,
                "fail",
                "cannot write: Read-only file system",
                "remount,rw",
            ),
            ("pin_folder", None, "warn", "not looked at", "as root"),
        ],
    ),
    (
        "says that a link stands in the pin folder's place",
        "mount -t bpf -o mode=700 bpf /sys/fs/bpf && ln -s /tmp /sys/fs/bpf/xdp-dedup",
        "",
        &[(
            "pin_folder",
            None,
            "fail",
            "/sys/fs/bpf/xdp-dedup belongs to somebody else",
            "remove it",
        )],
    ),
    (
        "says that others may write to the pin folder",
        "mount -t bpf -o mode=700 bpf /sys/fs/bpf && mkdir -m 777 /sys/fs/bpf/xdp-dedup",
        "",
        &[(
            "pin_folder",
            None,
            "fail",
            "others may write to it",
            "remove it",
        )],
    ),
    (
        "says that the pin folder is somebody else's",
        "mount -t bpf -o mode=700 bpf /sys/fs/bpf && mkdir -m 700 /sys/fs/bpf/xdp-dedup && \
         mkdir -m 700 /sys/fs/bpf/xdp-dedup/netns-$(stat -L -c %i /proc/self/ns/net) && \
         chown 65534 /sys/fs/bpf/xdp-dedup/netns-*",
        "",
        &[(
            "pin_folder",
            None,
            "fail",
            "belongs to somebody else",
            "remove it",
        )],
    ),
];

pub fn trials() -> Vec<Trial> {
    let mut trials: Vec<_> = ROWS
        .iter()
        .map(|&(name, before, by, complaints)| {
            needs_root(trial(name, move || {
                let namespace = Namespace::new("server")?;
                let start = Start {
                    before,
                    by,
                    ..Start::plainly(&namespace)
                };
                start.check(&[])?.complains_of(complaints)
            }))
        })
        .collect();
    let others: &[(&str, Test)] = &[
        ("looks at everything, in a fixed order", everything),
        (
            "tells a seccomp filter that refuses bpf(2) from a lack of capabilities",
            seccomp_refuses,
        ),
        (
            "survives a seccomp filter that kills who calls bpf(2)",
            seccomp_kills,
        ),
        ("says that the metrics port is in use", port_in_use),
        ("is content with the `run` that is at work", own_run),
        ("leaves nothing behind", nothing_left),
        ("is no failure where nobody reads it", nobody_reads),
        ("is readable, too", readable),
    ];
    let others = others
        .iter()
        .map(|&(name, test)| needs_root(trial(name, test)));
    trials.extend(others);
    trials.push(trial(
        "needs no root, and names interfaces to look at",
        || {
            let output = Command::new(binary()?).arg("check").output()?;
            let stdout = String::from_utf8(output.stdout)?;
            let stderr = String::from_utf8(output.stderr)?;
            ensure!(stdout.starts_with("ok    kernel "), "{stdout}{stderr}");
            ensure!(
                stderr.contains("with -i IFACE; there are lo"),
                "no hint in {stderr}"
            );
            Ok(())
        },
    ));
    trials
}

fn everything() -> Result<()> {
    let namespace = Namespace::new("server")?;
    let report = Start::plainly(&namespace).check(&[])?;
    report.complains_of(&[])?;
    ensure!(report.checks() == MACHINE, "{:?}", report.checks());
    ensure!(report.found("program")?.starts_with("loaded, "));
    Ok(())
}

/// A filter that does this to who calls bpf(2), and nothing else.
fn filter(action: SeccompAction) -> Result<BpfProgram> {
    let rules = BTreeMap::from([(libc::SYS_bpf, Vec::new())]);
    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, architecture)?;
    Ok(filter.try_into()?)
}

fn under(action: SeccompAction) -> Result<Report> {
    let namespace = Namespace::new("server")?;
    let start = Start {
        seccomp: Some(filter(action)?),
        ..Start::plainly(&namespace)
    };
    start.check(&[])
}

fn seccomp_refuses() -> Result<()> {
    for (errno, text) in [
        (libc::EPERM, "Operation not permitted"),
        (libc::EACCES, "Permission denied"),
        (libc::ENOSYS, "Function not implemented"),
    ] {
        let report = under(SeccompAction::Errno(errno.cast_unsigned()))?;
        let found = format!("a seccomp filter refuses bpf(2): {text}");
        report
            .complains_of(&[
                ("bpf_call", None, "fail", &found, "SystemCallFilter=bpf"),
                ("program", None, "warn", "not loaded: ", "see above"),
            ])
            .context(text)?;
    }
    Ok(())
}

fn seccomp_kills() -> Result<()> {
    under(SeccompAction::KillProcess)?.complains_of(&[
        (
            "bpf_call",
            None,
            "fail",
            "a seccomp filter kills",
            "SystemCallFilter=bpf",
        ),
        ("program", None, "warn", "not tried", "see above"),
    ])
}

fn port_in_use() -> Result<()> {
    let namespace = Namespace::new("server")?;
    let taken = namespace.inside(|| TcpListener::bind("[::1]:9757"))??;
    let report = Start::plainly(&namespace).check(&[])?;
    drop(taken);
    report.complains_of(&[(
        "metrics_port",
        None,
        "warn",
        "[::1]:9757 is in use",
        "ss -ltnp 'sport = :9757'",
    )])
}

fn own_run() -> Result<()> {
    let (here, _end) = cable()?;
    let daemon = Daemon::start(&binary()?, &here, &["-i", "server0"])?;
    let pid = daemon.pid().to_string();
    // Among its mounts: the BPF file system is its own.
    let start = Start {
        before: "true",
        by: &format!("nsenter --target {pid} --mount --"),
        ..Start::plainly(&here)
    };
    let held = format!("held by process {pid}");
    let at_work = format!("process {pid} is at work");
    let port = format!("in use, by process {pid}");
    start.check(&["-i", "server0"])?.complains_of(&[
        ("other_run", None, "warn", &at_work, "stop it first"),
        ("metrics_port", None, "warn", &port, "nothing to do"),
        (
            "xdp_program",
            Some("server0"),
            "warn",
            &held,
            "nothing to do",
        ),
    ])?;
    let attached = daemon.metrics()?.value("xdp_dedup_attached", &["server0"]);
    ensure!(
        attached == Some(1.0),
        "no longer attached: {}",
        daemon.log()
    );
    Ok(())
}

fn nothing_left() -> Result<()> {
    let (here, _end) = cable()?;
    let output = here
        .command("unshare")
        .args(["--mount", "sh", "-c"])
        .arg(format!(
            "{BPF_FILE_SYSTEM} && \"$0\" check -i server0 >&2 && ls -A /sys/fs/bpf"
        ))
        .arg(binary()?)
        .output()?;
    let stdout = String::from_utf8(output.stdout)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{stderr}");
    // The kernel's own files in a BPF file system.
    let left: Vec<_> = stdout
        .lines()
        .filter(|name| !name.ends_with(".debug"))
        .collect();
    ensure!(left.is_empty(), "left on the BPF file system: {left:?}");
    let link = here.ip("link show dev server0")?;
    ensure!(!link.contains("xdp"), "attached: {link}");
    Ok(())
}

fn nobody_reads() -> Result<()> {
    let (here, _end) = cable()?;
    for json in ["", "--json"] {
        let (reader, writer) = io::pipe()?;
        drop(reader);
        let output = here
            .command("unshare")
            .args(["--mount", "sh", "-c"])
            .arg(format!(
                "{BPF_FILE_SYSTEM} && exec \"$0\" check -i server0 {json}"
            ))
            .arg(binary()?)
            .stdout(writer)
            .output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && stderr.is_empty(), "{stderr}");
    }
    Ok(())
}

fn readable() -> Result<()> {
    let (here, _end) = cable()?;
    let output = here
        .command("unshare")
        .args(["--mount", "sh", "-c"])
        .arg(format!("{BPF_FILE_SYSTEM} && exec \"$0\" check \"$@\""))
        .arg(binary()?)
        .args(["-i", "server0", "-i", "nope"])
        .output()?;
    let stdout = String::from_utf8(output.stdout)?;
    let line = |subject: &str| stdout.lines().find(|line| line.contains(subject));
    ensure!(
        line(" server0 mtu ")
            .is_some_and(|line| line.starts_with("ok    ") && line.ends_with("  1500")),
        "{stdout}"
    );
    ensure!(
        line(" nope interface ").is_some_and(|line| {
            line.starts_with("fail  ")
                && line.contains("there are lo")
                && line.contains("; name one")
        }),
        "{stdout}"
    );
    ensure!(output.status.code() == Some(1), "{}", output.status);
    Ok(())
}
