//! Bytes on a connection are what a plain hyper server would have sent for the same responses: one app, behind
//! `tidings::serve` and behind `axum::serve`, answers the same bytes with the same bytes.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tidings::serve::{bind, listener, serve};
use tokio::net::TcpListener;

use crate::support::raw_http::{OPEN, Step, exchange};
use crate::support::wire_app::app;

/// Where `tidings::serve` answers otherwise than hyper does by itself: the case, how our answer begins, and why.
const INTENDED: &[(&str, &str, &str)] = &[
    (
        "a head of 100 KiB",
        "HTTP/1.1 431 Request Header Fields Too Large\r\n",
        "a head may have 64 KiB: hyper's 400 KiB are memory that anybody can claim",
    ),
    ("/version/0.9", "HTTP/1.1 200 OK\r\n", VERSION),
    ("/version/0.9, then closed", "HTTP/1.1 200 OK\r\n", VERSION),
    ("/version/3", "HTTP/1.1 200 OK\r\n", VERSION),
    ("/version/3, then closed", "HTTP/1.1 200 OK\r\n", VERSION),
    ("/plain-version/0.9", "HTTP/1.1 200 OK\r\n", VERSION),
    (
        "/plain-version/0.9, then closed",
        "HTTP/1.1 200 OK\r\n",
        VERSION,
    ),
    ("/plain-version/3", "HTTP/1.1 200 OK\r\n", VERSION),
    (
        "/plain-version/3, then closed",
        "HTTP/1.1 200 OK\r\n",
        VERSION,
    ),
    ("/fails", "HTTP/1.1 200 OK\r\n", FAILING),
    ("/layer/limited", "HTTP/1.1 200 OK\r\n", FAILING),
    ("a stream after a failure", "HTTP/1.1 200 OK\r\n", FAILING),
];

const VERSION: &str =
    "hyper panics at a response of this version, though it sends one of HTTP/2 as one of 1.1";

const FAILING: &str =
    "a body that fails: hyper drops what it has not sent by then, here all before it is sent";

/// One connection: what it is about, and what the client does.
struct Case {
    name: String,
    steps: Vec<Step>,
}

/// Comes last on each connection, so that all of them end, and so that it shows whether the response before was framed
/// as its head says.
const LAST: &str = "GET /whole HTTP/1.1\r\nhost: last\r\nconnection: close\r\n\r\n";

fn case(name: &str, requests: impl Into<Vec<u8>>) -> Case {
    let mut bytes = requests.into();
    bytes.extend_from_slice(LAST.as_bytes());
    Case {
        name: name.to_owned(),
        steps: vec![Step::Write(bytes)],
    }
}

fn steps(name: &str, steps: impl IntoIterator<Item = Step>) -> Case {
    Case {
        name: name.to_owned(),
        steps: steps.into_iter().collect(),
    }
}

fn write(bytes: &str) -> Step {
    Step::Write(bytes.into())
}

fn request(method: &str, path: &str, version: &str, headers: &str, body: &str) -> String {
    format!("{method} {path} HTTP/{version}\r\nhost: test\r\n{headers}\r\n{body}")
}

fn get(path: &str) -> String {
    request("GET", path, "1.1", "", "")
}

fn get_with(path: &str, headers: &str) -> String {
    request("GET", path, "1.1", headers, "")
}

fn post(path: &str, headers: &str, body: &str) -> String {
    request("POST", path, "1.1", headers, body)
}

