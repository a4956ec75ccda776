//! What the manual pages say beside what the command line says of itself.

use clap_mangen::roff::{Inline, Roff, bold, italic, roman};

/// The end of the overview.
pub fn of_overview() -> Roff {
    let mut page = exit_status(true);
    page.control("SH", ["SIGNALS"]);
    for (signal, meaning) in [
        (
            "SIGHUP",
            "`run` reads its configuration file again, and changes the policy of the program at work. \
             Where the file is bad the policy stays, and the log says what is wrong.",
        ),
        (
            "SIGINT, SIGTERM",
            "`run` takes the filter off and ends; with `--persist` the filter stays. `events` and \
             `stats --watch` end.",
        ),
    ] {
        item(&mut page, bold(signal), meaning);
    }
    page.control("SH", ["ENVIRONMENT"]);
    for (variable, meaning) in [
        (
            "NOTIFY_SOCKET",
            "Set by systemd for a unit of Type=notify: `run` tells it when the filter is attached, \
             when the configuration is read again, and when it leaves.",
        ),
        (
            "SOURCE_DATE_EPOCH",
            "The day that `man` puts on its pages, in seconds since 1970.",
        ),
    ] {
        item(&mut page, bold(variable), meaning);
    }
    page.control("SH", ["FILES"]);
    for (path, meaning) in [
        (
            "/etc/xdp-dedup.toml",
            "The flags of `run`, their names being its keys. Read where `--config` names it.",
        ),
        (
            "/sys/fs/bpf/xdp-dedup/netns-INODE",
            "The filter's maps, pinned on the BPF file system, for the network namespace of that \
             inode number.",
        ),
        (
            "/usr/share/doc/xdp-dedup/xdp-dedup/OPERATING.md",
            "The guide for operators, where Debian's package puts it.",
        ),
        (
            "http://[::1]:9757/metrics",
            "What `run` counts, for Prometheus; `/healthz` on the same port says whether the filter \
             is attached. `--metrics` chooses another address.",
        ),
    ] {
        item(&mut page, italic(path), meaning);
    }
    let others = [
        "bpf(2)",
        "capabilities(7)",
        "ethtool(8)",
        "ip-link(8)",
        "tcpdump(8)",
    ];
    see_also(&mut page, &others);
    page
}

/// The end of the page of one command.
pub fn of_command(name: &str, overview: &str) -> Roff {
    let mut page = exit_status(name == "status");
    see_also(&mut page, &[overview]);
    page
}

/// One of the codes is for `status` alone.
fn exit_status(of_status: bool) -> Roff {
    let mut page = Roff::new();
    page.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in [
        ("0", "Done."),
        (
            "1",
            "Failed. One line on standard error says what was tried, why it failed and what to do.",
        ),
        ("2", "Wrong usage."),
    ] {
        item(&mut page, bold(code), meaning);
    }
    if of_status {
        item(&mut page, bold("3"), "`status` found nothing attached.");
    }
    page
}

/// Such as `bpf(2)`.
fn see_also(page: &mut Roff, pages: &[&str]) {
    page.control("SH", ["SEE ALSO"]);
    let mut names = Vec::new();
    for page_name in pages {
        if !names.is_empty() {
            names.push(roman(", "));
        }
        let (name, section) = page_name.split_at(page_name.find('(').unwrap_or(page_name.len()));
        names.extend([bold(name), roman(section)]);
    }
    page.text(names);
}

fn item(page: &mut Roff, term: Inline, meaning: &str) {
    page.control("TP", []);
    page.text([term]);
    page.text([roman(meaning)]);
}
