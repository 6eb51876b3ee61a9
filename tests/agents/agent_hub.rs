//! The example `agent_hub` over HTTP: every route, every refusal, and the process itself.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tidings_testkit::{Item, SseClient, SseRequest, Stalled};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

use crate::support::hub::{Hub, within};
use crate::support::process::{Process, program};
use crate::support::prometheus::Page;

/// A request for a user's stream of texts, and where to send it.
fn stream_of(hub: &Hub, user: &str) -> (SseRequest, SocketAddr) {
    let url = hub.url(&["users", user, "streams", "text"]);
    let addrs = url.socket_addrs(|| None).expect("an address");
    (SseRequest::get(url.path()), addrs[0])
}

async fn open(hub: &Hub, user: &str) -> SseClient {
    let (request, addr) = stream_of(hub, user);
    let opened = request.connect(addr).await;
    opened.unwrap_or_else(|error| panic!("{user:?}: {error}"))
}

/// A client that opens ann's stream and reads nothing but the head.
async fn open_and_stall(hub: &Hub) -> Stalled {
    let (request, addr) = stream_of(hub, "ann");
    let opened = request.receive_buffer(16 * 1024).connect(addr).await;
    opened.expect("a stream").stall()
}

async fn next_text(client: &mut SseClient) -> String {
    let event = client.next().await;
    assert_eq!((&*event.event, &*event.id, event.retry), ("text", "", None));
    event.data
}

async fn next_texts(client: &mut SseClient, count: usize) -> Vec<String> {
    let mut texts = Vec::new();
    while texts.len() < count {
        texts.push(next_text(client).await);
    }
    texts
}

async fn get(hub: &Hub, path: &[&str]) -> Response {
    let response = hub.client.get(hub.url(path)).send();
    within("a response", response).await.expect("a response")
}

async fn stats(hub: &Hub) -> Value {
    get(hub, &["stats"]).await.json().await.expect("JSON")
}

/// Asserts that the response is this refusal, with a sentence that says `hint`.
async fn assert_refused(response: Response, status: u16, hint: &str) {
    let found = response.status();
    let sentence = response.text().await.expect("a body");
    assert_eq!(found, status, "{sentence}");
    assert!(sentence.contains(hint), "{sentence:?} lacks {hint:?}");
}

#[tokio::test]
async fn users_get_their_own_events_in_order_while_posts_interleave() {
    // Fewer than a ring holds: a client that is slow today must not fail a test that asks for something else.
    const EACH: usize = 50;
    let hub = Hub::start().await;
    let mut ann = open(&hub, "ann").await;
    let mut bob = open(&hub, "bob").await;
    let mut eve = open(&hub, "eve").await;

    let texts = |user: &str| -> Vec<String> { (0..EACH).map(|n| format!("{user} {n}")).collect() };
    let post = async |user: &str| {
        for text in texts(user) {
            assert_eq!(hub.send(user, &text).await, 1);
        }
    };
    tokio::join!(post("ann"), post("bob"), post("eve"));

    assert_eq!(next_texts(&mut ann, EACH).await, texts("ann"));
    assert_eq!(next_texts(&mut bob, EACH).await, texts("bob"));
    assert_eq!(next_texts(&mut eve, EACH).await, texts("eve"));
    // There is nothing else in any of them.
    for (user, events) in [("ann", &mut ann), ("bob", &mut bob), ("eve", &mut eve)] {
        assert_eq!(
            hub.post(&["users", user, "end"]).await,
            json!({ "ended": 1 })
        );
        events.expect_end().await;
    }
}

#[tokio::test]
async fn all_streams_of_a_user_get_the_event() {
    let hub = Hub::start().await;
    let mut first = open(&hub, "ann").await;
    let mut second = open(&hub, "ann").await;
    assert_eq!(hub.send("ann", "hello").await, 2);
    assert_eq!(next_text(&mut first).await, "hello");
    assert_eq!(next_text(&mut second).await, "hello");
    assert_eq!(hub.send("nobody", "hello").await, 0);
}

