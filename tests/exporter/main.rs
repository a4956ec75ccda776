//! `/metrics` and `/healthz` against clients that are slow, broken or hostile. After each of them a
//! proper scrape is answered, the filter filters, and the process has neither grown nor kept files
//! open.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod bed;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use nix::sys::{
    signal::Signal,
    socket::{setsockopt, sockopt},
};
use testbed::harness::{needs_root, run, trial};
use testbed::wait::until;

use bed::{Bed, PLACES, until_closed};

const GET: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

/// What a client says, and how the answer begins; nothing if the connection is just closed.
const WORDS: &[(&str, &[u8], &str)] = &[
    ("of HTTP/1.1", GET, "HTTP/1.1 200"),
    (
        "of HTTP/1.0",
        b"GET /metrics HTTP/1.0\r\n\r\n",
        "HTTP/1.0 200",
    ),
    (
        "for an unknown path",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "HTTP/1.1 404",
    ),
    (
        "for a path beyond",
        b"GET /metrics/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        "HTTP/1.1 404",
    ),
    (
        "with a query, as scrapers may",
        b"GET /metrics?format=text HTTP/1.1\r\nHost: x\r\n\r\n",
        "HTTP/1.1 200",
    ),
    (
        "by a wrong method",
        b"DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        "HTTP/1.1 405",
    ),
    (
        "of HTTP/2",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        "",
    ),
    (
        "by TLS",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n",
        "HTTP/1.1 400",
    ),
    (
        "that is no HTTP",
        b"metrics, please\r\n\r\n",
        "HTTP/1.1 400",
    ),
    ("that is zeros", &[0; 4096], "HTTP/1.1 400"),
    (
        "with two lengths",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 400",
    ),
];

/// What a trial runs.
type Test = fn(&mut Bed) -> Result<()>;

fn main() -> ExitCode {
    let tests: &[(&str, Test)] = &[
        ("answers a request as it deserves", words),
        (
            "answers HEAD without a body, and says which methods it knows",
            methods,
        ),
        ("answers who closes his side when he has asked", half_closed),
        (
            "answers beside 1000 clients that say nothing, and keeps few of them",
            idle,
        ),
        (
            "closes on clients that never come to the end of their request",
            slow_head,
        ),
        ("refuses a header without end", endless_header),
        ("takes no body, however long", endless_body),
        ("answers one request of many in a row", pipelined),
        ("answers beside clients that never read", deaf),
        ("bears clients that come and go", come_and_go),
        ("answers many scrapes at once", many_scrapes),
        (
            "goes on when file descriptors lack, and does not spin",
            no_descriptors,
        ),
        ("ends when told to, whoever is connected", ends),
    ];
    let trials = tests.iter().map(|&(name, test)| {
        needs_root(trial(name, move || {
            let mut bed = Bed::new()?;
            test(&mut bed)?;
            if name.starts_with("ends") {
                let status = bed.daemon.stop(Signal::SIGTERM)?;
                ensure!(status.success(), "{status}");
                return Ok(());
            }
            bed.must_be_well()?;
            bed.until_all_are_closed()
        }))
    });
    run(trials.collect::<Vec<Trial>>())
}

fn words(bed: &mut Bed) -> Result<()> {
    for (what, request, expected) in WORDS {
        let answer = bed.say(request)?;
        if expected.is_empty() {
            ensure!(answer.is_empty(), "a request {what}: {answer}");
            continue;
        }
        ensure!(
            answer.starts_with(expected),
            "a request {what}: {:?}",
            answer.lines().next()
        );
        // Prometheus asks anew each time.
        let closes = answer.contains("\r\nconnection: close\r\n") || answer.starts_with("HTTP/1.0");
        ensure!(closes, "a request {what}: {answer}");
    }
    Ok(())
}