/// Requests whose responses differ.
fn responses() -> Vec<Case> {
    let mut cases = Vec::new();
    for path in [
        "/whole",
        "/three",
        "/none",
        "/slow",
        "/at-once",
        "/no-body",
        "/fails",
        "/fails-later",
        "/after-trailers",
        "/nowhere",
    ] {
        cases.push(case(path, get(path)));
        let head = request("HEAD", path, "1.1", "", "");
        cases.push(case(&format!("HEAD {path}"), head));
        let older = request("GET", path, "1.0", "", "");
        cases.push(case(&format!("{path} for 1.0"), older));
    }
    for version in ["0.9", "1.0", "1.1", "2", "3"] {
        for path in ["version", "plain-version"] {
            let path = format!("/{path}/{version}");
            cases.push(case(&path, get(&path)));
            let older = request("GET", &path, "1.0", "connection: keep-alive\r\n", "");
            cases.push(case(&format!("{path} for 1.0"), older));
            let close = get_with(&path, "connection: close\r\n");
            cases.push(case(&format!("{path}, then closed"), close));
        }
    }
    for code in [100, 101, 200, 201, 204, 205, 206, 304, 404, 500, 599] {
        let path = format!("/status/{code}");
        cases.push(case(&path, get(&path)));
    }
    for name in ["charset", "upper", "longer", "other"] {
        let path = format!("/type/{name}");
        cases.push(case(&path, get(&path)));
    }
    for name in [
        "length",
        "shorter-length",
        "longer-length",
        "chunked",
        "gzip",
        "identity",
        "close",
        "upper-close",
        "odd-close",
        "keep-alive",
        "upgrade",
    ] {
        let path = format!("/with/{name}");
        cases.push(case(&path, get(&path)));
        let older = request("GET", &path, "1.0", "", "");
        cases.push(case(&format!("{path} for 1.0"), older));
    }
    for kind in ["none", "one", "both"] {
        let path = format!("/trailers/{kind}");
        cases.push(case(&path, get(&path)));
        let wanted = get_with(&path, "te: trailers\r\nconnection: te\r\n");
        cases.push(case(&format!("{path}, wanted"), wanted));
        let listed = get_with(&path, "te: gzip, Trailers\r\n");
        cases.push(case(&format!("{path}, among others"), listed));
    }
    for name in [
        "upper",
        "limited",
        "collected",
        "older",
        "closing",
        "compressed",
    ] {
        let path = format!("/layer/{name}");
        cases.push(case(&path, get_with(&path, "accept-encoding: gzip\r\n")));
    }
    cases
}