#[tokio::test]
async fn a_stream_has_the_headers_that_keep_it_from_being_buffered() {
    let hub = Hub::start().await;
    let response = get(&hub, &["users", "ann", "streams", "text"]).await;
    assert_eq!(response.status(), 200);
    let headers = response.headers();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["cache-control"], "no-cache, no-transform");
    assert_eq!(headers["x-accel-buffering"], "no");
    assert_eq!(headers["transfer-encoding"], "chunked");
}

#[tokio::test]
async fn text_arrives_as_it_was_sent_but_for_the_kind_of_its_line_breaks() {
    let hub = Hub::start().await;
    let mut events = open(&hub, "ann").await;
    let long_line = "0123456789abcdef".repeat(1 << 16);
    let many_lines = "a line of 31 characters + CRLF\r\n".repeat(1 << 15);
    let texts = [
        "",
        " leading and trailing ",
        "one\ntwo\rthree\r\nfour",
        "\r\r\n\n\n\r",
        "\n",
        "a null \0, a bell \u{7}, an escape \u{1b}",
        "next line \u{85}, line \u{2028} and paragraph \u{2029} separators",
        "\u{feff}not a byte order mark",
        "👩‍👩‍👧‍👦 ไทย עברית \u{10ffff}",
        "data: looks\nevent: like\nid: fields\n: of its own",
        "<script>alert(1)</script> & \"quotes\"",
        &long_line,
        &many_lines,
    ];
    for text in texts {
        assert_eq!(hub.send("ann", text).await, 1);
        let expected = text.replace("\r\n", "\n").replace('\r', "\n");
        let found = next_text(&mut events).await;
        // Not `assert_eq!`: it would print a mebibyte twice.
        assert!(
            found == expected,
            "{:?}",
            text.chars().take(80).collect::<String>()
        );
    }
}

#[tokio::test]
async fn text_may_be_given_in_escapes() {
    let hub = Hub::start().await;
    let mut events = open(&hub, "ann").await;
    let body = r#"{"text": "\u0000 \u2028 \ud83d\ude00 \r\n.", "more": "is ignored"}"#;
    let response = hub
        .client
        .post(hub.url(&["users", "ann", "events", "text"]))
        .header("content-type", "application/json; charset=utf-8")
        .body(body)
        .send()
        .await
        .expect("a response");
    assert_eq!(response.status(), 200);
    assert_eq!(next_text(&mut events).await, "\0 \u{2028} 😀 \n.");
}

#[tokio::test]
async fn any_text_names_a_user() {
    let hub = Hub::start().await;
    let users = [
        "a/b",
        "a%2Fb",
        "with spaces",
        "👩‍🚀",
        "?query#fragment&+",
        "é",
        "e\u{301}",
        "\0\r\n",
        "drop",
    ];
    let mut streams = Vec::new();
    for user in users {
        streams.push(open(&hub, user).await);
    }
    assert_eq!(stats(&hub).await["users"], users.len());
    for user in users {
        assert_eq!(hub.send(user, user).await, 1, "{user:?}");
    }
    for (user, events) in users.iter().zip(&mut streams) {
        assert_eq!(next_text(events).await, user.replace("\r\n", "\n"));
        assert_eq!(hub.post(&["users", user, "end"]).await["ended"], 1);
        events.expect_end().await;
    }
}

#[tokio::test]
async fn a_user_that_is_not_utf8_is_refused() {
    let hub = Hub::start().await;
    let url = format!("{}users/%ff/streams/text", hub.url(&[]));
    let response = hub.client.get(url).send().await.expect("a response");
    assert_refused(response, 400, "UTF-8").await;
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let hub = Hub::start().await;
    let response = get(&hub, &["users", "ann", "streams", "smoke"]).await;
    assert_refused(response, 404, "\"smoke\"").await;
    let response = get(&hub, &["nothing", "here"]).await;
    assert_refused(response, 404, "/nothing/here").await;
    let response = hub
        .client
        .post(hub.url(&["users", "ann", "events", "smoke"]))
        .json(&json!({ "text": "hello" }))
        .send()
        .await
        .expect("a response");
    assert_refused(response, 404, "\"smoke\"").await;
    assert_eq!(stats(&hub).await["registered"], 0);
}