fn methods(bed: &mut Bed) -> Result<()> {
    let answer = bed.say(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    ensure!(
        head.starts_with("HTTP/1.1 200") && head.contains("\r\ncontent-length: "),
        "{answer}"
    );
    ensure!(body.is_empty(), "{body}");
    let answer = bed.say(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")?;
    ensure!(
        answer.starts_with("HTTP/1.1 405") && answer.contains("\r\nallow: GET, HEAD\r\n"),
        "{answer}"
    );
    Ok(())
}

fn half_closed(bed: &mut Bed) -> Result<()> {
    let answer = bed.say_and_close(GET)?;
    ensure!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("xdp_dedup_build_info"),
        "{answer}"
    );
    for unfinished in [&b""[..], b"GET /metr", &GET[..GET.len() - 2]] {
        let answer = bed.say_and_close(unfinished)?;
        ensure!(!answer.contains("200"), "{answer}");
    }
    Ok(())
}

fn idle(bed: &mut Bed) -> Result<()> {
    let mut clients = bed.connect_many(1000)?;
    // The oldest go, and the last ones may stay: while they are there, scrapes are answered.
    bed.must_be_well()?;
    for client in &mut clients[..1000 - PLACES] {
        until_closed(client)?;
    }
    Ok(())
}

fn slow_head(bed: &mut Bed) -> Result<()> {
    let mut clients = bed.connect_many(2 * PLACES)?;
    for client in &mut clients {
        let _ = client.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ");
    }
    let (open, must_be_well) = (clients.len(), bed.must_be_well());
    must_be_well?;
    // They go on as slowly as they can, until the exporter has had enough of all of them.
    let mut closed = 0;
    let mut refused = vec![false; open];
    until("the end of slow clients", || {
        for (client, refused) in clients.iter_mut().zip(&mut refused) {
            if !*refused && client.write_all(b"a").is_err() {
                *refused = true;
                closed += 1;
            }
        }
        thread::sleep(Duration::from_millis(100));
        Ok((closed == open).then_some(()))
    })
}

fn endless_header(bed: &mut Bed) -> Result<()> {
    let mut request = b"GET /metrics HTTP/1.1\r\nX: ".to_vec();
    request.resize(request.len() + 4_000_000, b'a');
    let answer = bed.say(&request)?;
    ensure!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    let mut request = b"GET /metrics HTTP/1.1\r\n".to_vec();
    for _ in 0..500 {
        request.extend(b"X: a\r\n");
    }
    request.extend(b"\r\n");
    let answer = bed.say(&request)?;
    ensure!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let mut request = b"GET /".to_vec();
    request.resize(100_000, b'a');
    let answer = bed.say(&request)?;
    ensure!(!answer.contains("200"), "{answer}");
    Ok(())
}

fn endless_body(bed: &mut Bed) -> Result<()> {
    for method in ["POST", "GET"] {
        for length in [
            "Content-Length: 1000000000000",
            "Transfer-Encoding: chunked",
        ] {
            let mut client = bed.connect()?;
            let head = format!("{method} /metrics HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n");
            client.write_all(head.as_bytes())?;
            // 256 MB at most, if nobody stops it.
            let chunk = [&b"10000\r\n"[..], &[b'a'; 0x10000], b"\r\n"].concat();
            let refused = (0..4096).any(|_| client.write_all(&chunk).is_err());
            ensure!(refused, "{method} with {length}: a body of 256 MB is taken");
        }
    }
    Ok(())
}

fn pipelined(bed: &mut Bed) -> Result<()> {
    let mut client = bed.connect()?;
    let _ = client.write_all(&GET.repeat(1000));
    let answer = until_closed(&mut client)?;
    let answers = answer.matches("HTTP/1.1 200").count();
    // With requests unread the kernel may take the answer back.
    ensure!(answers <= 1, "{answers} answers");
    Ok(())
}

fn deaf(bed: &mut Bed) -> Result<()> {
    let clients = bed.connect_many(4 * PLACES)?;
    for client in &clients {
        setsockopt(client, sockopt::RcvBuf, &1024)?;
        let _ = { client }.write_all(GET);
    }
    bed.must_be_well()?;
    drop(clients);
    Ok(())
}

fn come_and_go(bed: &mut Bed) -> Result<()> {
    for n in 0..1000 {
        let mut client = bed.connect()?;
        if n % 2 == 0 {
            let _ = client.write_all(GET);
        }
        if n % 4 < 2 {
            // A reset instead of an end.
            let at_once = nix::libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            setsockopt(&client, sockopt::Linger, &at_once)?;
        }
    }
    Ok(())
}

fn many_scrapes(bed: &mut Bed) -> Result<()> {
    let clients = bed.connect_many(4 * PLACES)?;
    let ask = |mut client: TcpStream| -> Result<bool> {
        let _ = client.write_all(GET);
        let answer = until_closed(&mut client)?;
        // Whole, or none at all.
        let is_whole = answer.contains("xdp_dedup_build_info");
        ensure!(
            answer.is_empty() || (is_whole && answer.ends_with('\n')),
            "{answer}"
        );
        Ok(is_whole)
    };
    let answered = thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .map(|client| scope.spawn(|| ask(client)))
            .collect();
        let answers = threads.into_iter().map(|thread| thread.join().unwrap());
        answers.collect::<Result<Vec<bool>>>()
    })?;
    let answered = answered.into_iter().filter(|answered| *answered).count();
    ensure!(answered >= PLACES, "{answered} of {} answered", 4 * PLACES);
    Ok(())
}

fn no_descriptors(bed: &mut Bed) -> Result<()> {
    let limit = |files: usize| -> Result<()> {
        let status = Command::new("prlimit")
            .arg(format!("--pid={}", bed.daemon.pid()))
            .arg(format!("--nofile={files}:"))
            .status()?;
        ensure!(status.success(), "prlimit: {status}");
        Ok(())
    };
    // Room for a few connections and what a scrape takes.
    limit(bed.open_files()? + 6)?;
    let before = bed.cpu_time()?;
    let mut clients = bed.connect_many(500)?;
    // Those that nobody has accepted are in the kernel's queue.
    until("a complaint", || {
        let log = bed.daemon.log();
        Ok(log.contains("cannot accept a connection").then_some(()))
    })?;
    // Beside them a scrape is answered, sooner or later.
    until("an answer", || {
        Ok(bed.daemon.get("/metrics").is_ok().then_some(()))
    })?;
    for client in &mut clients {
        // Sooner or later all are closed, accepted or not.
        let mut byte = [0];
        let _ = client.read(&mut byte);
    }
    let log = bed.daemon.log();
    let complaints = log.matches("cannot accept a connection").count();
    ensure!(complaints <= 2, "{complaints} complaints: {log}");
    // A loop that spins would take all of the CPU for as long as file descriptors lack.
    let taken = bed.cpu_time()? - before;
    ensure!(taken < Duration::from_secs(2), "{taken:?} of CPU time");
    limit(1024)
}

fn ends(bed: &mut Bed) -> Result<()> {
    let clients = bed.connect_many(PLACES)?;
    for client in &clients {
        let _ = { client }.write_all(&GET[..10]);
    }
    // They stay connected for longer than the daemon lives.
    std::mem::forget(clients);
    Ok(())
}
