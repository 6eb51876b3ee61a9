//! Requests that are too much: heads of megabytes, heads without end, ids of events that nobody sent.

#[path = "../../../../../tests/support/http2_by_hand.rs"]
mod http2_by_hand;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::report::{Meter, Report, eventually};
use crate::support::process::Process;
use crate::support::{Mode, http1};
use crate::{block_on, server};

/// How long a flood may go on before it is given up: then the server has taken it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the floods of a case ended.
#[derive(Default)]
struct Ends {
    /// How often each of them was seen.
    seen: BTreeMap<String, usize>,
    /// The most that one could send.
    most_sent: usize,
}

pub(crate) fn run(report: &mut Report, mode: Mode) {
    let mut server = server::start(server::Settings::default());
    let count = mode.pick(200, 20);
    let head = "GET /ann HTTP/1.1\r\nhost: test\r\n";
    let many: String = (0..100_000).map(|n| format!("x-{n}: {n}\r\n")).collect();
    let long = format!("x-long: {}\r\n", "x".repeat(8 << 20));
    let path = format!(
        "GET /{} HTTP/1.1\r\nhost: test\r\n\r\n",
        "x".repeat(1 << 20)
    );
    // As a client sends it that breaks no other rule: a hundred headers are few enough.
    let broad: String = (0..90)
        .map(|n| format!("x-{n}: {}\r\n", "y".repeat(2000)))
        .collect();
    let cases = [
        ("100,000 headers, 1.6 MB", format!("{head}{many}\r\n")),
        ("one header of 8 MB", format!("{head}{long}\r\n")),
        ("90 headers, 180 KB", format!("{head}{broad}\r\n")),
        ("a path of 1 MB", path),
    ];
    for (case, request) in cases {
        let case = format!("{count} x {case}");
        flood(report, &mut server, &case, count, request.into_bytes(), b"");
    }
    for (case, begin, again) in http2::floods() {
        let case = format!("{count} x HTTP/2, {case}");
        flood(report, &mut server, &case, count, begin, &again);
    }
    ids(report, &mut server, mode);
}

/// Sends a head on many connections at once and, where there is one, what follows it over and over again.
fn flood(
    report: &mut Report,
    server: &mut Process,
    case: &str,
    count: usize,
    begin: Vec<u8>,
    again: &[u8],
) {
    let addr = server.addr();
    let meter = Meter::start(server);
    let flooded = block_on(async {
        let (begin, again) = (Arc::new(begin), Arc::new(again.to_vec()));
        let mut floods = JoinSet::new();
        for _ in 0..count {
            floods.spawn(one(addr, Arc::clone(&begin), Arc::clone(&again)));
        }
        let mut ends = Ends::default();
        while let Some(end) = floods.join_next().await {
            let (seen, sent) = end.expect("no panic");
            *ends.seen.entry(seen).or_default() += 1;
            ends.most_sent = ends.most_sent.max(sent);
        }
        ends
    });
    let bill = meter.end();
    let seen: Vec<_> = flooded
        .seen
        .iter()
        .map(|(seen, times)| format!("{seen} ({times})"))
        .collect();
    report.row(
        case,
        &seen.join(", "),
        &format!(
            "{} KB at most are taken of each, peak {:+.1} MB, back {:+.1} MB, {:.0} µs of CPU each",
            flooded.most_sent / 1024,
            bill.peak,
            bill.back,
            bill.cpu * 1e6 / count as f64
        ),
    );
    let ends = ["431", "414", "GOAWAY", "RST_STREAM", CUT];
    let is_refused = |seen: &str| ends.iter().any(|end| seen.starts_with(end));
    for seen in flooded.seen.keys() {
        report.check(is_refused(seen), format!("{case}: {seen}"));
    }
    let each = bill.peak * 1024.0 / count as f64;
    report.check(each < 512.0, format!("{case}: {each:.0} KB for each"));
    report.check(
        bill.back < 32.0,
        format!("{case}: {:.1} MB stay", bill.back),
    );
    report.check(
        server.ask_number("connections") == 0,
        format!("{case}: a stream was opened"),
    );
}

/// The connection ended without an answer, as it does when the server has closed and more comes.
const CUT: &str = "reset";

/// One flood: what the client sees, and how much it could send.
async fn one(addr: SocketAddr, begin: Arc<Vec<u8>>, again: Arc<Vec<u8>>) -> (String, usize) {
    let tcp = TcpStream::connect(addr).await.expect("the server listens");
    let (mut read, mut write) = tcp.into_split();
    let writing = async {
        let mut sent = 0;
        let mut next = &begin[..];
        loop {
            while !next.is_empty() {
                match write.write(next).await {
                    Ok(0) | Err(_) => return sent,
                    Ok(written) => {
                        sent += written;
                        next = &next[written..];
                    }
                }
            }
            if again.is_empty() {
                return sent;
            }
            next = &again;
        }
    };
    let mut response = Vec::new();
    let reading = async {
        let mut buf = [0; 4096];
        while let Ok(read @ 1..) = read.read(&mut buf).await {
            if response.len() < 4096 {
                response.extend_from_slice(&buf[..read]);
            }
        }
    };
    let both = async {
        tokio::pin!(reading);
        tokio::select! {
            sent = writing => {
                reading.await;
                sent
            }
            // What could be sent after that is none of the server's business.
            () = &mut reading => 0,
        }
    };
    let Ok(sent) = timeout(PATIENCE, both).await else {
        return ("no end".to_owned(), usize::MAX);
    };
    (what(&response), sent)
}