/// Requests that differ.
fn requests() -> Vec<Case> {
    let get_three = |headers| get_with("/three", headers);
    let chunked = "transfer-encoding: chunked\r\n";
    let of_1_0 = |headers| request("GET", "/three", "1.0", headers, "");
    vec![
        case("keep-alive", get_three("connection: keep-alive\r\n")),
        case("close", get_three("connection: close\r\n")),
        case("close among others", get_three("connection: te, Close\r\n")),
        case(
            "close in a second line",
            get_three("connection: keep-alive\r\nconnection: close\r\n"),
        ),
        case(
            "close that keep-alive follows",
            get_three("connection: close\r\nconnection: keep-alive\r\n"),
        ),
        case(
            "close beside what is no text",
            b"GET /three HTTP/1.1\r\nhost: test\r\nconnection: close, \xff\r\n\r\n".as_slice(),
        ),
        case("1.0 that keeps alive", of_1_0("connection: keep-alive\r\n")),
        case("1.0 that closes", of_1_0("connection: close\r\n")),
        case("1.0 with a transfer coding", of_1_0(chunked)),
        case("an older version", request("GET", "/three", "0.9", "", "")),
        case("a newer version", request("GET", "/three", "1.2", "", "")),
        case("HTTP/2 in words", request("GET", "/three", "2.0", "", "")),
        case("no version", "GET /three\r\n\r\n"),
        case("no host", "GET /three HTTP/1.1\r\n\r\n"),
        case("two hosts", get_three("host: other\r\n")),
        case("absolute form", get("http://other.test/three?query")),
        case("asterisk form", request("OPTIONS", "*", "1.1", "", "")),
        case("CONNECT", request("CONNECT", "test:80", "1.1", "", "")),
        case(
            "CONNECT to a path",
            request("CONNECT", "/three", "1.1", "", ""),
        ),
        case(
            "a method of its own",
            request("BREW", "/three", "1.1", "", ""),
        ),
        case("a path that is no text", "GET /thr\u{e9}e HTTP/1.1\r\n\r\n"),
        case(
            "lines that end in LF",
            "GET /three HTTP/1.1\nhost: test\n\n",
        ),
        case("empty lines first", format!("\r\n\r\n{}", get_three(""))),
        case("folded lines", get_three("x: one\r\n two\r\n")),
        case("a space before the colon", get_three("x : one\r\n")),
        case("a header without a colon", get_three("x\r\n")),
        case("a null in a header", get_three("x: a\0b\r\n")),
        case("a CR in a header", get_three("x: a\rb\r\n")),
        case("a head of 60 KiB", get_three(&long_header(60))),
        case("a head of 100 KiB", get_three(&long_header(100))),
        case("100 headers", get_three(&"x: y\r\n".repeat(99))),
        case("101 headers", get_three(&"x: y\r\n".repeat(100))),
        case(
            "a body on GET",
            get_three("content-length: 5\r\n") + "12345",
        ),
        case("no body on GET", get_three("content-length: 0\r\n")),
        case("an empty chunked body", get_three(chunked) + "0\r\n\r\n"),
        case("an echo", post("/echo", "content-length: 5\r\n", "12345")),
        case(
            "an echo for 1.0",
            request("POST", "/echo", "1.0", "content-length: 5\r\n", "12345"),
        ),
        case("an echo of nothing", post("/echo", "", "")),
        case(
            "an echo of chunks",
            post(
                "/echo",
                chunked,
                "3;x=y\r\n123\r\n2\r\n45\r\n0\r\nx: y\r\n\r\n",
            ),
        ),
        case(
            "an echo of what are no chunks",
            post("/echo", chunked, "x\r\n"),
        ),
        case(
            "an unread body",
            post("/unread", "content-length: 5\r\n", "12345"),
        ),
        case(
            "a length and a transfer coding",
            post(
                "/echo",
                "content-length: 5\r\ntransfer-encoding: chunked\r\n",
                "2\r\n12\r\n0\r\n\r\n",
            ),
        ),
        case(
            "a transfer coding and a length",
            post(
                "/three",
                "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
                "0\r\n\r\n",
            ),
        ),
        case(
            "two codings",
            post("/echo", "transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        ),
        case(
            "chunked before another coding",
            post("/echo", "transfer-encoding: chunked, gzip\r\n", "0\r\n\r\n"),
        ),
        case("identity", get_three("transfer-encoding: identity\r\n")),
        case(
            "chunked twice",
            post("/echo", &chunked.repeat(2), "0\r\n\r\n"),
        ),
        case(
            "lengths that differ",
            post("/echo", &lengths(5, 6), "12345"),
        ),
        case("lengths that agree", post("/echo", &lengths(5, 5), "12345")),
        case(
            "a signed length",
            post("/echo", "content-length: +5\r\n", "12345"),
        ),
        case(
            "an upgrade of a stream",
            get_three("connection: upgrade\r\nupgrade: h2c\r\n"),
        ),
        case("an upgrade without the hop", get_three("upgrade: echo\r\n")),
        case(
            "Expect without a body",
            get_three("expect: 100-continue\r\n"),
        ),
        case("Expect of something else", get_three("expect: 200-ok\r\n")),
        case(
            "Expect with the body",
            post(
                "/echo",
                "expect: 100-continue\r\ncontent-length: 5\r\n",
                "12345",
            ),
        ),
    ]
}

fn long_header(kibibytes: usize) -> String {
    // No line is too long for anybody.
    let line = format!("x: {}\r\n", "y".repeat(2043));
    line.repeat(kibibytes / 2)
}

fn lengths(first: usize, second: usize) -> String {
    format!("content-length: {first}\r\ncontent-length: {second}\r\n")
}

/// Several requests on a connection, and clients that wait for something, or close.
fn connections() -> Vec<Case> {
    let three = get("/three");
    let echo = post("/echo", "content-length: 5\r\n", "12345");
    let expecting = post("/echo", "expect: 100-continue\r\ncontent-length: 5\r\n", "");
    let refusing = post(
        "/three",
        "expect: 100-continue\r\ncontent-length: 5\r\n",
        "",
    );
    let upgrading = get_with("/upgrade", "connection: upgrade\r\nupgrade: echo\r\n");
    let of_1_0 = request("GET", "/three", "1.0", "connection: keep-alive\r\n", "");
    let last_of_1_0 = request("GET", "/three", "1.0", "", "");
    let close = get_with("/three", "connection: close\r\n");
    let head = request("HEAD", "/three", "1.1", "", "");
    vec![
        case("three streams at a time", three.repeat(3)),
        case("forty streams at a time", three.repeat(40)),
        case("slow streams at a time", get("/slow").repeat(3)),
        case(
            "a stream among others",
            format!("{}{three}{}", get("/whole"), get("/at-once")),
        ),
        case("a stream after HEAD", format!("{head}{three}{head}")),
        case("streams and echoes", format!("{three}{echo}{three}{echo}")),
        case(
            "streams of both versions",
            format!("{three}{of_1_0}{three}"),
        ),
        case("a stream after 1.0", format!("{of_1_0}{of_1_0}{three}")),
        case("1.0 after a stream", format!("{three}{last_of_1_0}{three}")),
        case("a stream after the last one", format!("{close}{three}")),
        case(
            "a stream after an older response",
            get("/version/1.0") + &three,
        ),
        case("a stream after a failure", get("/fails") + &three),
        case("garbage after a stream", format!("{three}garbage\r\n\r\n")),
        case(
            "empty lines after a stream",
            format!("{three}\r\n\r\n{three}"),
        ),
        case(
            "an upgrade after a stream",
            format!("{three}{upgrading}hello"),
        ),
        steps(
            "a stream, request by request",
            [
                write(&three),
                Step::ReadTo("0\r\n\r\n"),
                write(&three),
                Step::ReadTo("0\r\n\r\n"),
                write(LAST),
            ],
        ),
        steps(
            "a request in two pieces after a stream",
            [
                write(&three),
                Step::ReadTo("0\r\n\r\n"),
                write(&LAST[..10]),
                write(&LAST[10..]),
            ],
        ),
        steps(
            "an upgrade",
            [write(&upgrading), Step::ReadTo("\r\n\r\n"), write("hello")],
        ),
        steps(
            "Expect, and the body when it is wanted",
            [
                write(&expecting),
                Step::ReadTo("\r\n\r\n"),
                write(&format!("12345{LAST}")),
            ],
        ),
        steps(
            "Expect, and the body is not wanted",
            [write(&refusing), Step::ReadTo("0\r\n\r\n"), Step::HalfClose],
        ),
        steps(
            "the client closes its side of an open stream",
            [
                write(&get("/endless")),
                Step::ReadTo("one\r\n"),
                Step::HalfClose,
            ],
        ),
        steps(
            "the client closes its side of an open stream for 1.0",
            [
                write(&request("GET", "/endless", "1.0", "", "")),
                Step::ReadTo("one"),
                Step::HalfClose,
            ],
        ),
        steps(
            "the client closes its side after a stream",
            [write(&three), Step::ReadTo("0\r\n\r\n"), Step::HalfClose],
        ),
        steps(
            "the client closes its side with its request",
            [write(&three), Step::HalfClose],
        ),
        steps(
            "the client closes its side with two requests",
            [write(&three.repeat(2)), Step::HalfClose],
        ),
        steps(
            "the client closes its side within a request",
            [write(&three), write("GET /thr"), Step::HalfClose],
        ),
        steps(
            "the client closes its side and says nothing",
            [Step::HalfClose],
        ),
    ]
}

/// The app behind each server, by name; the first is the measure.
async fn servers() -> Vec<(&'static str, SocketAddr)> {
    let any_port = || async { TcpListener::bind("127.0.0.1:0").await.expect("a free port") };
    let mut servers = Vec::new();

    let tcp = any_port().await;
    servers.push(("axum::serve", tcp.local_addr().expect("it is bound")));
    tokio::spawn(async move { axum::serve(tcp, app()).await });

    let tcp = any_port().await;
    servers.push((
        "axum::serve over our listener",
        tcp.local_addr().expect("it is bound"),
    ));
    tokio::spawn(async move { axum::serve(listener(tcp), app()).await });

    let ours = bind("127.0.0.1:0").await.expect("a free port");
    servers.push(("tidings::serve", ours.local_addr().expect("it is bound")));
    tokio::spawn(async move { serve(ours, app()).await });

    #[cfg(feature = "http2")]
    {
        let ours = bind("127.0.0.1:0").await.expect("a free port");
        servers.push((
            "tidings::serve, HTTP/2 as well",
            ours.local_addr().expect("it is bound"),
        ));
        tokio::spawn(async move { serve(ours, app()).http2(true).await });
    }
    servers
}

/// One thread, so that what a client does without waiting is there when a server looks.
#[tokio::test]
async fn the_same_bytes_are_answered_with_the_same_bytes() {
    let cases: Vec<_> = [responses(), requests(), connections()]
        .into_iter()
        .flatten()
        .collect();
    let names: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len(), "two cases have one name");
    for (name, _, _) in INTENDED {
        assert!(names.contains(&name.to_string()), "no case is {name:?}");
    }

    let servers = servers().await;
    let (_, plain) = servers[0];
    let mut wrong = Vec::new();
    for case in &cases {
        let measure = exchange(plain, &case.steps).await;
        assert!(!measure.ends_with(OPEN), "{}: {measure}", case.name);
        for (server, addr) in &servers[1..] {
            let answer = exchange(*addr, &case.steps).await;
            let is_ours = server.starts_with("tidings");
            let intended = INTENDED
                .iter()
                .find(|(name, _, _)| is_ours && *name == case.name);
            let is_right = match intended {
                Some((_, begin, _)) => answer.starts_with(begin) && answer != measure,
                None => answer == measure,
            };
            if !is_right {
                wrong.push(format!(
                    "{}, {server}:\n  {answer:?}\n  not as hyper by itself:\n  {measure:?}",
                    case.name
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

/// As those of version 2, which hyper knows.
#[tokio::test]
async fn a_response_of_a_version_that_hyper_does_not_know_is_sent_as_one_of_1_1() {
    for (server, addr) in servers().await {
        if !server.starts_with("tidings") {
            continue;
        }
        let answer = async |path: &str| exchange(addr, &case(path, get(path)).steps).await;
        for kind in ["version", "plain-version"] {
            let known = answer(&format!("/{kind}/2")).await;
            assert!(known.starts_with("HTTP/1.1 200 OK\r\n"), "{known}");
            for version in ["0.9", "3"] {
                let path = format!("/{kind}/{version}");
                assert_eq!(answer(&path).await, known, "{server}: {path}");
            }
        }
    }
}

#[tokio::test]
async fn a_stream_of_version_1_0_is_ended_by_the_close_and_has_no_chunks() {
    for (server, addr) in servers().await {
        let steps = [write(&format!("{}{LAST}", get("/version/1.0")))];
        let answer = exchange(addr, &steps).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{server}: {head}");
        assert!(!head.contains("transfer-encoding"), "{server}: {head}");
        assert_eq!(body, "onetwothree", "{server}");
    }
}

#[tokio::test]
async fn announced_trailers_arrive_where_the_client_wants_them() {
    for (server, addr) in servers().await {
        let request = get_with("/trailers/one", "te: trailers\r\n");
        let answer = exchange(addr, &[write(&format!("{request}{LAST}"))]).await;
        assert!(
            answer.contains("3\r\none\r\n3\r\ntwo\r\n0\r\nx-sum: 42\r\n\r\nHTTP/1.1 200 OK\r\n"),
            "{server}: {answer}"
        );
    }
}