#[tokio::test]
async fn a_bad_body_is_refused_with_a_sentence_and_reaches_nobody() {
    let hub = Hub::start().await;
    let mut events = open(&hub, "ann").await;
    let json = Some("application/json");
    let cases = [
        (json, "", "JSON object"),
        (json, "hello", "JSON object"),
        (json, r#"{"text": "hello""#, "JSON object"),
        (json, r#"{"text": "hello"} and more"#, "JSON object"),
        (json, r#"{"text": "\ud800"}"#, "JSON object"),
        (json, r#"["hello"]"#, "JSON object"),
        (json, r#""hello""#, "JSON object"),
        (json, "null", "JSON object"),
        (json, "{}", "missing"),
        (json, r#"{"Text": "hello"}"#, "missing"),
        (json, r#"{"text": null}"#, "string"),
        (json, r#"{"text": 1}"#, "string"),
        (json, r#"{"text": ["hello"]}"#, "string"),
        (None, "hello", "JSON object"),
        (Some("text/plain"), r#"{"text": "hello"}"#, "content type"),
        (Some(""), r#"{"text": "hello"}"#, "content type"),
        (
            Some("application/x-www-form-urlencoded"),
            r#"{"text": "hello"}"#,
            "content type",
        ),
    ];
    for (content_type, body, hint) in cases {
        let request = hub
            .client
            .post(hub.url(&["users", "ann", "events", "text"]));
        let request = match content_type {
            Some(content_type) => request.header("content-type", content_type),
            None => request,
        };
        let response = request.body(body).send().await.expect("a response");
        assert_refused(response, 400, hint).await;
    }
    let not_utf8 = &b"{\"text\": \"\xff\"}"[..];
    let request = hub
        .client
        .post(hub.url(&["users", "ann", "events", "text"]));
    let response = request.body(not_utf8).send().await.expect("a response");
    assert_refused(response, 400, "JSON object").await;

    assert_eq!(stats(&hub).await["broadcasts"], 0);
    assert_eq!(hub.send("ann", "good").await, 1);
    assert_eq!(next_text(&mut events).await, "good");
}

#[tokio::test]
async fn a_body_needs_no_content_type_and_may_have_a_kin_of_json() {
    let hub = Hub::start().await;
    let mut events = open(&hub, "ann").await;
    for content_type in [None, Some("Application/JSON"), Some("application/ld+json")] {
        let request = hub
            .client
            .post(hub.url(&["users", "ann", "events", "text"]));
        let request = match content_type {
            Some(content_type) => request.header("content-type", content_type),
            None => request,
        };
        let body = r#"{"text": "hello"}"#;
        let response = request.body(body).send().await.expect("a response");
        assert_eq!(response.status(), 200, "{content_type:?}");
        let answer: Value = response.json().await.expect("JSON");
        assert_eq!(answer, json!({ "reached": 1 }));
        assert_eq!(next_text(&mut events).await, "hello");
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_too_large() {
    let hub = Hub::start().await;
    let mut events = open(&hub, "ann").await;
    // One byte too many: the server has read everything when it answers, so the answer cannot get lost in a reset.
    let frame = r#"{"text":""}"#.len();
    let body = |len: usize| json!({ "text": "x".repeat(len - frame) }).to_string();
    let limit = 2 * 1024 * 1024;
    for (len, status) in [
        (limit, StatusCode::OK),
        (limit + 1, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let response = hub
            .client
            .post(hub.url(&["users", "ann", "events", "text"]))
            .header("content-type", "application/json")
            .body(body(len))
            .send();
        let response = within("a response", response).await.expect("a response");
        assert_eq!(response.status(), status);
        assert!(!response.text().await.expect("a body").is_empty());
    }
    assert_eq!(next_text(&mut events).await.len(), limit - frame);
    assert_eq!(hub.send("ann", "after").await, 1);
    assert_eq!(next_text(&mut events).await, "after");
}

#[tokio::test]
async fn a_full_user_is_refused_and_the_streams_that_are_there_do_not_notice() {
    let hub = Hub::start().await;
    let mut ten = Vec::new();
    for _ in 0..10 {
        ten.push(open(&hub, "ann").await);
    }
    let response = get(&hub, &["users", "ann", "streams", "text"]).await;
    let after = retry_after(response.headers());
    assert!((1..=60).contains(&after), "{after}");
    assert_refused(response, 429, "cap").await;

    assert_eq!(hub.send("ann", "still here").await, 10);
    for events in &mut ten {
        assert_eq!(next_text(events).await, "still here");
    }
    let stats = stats(&hub).await;
    assert_eq!(
        (&stats["connections"], &stats["refused"]),
        (&json!(10), &json!(1))
    );
    // The cap is each user's own.
    open(&hub, "bob").await;
}

fn retry_after(headers: &HeaderMap) -> u32 {
    let value = headers[RETRY_AFTER].to_str().expect("ASCII");
    value.parse().expect("whole seconds")
}

#[tokio::test]
async fn dropped_connections_break_and_ended_ones_end() {
    let hub = Hub::start().await;
    let mut bob = open(&hub, "bob").await;
    for round in 0..3 {
        let mut first = open(&hub, "ann").await;
        let mut second = open(&hub, "ann").await;
        // Read, so that it is not the headers that are missing.
        assert_eq!(hub.send("ann", "before").await, 2);
        assert_eq!(next_text(&mut first).await, "before");
        assert_eq!(next_text(&mut second).await, "before");
        let dropped = hub.post(&["users", "ann", "drop"]).await;
        assert_eq!(dropped, json!({ "dropped": 2 }), "round {round}");
        let stats = stats(&hub).await;
        assert_eq!(
            (&stats["users"], &stats["connections"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(first.expect_break().await, []);
        assert_eq!(second.expect_break().await, []);

        // Nothing of the cut is left for those that come after.
        let mut third = open(&hub, "ann").await;
        assert_eq!(hub.send("ann", "again").await, 1);
        assert_eq!(
            hub.post(&["users", "ann", "end"]).await,
            json!({ "ended": 1 })
        );
        // An end lets through what was sent before it.
        assert_eq!(next_text(&mut third).await, "again");
        third.expect_end().await;
    }
    assert_eq!(hub.post(&["users", "ann", "drop"]).await["dropped"], 0);
    assert_eq!(hub.post(&["users", "ann", "end"]).await["ended"], 0);
    assert_eq!(hub.send("bob", "undisturbed").await, 1);
    assert_eq!(next_text(&mut bob).await, "undisturbed");
}

#[tokio::test]
async fn a_client_that_leaves_is_removed() {
    let hub = Hub::start().await;
    let events = open(&hub, "ann").await;
    assert_eq!(stats(&hub).await["connections"], 1);
    drop(events);
    // When the server notices is up to the sockets; there is nothing to wait for but the figure itself.
    let gone = async {
        while stats(&hub).await["connections"] != 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("no connection", gone).await;
    assert_eq!(stats(&hub).await["users"], 0);
}

#[tokio::test]
async fn stats_count_what_happened() {
    let hub = Hub::start().await;
    let mut first = open(&hub, "ann").await;
    let _second = open(&hub, "ann").await;
    let _bob = open(&hub, "bob").await;
    hub.send("ann", "one").await;
    hub.send("ann", "two").await;
    hub.send("nobody", "three").await;
    next_texts(&mut first, 2).await;
    let mut expected = json!({
        "users": 2,
        "connections": 3,
        "registered": 3,
        "refused": 0,
        "broadcasts": 3,
        "encoded": 2,
        "failed": 0,
        "deliveries": 4,
        "lagged": 0,
        "away": 0,
        "away_bytes": 0,
        "healed": 0,
        "replayed": 0,
        "evicted": 0,
        "history_bytes": 0,
        "encoded_bytes": 2 * "event: text\ndata: one\n\n".len(),
        "refusals": { "user_full": 0, "total_full": 0, "id_in_use": 0, "shutting_down": 0 },
        "ended": {
            "dropped": 0, "completed": 0, "unregistered": 0, "disconnected": 0, "drained": 0,
            "forgotten": 0, "behind": 0, "gap": 0, "deadline": 0, "shutdown": 0,
        },
        "gaps": { "lagged": 0, "evicted": 0, "epoch": 0, "backplane": 0 },
        "backplane": null,
    });
    // The other kinds have figures of their own.
    let mut idle = expected.clone();
    for (_, figure) in idle.as_object_mut().expect("an object") {
        if figure.is_number() {
            *figure = json!(0);
        }
    }
    for kind in ["agui", "a2a", "context", "analytics", "runs", "aisdk"] {
        expected[kind] = idle.clone();
    }
    assert_eq!(stats(&hub).await, expected);
}

async fn read_until(response: &mut Response, what: &str) {
    let mut read = String::new();
    while !read.contains(what) {
        let chunk = within(what, response.chunk()).await.expect("bytes");
        read.push_str(std::str::from_utf8(&chunk.expect("it is open")).expect("UTF-8"));
    }
}

#[tokio::test]
async fn the_metrics_count_what_happens_and_names_nobody() {
    /// Found wherever it stands.
    const USER: &str = "telltale-user-4711";
    const BROADCASTERS: [&str; 7] = [
        "text",
        "agui",
        "a2a",
        "context",
        "analytics",
        "runs",
        "aisdk",
    ];

    let process = Process::start(&["--history", "10"]).await;
    let hub = &process.hub;
    let before = Page::of(hub).await;
    for broadcaster in BROADCASTERS {
        for metric in ["connections", "broadcasts_total", "history_bytes"] {
            let series = format!("tidings_{metric}{{broadcaster=\"{broadcaster}\"}}");
            assert_eq!(before.get(&series), 0.0);
        }
    }

    let url = hub.url(&["users", USER, "streams", "text"]);
    let mut stream = hub.client.get(url).send().await.expect("a stream");
    for n in 0..200 {
        assert_eq!(hub.send(USER, &format!("{n}")).await, 1);
    }
    hub.send("nobody", "not sent").await;
    read_until(&mut stream, "data: 199\n\n").await;
    // Nine more are let in, the next one is not; one comes back with an id of no history.
    let mut others = Vec::new();
    for n in 0..10 {
        let url = hub.url(&["users", USER, "streams", "text"]);
        let request = hub.client.get(url).header("last-event-id", "of-no-history");
        let response = request.send().await.expect("a response");
        assert_eq!(response.status(), if n < 9 { 200 } else { 429 });
        others.push(response);
    }
    // Its gap is counted when it is told.
    read_until(&mut others[0], "event: gap\n").await;

    let after = Page::of(hub).await;
    let text = |metric: &str| after.get(&format!("tidings_{metric}{{broadcaster=\"text\"}}"));
    assert_eq!(text("connections"), 10.0);
    assert_eq!(text("users"), 1.0);
    assert_eq!(text("registered_total"), 10.0);
    assert_eq!(text("broadcasts_total"), 201.0);
    assert_eq!(text("encoded_total"), 200.0);
    assert_eq!(text("deliveries_total"), 200.0);
    assert!(text("encoded_bytes_total") >= 200.0 * "event: text\ndata: 1\n\n".len() as f64);
    // Ten events, each with 128 bytes for its management.
    assert!(text("history_bytes") > 10.0 * 128.0);
    let refused = |reason: &str| {
        let series = format!("tidings_refused_total{{broadcaster=\"text\",reason=\"{reason}\"}}");
        after.get(&series)
    };
    assert_eq!((refused("user_full"), refused("total_full")), (1.0, 0.0));
    let gaps = after.get("tidings_gaps_total{broadcaster=\"text\",reason=\"epoch\"}");
    assert!((1.0..=9.0).contains(&gaps), "{gaps}");
    let stalls = after.get("tidings_stalls_total{what=\"socket\",reason=\"stalled\"}");
    assert_eq!(stalls, 0.0);
    // The first event of a thread is sampled, and one in 64 after it. Each went to one stream.
    let sampled = text("fanout_streams_count");
    assert!((1.0..=200.0).contains(&sampled));
    assert_eq!(text("fanout_streams_sum"), sampled);
    assert_eq!(text("publish_to_write_seconds_count"), sampled);
    for other in ["agui", "a2a", "context", "analytics", "runs", "aisdk"] {
        let series = format!("tidings_broadcasts_total{{broadcaster=\"{other}\"}}");
        assert_eq!(after.get(&series), 0.0);
    }
    for (name, kind) in [
        ("tidings_connections", "gauge"),
        ("tidings_deliveries_total", "counter"),
        ("tidings_publish_to_write_seconds", "histogram"),
    ] {
        assert_eq!(after.types[name], kind);
        assert!(after.text.contains(&format!("# HELP {name} ")));
    }
    assert!(!after.text.contains("telltale") && !after.text.contains("nobody"));

    drop((stream, others));
    assert_eq!(
        hub.post(&["users", USER, "end"]).await["ended"]
            .as_u64()
            .map(|n| n <= 10),
        Some(true)
    );
    let mut present = json!(null);
    let left = async {
        while present != json!(0.0) {
            present = json!(
                Page::of(hub)
                    .await
                    .get("tidings_connections{broadcaster=\"text\"}")
            );
        }
    };
    within("all have left", left).await;
}

#[tokio::test]
async fn the_page_needs_no_other_host() {
    let hub = Hub::start().await;
    let response = get(&hub, &[]).await;
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()["content-type"],
        "text/html; charset=utf-8"
    );
    let page = response.text().await.expect("a body");
    assert!(page.starts_with("<!doctype html>"));
    assert!(!page.contains("http:") && !page.contains("https:") && !page.contains("//cdn"));
}

#[cfg(unix)]
#[tokio::test]
async fn the_process_ends_its_streams_and_exits_on_sigterm() {
    for signal in ["TERM", "INT"] {
        let mut process = Process::start(&["--history", "0", "--drain-ms", "200"]).await;
        let mut events = open(&process.hub, "ann").await;
        let mut other = open(&process.hub, "bob").await;
        assert_eq!(process.hub.send("ann", "last words").await, 1);
        process.signal(signal).await;
        assert_eq!(next_text(&mut events).await, "last words");
        events.expect_end().await;
        other.expect_end().await;
        assert_eq!(process.exit().await.code(), Some(0), "{signal}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_and_the_others_get_everything() {
    let process = Process::start(&["--history", "0", "--stall-ms", "300"]).await;
    let stalled = open_and_stall(&process.hub).await;
    let mut healthy = open(&process.hub, "ann").await;
    let mut sent = 0;
    let cut = async {
        while stats(&process.hub).await["connections"] != 1 {
            sent += 1;
            let text = format!("{sent} {}", "x".repeat(100_000));
            process.hub.send("ann", &text).await;
            assert_eq!(next_text(&mut healthy).await, text, "in order");
        }
    };
    within("the cut", cut).await;
    assert!(sent > 1);
    stalled.resume_reading().expect_break().await;
    assert_eq!(process.hub.send("ann", "after").await, 1);
    assert_eq!(next_text(&mut healthy).await, "after");
}

#[cfg(unix)]
#[tokio::test]
async fn the_process_exits_whatever_its_clients_do() {
    let mut process = Process::start(&["--history", "0", "--drain-ms", "300"]).await;
    let stalled = open_and_stall(&process.hub).await;
    let (_, addr) = stream_of(&process.hub, "ann");
    let mut half_a_head = TcpStream::connect(addr).await.expect("a connection");
    half_a_head
        .write_all(b"GET / HT")
        .await
        .expect("it is taken");
    let silent = TcpStream::connect(addr).await.expect("a connection");
    let mut healthy = open(&process.hub, "ann").await;
    for number in 0..20 {
        let text = format!("{number} {}", "x".repeat(500_000));
        process.hub.send("ann", &text).await;
        assert_eq!(next_text(&mut healthy).await, text);
    }
    process.hub.send("ann", "last words").await;
    process.signal("TERM").await;
    assert_eq!(next_text(&mut healthy).await, "last words");
    healthy.expect_end().await;
    assert_eq!(process.exit().await.code(), Some(0));
    drop((stalled, half_a_head, silent));
}

#[tokio::test]
async fn the_process_prints_what_to_try() {
    let mut process = Process::start(&[]).await;
    let url = process.hub.url(&["users", "ann", "streams", "text"]);
    let printed = async {
        while let Some(line) = process.stdout.next_line().await.expect("UTF-8") {
            if line.contains(&format!("curl -N {url}")) {
                return;
            }
        }
        panic!("no curl line was printed");
    };
    within("the curl line", printed).await;
}

#[tokio::test]
async fn a_silent_stream_carries_comments_at_the_interval_that_was_asked_for() {
    let process = Process::start(&["--history", "0", "--heartbeat-ms", "20"]).await;
    let mut client = open(&process.hub, "ann").await;
    for _ in 0..3 {
        assert_eq!(client.next_item().await, Item::Comment(String::new()));
    }
}

#[tokio::test]
async fn invalid_arguments_are_reported_and_exit_with_2() {
    let cases: [(&[&str], &str); 21] = [
        (&["--host", "hub.example:81"], "host name"),
        (&["--host", ""], "host name"),
        (&["--host", "http://hub.example"], "host name"),
        (&["--public-url", "hub.example"], "https://HOST"),
        (&["--public-url", "ftp://hub.example"], "https://HOST"),
        (
            &["--public-url", "https://hub.example/?a=b"],
            "https://HOST",
        ),
        (&["--adr", "127.0.0.1:0"], "--adr"),
        (&["now"], "now"),
        (&["--addr"], "--addr"),
        (&["--addr", "127.0.0.1"], "HOST:PORT"),
        (&["--addr", "127.0.0.1:65536"], "HOST:PORT"),
        (&["--addr", "::1"], "HOST:PORT"),
        (&["--heartbeat-ms", "soon"], "whole number"),
        (&["--heartbeat-ms", "0"], "whole number"),
        (&["--heartbeat-ms=-1"], "whole number"),
        (&["--history"], "--history"),
        (&["--history", "all"], "whole number, 0 or more"),
        (&["--history=-1"], "whole number, 0 or more"),
        (&["--history", "18446744073709551616"], "whole number"),
        (&["--linger-ms", "0"], "whole number of milliseconds"),
        (&["--linger-ms", "a while"], "whole number of milliseconds"),
    ];
    for (args, hint) in cases {
        let output = program().args(args).kill_on_drop(true).output();
        let output = within("an exit", output).await.expect("it runs");
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(hint), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[tokio::test]
async fn help_is_printed_and_is_no_error() {
    let output = program().arg("--help").kill_on_drop(true).output();
    let output = within("an exit", output).await.expect("it runs");
    assert_eq!(output.status.code(), Some(0));
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    for option in [
        "--addr",
        "--heartbeat-ms",
        "--history",
        "--linger-ms",
        "--host",
        "--public-url",
        "--forwarded",
        "--read-only",
        "--help",
    ] {
        assert!(stdout.contains(option), "{stdout}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_reported() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = taken.local_addr().expect("an address").to_string();
    let output = program()
        .args(["--addr", &addr])
        .kill_on_drop(true)
        .output();
    let output = within("an exit", output).await.expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(stderr.contains(&addr), "{stderr}");
}

/// curl, which shows the bytes of a stream and tells a break from an end by its exit code.
struct Curl {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Curl {
    /// Opens a stream and waits until it is open.
    async fn stream(hub: &Hub, user: &str) -> Self {
        let mut child = curl()
            // Not `--include`, which holds the headers back until there are events.
            .args(["-N", "--dump-header", "-"])
            .arg(hub.url(&["users", user, "streams", "text"]).as_str())
            .stdout(Stdio::piped())
            .spawn()
            .expect(INSTALL_CURL);
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let read = within("the headers", stdout.read_line(&mut head)).await;
            assert_ne!(read.expect("UTF-8"), 0, "curl ended after {head:?}");
        }
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head:?}");
        let mut curl = Self { child, stdout };
        // As it begins while there is no event.
        curl.assert_reads(":\n").await;
        curl
    }

    async fn assert_reads(&mut self, expected: &str) {
        let mut found = vec![0; expected.len()];
        let read = within("bytes", self.stdout.read_exact(&mut found)).await;
        read.expect("the stream is open");
        assert_eq!(String::from_utf8_lossy(&found), expected);
    }

    async fn exit_code(mut self) -> Option<i32> {
        let status = within("curl's exit", self.child.wait()).await;
        status.expect("it can be waited for").code()
    }
}

const INSTALL_CURL: &str = "curl runs; if it is missing: apt-get install curl";

fn curl() -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--noproxy", "*"]).kill_on_drop(true);
    curl
}

#[tokio::test]
async fn curl_streams_and_posts_and_can_tell_an_end_from_a_break() {
    let hub = Hub::start().await;
    let mut ends = Curl::stream(&hub, "ann").await;
    let mut breaks = Curl::stream(&hub, "bob").await;
    for user in ["ann", "bob"] {
        let output = curl()
            .args(["--json", r#"{"text": "two\r\nlines"}"#])
            .arg(hub.url(&["users", user, "events", "text"]).as_str())
            .output();
        let output = within("curl", output).await.expect(INSTALL_CURL);
        assert_eq!(String::from_utf8_lossy(&output.stdout), r#"{"reached":1}"#);
    }
    let event = "event: text\ndata: two\ndata: lines\n\n";
    ends.assert_reads(event).await;
    breaks.assert_reads(event).await;

    hub.post(&["users", "ann", "end"]).await;
    hub.post(&["users", "bob", "drop"]).await;
    assert_eq!(ends.exit_code().await, Some(0));
    // CURLE_PARTIAL_FILE.
    assert_eq!(breaks.exit_code().await, Some(18));
}

#[cfg(unix)]
#[tokio::test]
async fn the_console_is_there_if_asked_for_and_does_not_hold_up_the_end() {
    let plain = Process::start(&[]).await;
    let found = plain
        .hub
        .client
        .get(plain.hub.url(&["console"]))
        .send()
        .await;
    assert_eq!(found.expect("a response").status(), 404);

    let mut process = Process::start(&["--console", "--drain-ms", "100"]).await;
    let page = process
        .hub
        .client
        .get(process.hub.url(&["console"]))
        .send()
        .await;
    let page = page.expect("a response");
    assert_eq!(
        (page.status().as_u16(), page.url().path()),
        (200, "/console/page")
    );
    let live = process
        .hub
        .client
        .get(process.hub.url(&["console", "live"]));
    let mut live = live.send().await.expect("a response");
    let mut first = String::new();
    while !first.contains("\n\n") {
        let chunk = within("figures", live.chunk()).await.expect("a chunk");
        first += std::str::from_utf8(&chunk.expect("a chunk")).expect("UTF-8");
    }
    for name in [
        "text",
        "agui",
        "a2a",
        "context",
        "analytics",
        "runs",
        "aisdk",
    ] {
        assert!(first.contains(&format!("\"name\":\"{name}\"")), "{first}");
    }
    process.signal("TERM").await;
    assert_eq!(process.exit().await.code(), Some(0));
    while within("the end", live.chunk())
        .await
        .expect("a clean end")
        .is_some()
    {}
}