/// What a response says.
fn what(response: &[u8]) -> String {
    if let Some(line) = response.strip_prefix(b"HTTP/1.1 ") {
        return String::from_utf8_lossy(&line[..3.min(line.len())]).into_owned();
    }
    if let Some(what) = http2::what(response) {
        return what;
    }
    CUT.to_owned()
}

/// Ids as long as a head can be, and many of them.
fn ids(report: &mut Report, server: &mut Process, mode: Mode) {
    let count = mode.pick(2_000, 100);
    let long = "9".repeat(30_000);
    let several = format!("last-event-id: {}\r\n", "1".repeat(500)).repeat(80);
    let mut usual = f64::NAN;
    for (case, headers, query) in [
        ("usual", "last-event-id: 0123456789abcdef-7\r\n", ""),
        ("of 60 KB", &format!("last-event-id: {long}{long}\r\n"), ""),
        ("80 in one request", &several, ""),
        (
            "of 60 KB in the query",
            "",
            &format!("?lastEventId={long}{long}"),
        ),
    ] {
        let addr = server.addr();
        let meter = Meter::start(server);
        let request = format!("GET /ann{query} HTTP/1.1\r\nhost: test\r\n{headers}\r\n");
        let (streams, gaps) = block_on(async {
            let mut streams = Vec::new();
            let mut gaps = 0;
            for _ in 0..count {
                let mut tcp = TcpStream::connect(addr).await.expect("the server listens");
                tcp.write_all(request.as_bytes()).await.expect("it reads");
                let mut seen = Vec::new();
                while !seen.ends_with(b"null}\n\n\r\n") {
                    let read = timeout(PATIENCE, tcp.read_buf(&mut seen)).await;
                    if !matches!(read, Ok(Ok(1..))) {
                        break;
                    }
                }
                let seen = String::from_utf8_lossy(&seen).into_owned();
                gaps +=
                    usize::from(seen.starts_with("HTTP/1.1 200") && seen.contains("event: gap"));
                streams.push(tcp);
            }
            (streams, gaps)
        });
        let there = server.ask_number("connections");
        let bill = meter.end();
        let each = bill.back * 1024.0 / count as f64;
        drop(streams);
        let gone = eventually(PATIENCE, || server.ask_number("connections") == 0);
        let case = format!("{count} x Last-Event-ID {case}");
        report.row(
            &case,
            &format!("200 and a gap ({gaps})"),
            &format!(
                "{each:.1} KB more for each stream, {:.0} µs of CPU each",
                bill.cpu * 1e6 / count as f64
            ),
        );
        if usual.is_nan() {
            usual = each;
        }
        report.check(
            gaps == count && there == count,
            format!("{case}: {gaps} gaps"),
        );
        report.check(each < usual + 16.0, format!("{case}: the id is kept"));
        report.check(gone, format!("{case}: somebody stays"));
    }
    // Somebody who asks for something usual gets it.
    let opened = block_on(http1::Stream::open(server.addr(), "/ann"));
    report.check(opened.is_ok(), "after the floods nobody is served");
}

mod http2 {
    use super::http2_by_hand::*;

    /// A header that is written out and not kept: lengths of less than 127.
    fn literal(name: &str, value: &str) -> Vec<u8> {
        let mut bytes = vec![0, name.len() as u8];
        bytes.extend(name.as_bytes());
        bytes.push(value.len() as u8);
        bytes.extend(value.as_bytes());
        bytes
    }

    /// A case, what is sent first, and what is sent again and again.
    pub(super) fn floods() -> [(&'static str, Vec<u8>, Vec<u8>); 3] {
        let begin = preface();
        let filling = literal("x", &"y".repeat(100)).repeat(100);

        let endless = [&begin[..], &frame(HEADERS, END_STREAM, 1, &get("/ann"))].concat();
        let more = frame(CONTINUATION, 0, 1, &filling);

        // An entry of 4 KB is put into the table, and then named by one byte each time.
        let mut bomb = get("/ann");
        let value = "z".repeat(4000);
        bomb.extend([0x40, 1, b'b', 0x7F]);
        // 4000 - 127, in groups of seven bits.
        bomb.extend([0xA1, 0x1E]);
        bomb.extend(value.as_bytes());
        bomb.extend(std::iter::repeat_n(0xBE, 12_000));
        let bomb = frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb);

        let mut broad = get("/ann");
        for _ in 0..140 {
            broad.extend(literal("x", &"y".repeat(110)));
        }
        let broad = frame(HEADERS, END_STREAM | END_HEADERS, 1, &broad);
        let last = frame(GOAWAY, 0, 0, &[0; 8]);
        [
            ("CONTINUATION without end", endless, more),
            (
                "48 MB of headers in 16 KB of HPACK",
                [&begin[..], &bomb, &last].concat(),
                Vec::new(),
            ),
            (
                "headers of 16 KB and more",
                [&begin[..], &broad, &last].concat(),
                Vec::new(),
            ),
        ]
    }

    /// What the first frame says that is an answer or an end.
    pub(super) fn what(response: &[u8]) -> Option<String> {
        frames(response)
            .into_iter()
            .find_map(|(kind, payload)| match kind {
                HEADERS => {
                    // Three digits in Huffman's code.
                    const TOO_LARGE: &[u8] = &[0x83, 0x69, 0x90, 0xFF];
                    let is_431 = payload.windows(4).any(|bytes| bytes == TOO_LARGE);
                    Some(match payload.first() {
                        _ if is_431 => "431".to_owned(),
                        Some(0x88) => "200".to_owned(),
                        _ => format!("{payload:?}"),
                    })
                }
                RST_STREAM => Some(format!("RST_STREAM {}", payload.last()?)),
                GOAWAY => Some(format!("GOAWAY {}", payload.get(7)?)),
                _ => None,
            })
    }
}
