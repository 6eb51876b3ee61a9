//! What comes from outside cannot forge a line of the log: users, ids and errors are logged as values that a subscriber
//! escapes, never as text that it writes as it is.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use bytes::Bytes;
use serde_json::json;
use tidings::backplane::{
    Backplane, BackplaneError, Cause, Event, Level, Message, Published, Received,
};
use tidings::protocol::agui::{self, RunRef, RunView};
use tidings::sse::SseResponse;
use tidings::{
    ConnectionId, Data, EncodeError, GenericBroadcaster, SseBody, Subscription, Text, ToSse, UserId,
};
use tidings_console::Console;
use tidings_testkit::backplane::{InProcess, InProcessNode};
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt};
use tower::ServiceExt;
use tracing_subscriber::EnvFilter;

use crate::support::wrapped::{Answers, Wrapped};

/// Ends the line, forges one, and takes over the terminal: C0, C1, a line separator, and text that runs backwards.
const HOSTILE: &str =
    "ann\r\n2026-01-01T00:00:00Z  INFO forged: all is well\u{1b}[2J\u{7}\u{9b}31m\u{2028}\u{202e}";

/// What the subscriber of this process has written.
#[derive(Clone)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic in here").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log(Arc::default());
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("tidings=trace"))
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .init();
    log
});

impl Log {
    fn text(&self) -> String {
        let bytes = self.0.lock().expect("no panic in here").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    /// That these have been logged, each on a line that holds the hostile text, escaped; and that no line is another's.
    fn assert_logged(&self, what: &[&str]) {
        let text = self.text();
        for line in text.lines() {
            let is_ours = line.contains(" tidings::") || line.contains(" tidings_console::");
            assert!(is_ours, "a line of nobody's: {line:?}");
            let raw = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{202e}');
            assert!(!line.contains(raw), "{line:?}");
        }
        for what in what {
            let mut lines = text.lines().filter(|line| line.contains(what));
            let holds = |line: &str| line.contains(r"ann\r\n2026") && line.contains(r"\u{1b}[2J");
            assert!(lines.any(holds), "{what:?} is not in {text}");
        }
    }
}

/// An event of the service whose methods fail.
enum Faulty {
    Error,
    Panic,
}

impl ToSse for Faulty {
    fn data(&self, _: &mut Data<'_>) -> Result<(), EncodeError> {
        match self {
            Self::Error => Err(EncodeError::other(io::Error::other(HOSTILE))),
            Self::Panic => panic!("as it was asked for"),
        }
    }
}

fn hub() -> GenericBroadcaster<Text> {
    let hub = GenericBroadcaster::builder()
        .ring_capacity(2)
        .connections_per_user(2);
    hub.build().expect("valid")
}

fn tab(hub: &GenericBroadcaster<Text>) -> Subscription {
    hub.register_as(HOSTILE, HOSTILE).expect("room")
}

fn text(text: &str) -> Text {
    Text::new(text)
}

#[tokio::test(start_paused = true)]
async fn a_connections_lines_hold_its_user_and_id_escaped() {
    let log = LOG.clone();
    let hub = hub();
    drop(tab(&hub));
    log.assert_logged(&["registered", r#"left reason="dropped""#]);

    let first = tab(&hub);
    hub.register_as(HOSTILE, HOSTILE).expect_err("in use");
    hub.observe(HOSTILE, HOSTILE).expect_err("in use");
    log.assert_logged(&["refused"]);
    assert_eq!(log.text().matches(": refused user=").count(), 2);

    assert!(hub.unregister(HOSTILE, &ConnectionId::from(HOSTILE)));
    drop(first);
    let second = tab(&hub);
    hub.drain_user(HOSTILE);
    drop(second);
    let third = tab(&hub);
    hub.disconnect_user(HOSTILE);
    drop(third);
    hub.forget(HOSTILE);
    log.assert_logged(&["unregistered", "drained", "disconnected", "forgotten"]);
    log.assert_logged(&[
        r#"left reason="unregistered""#,
        r#"left reason="drained""#,
        r#"left reason="disconnected""#,
    ]);

    let mut lagging = tab(&hub);
    for n in 0..5 {
        hub.broadcast(HOSTILE, &text(&n.to_string())).expect("text");
    }
    lagging.next().await.expect("a gap").expect_err("a gap");
    let mut short = lagging.deadline(Instant::now() + Duration::from_secs(1));
    while short.next().await.is_some() {}
    log.assert_logged(&["gap", "deadline"]);

    let mut traced = SseBody::new(hub.register(HOSTILE).expect("room"));
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    hub.broadcast_traced(HOSTILE, &text("x"), parent.parse().expect("it is one"))
        .expect("text");
    http_body_util::BodyExt::frame(&mut traced).await;
    log.assert_logged(&["traceparent"]);
}

#[tokio::test]
async fn an_events_failure_is_logged_with_its_causes_escaped() {
    let log = LOG.clone();
    let hub = GenericBroadcaster::<Faulty>::new();
    let _tab = hub.register(HOSTILE).expect("room");
    hub.broadcast(HOSTILE, &Faulty::Error)
        .expect_err("it fails");
    log.assert_logged(&["not encoded"]);
    // The cause is told, and not only that there is one.
    let line = r"the event could not be encoded: ann\r\n";
    assert!(log.text().contains(line), "{}", log.text());

    let publisher = hub.publisher(4).expect("a runtime");
    publisher.try_publish(HOSTILE, Faulty::Panic).expect("room");
    assert!(publisher.flush().await);
    log.assert_logged(&["the event of a publisher panicked"]);
}

#[tokio::test]
async fn a_run_that_is_out_of_order_is_logged_by_its_id_escaped() {
    let log = LOG.clone();
    let hub = tidings::AgUiBroadcaster::new();
    let run = RunRef::new("thread", HOSTILE);
    let view = RunView::new(run.clone());
    let response = SseResponse::new(hub.register(HOSTILE).expect("room")).view(view);
    let response = axum::response::IntoResponse::into_response(response);
    for event in [
        agui::Event::run_started("thread", HOSTILE),
        agui::Event::text_message_content("never begun", "x"),
        agui::Event::run_finished("thread", HOSTILE),
    ] {
        hub.broadcast(HOSTILE, &run.event(event)).expect("an event");
    }
    hub.drain_user(HOSTILE);
    axum::body::to_bytes(response.into_body(), usize::MAX)
        .await
        .expect("a body");
    log.assert_logged(&["out of place"]);
}

#[tokio::test]
async fn an_operators_actions_are_logged_with_the_operators_name_escaped() {
    let log = LOG.clone();
    let hub = hub();
    let console = Console::new()
        .broadcaster_with(HOSTILE, &hub, text)
        .operator(|_| Some(HOSTILE.into()));
    let app: Router = console.router();
    let _tab = hub.register(HOSTILE).expect("room");
    let peer = ConnectInfo(SocketAddr::from(([192, 0, 2, 7], 4711)));
    let query = format!("broadcaster={HOSTILE}&user={HOSTILE}");
    let query: String = query.bytes().fold(String::new(), |query, byte| match byte {
        b'a'..=b'z' | b'=' | b'&' => query + char::from(byte).to_string().as_str(),
        _ => query + &format!("%{byte:02X}"),
    });
    let body = json!({ "broadcaster": HOSTILE, "user": HOSTILE, "text": HOSTILE }).to_string();
    for request in [
        Request::get(format!("/watch?{query}")),
        Request::post("/send"),
        Request::post("/disconnect"),
    ] {
        let request = request
            .header("host", "localhost:3000")
            .header("x-tidings-console", "1")
            .extension(peer);
        let request = request.body(Body::from(body.clone())).expect("a request");
        let answered = app.clone().oneshot(request).await.expect("infallible");
        assert_eq!(answered.status(), 200);
    }
    let lines = [
        "watched by an operator",
        "a test event was sent by an operator",
        "disconnected by an operator",
    ];
    log.assert_logged(&lines);
    let text = log.text();
    for what in lines {
        let line = text.lines().find(|line| line.contains(what));
        let line = line.expect("it is logged");
        for field in [
            r#" user="ann\r\n"#,
            r#" operator="ann\r\n"#,
            r#" peer="192.0.2.7:4711""#,
            r#" host="localhost:3000""#,
        ] {
            assert!(line.contains(field), "{field} is not in {line}");
        }
        assert!(line.contains(" INFO "), "{line}");
    }
}

/// An engine whose errors somebody else has written. It fails, then it refuses, then it takes what it is given.
struct Hostile {
    calls: AtomicUsize,
}

fn hostile() -> BackplaneError {
    BackplaneError::other(io::Error::other(HOSTILE))
}

#[async_trait]
impl Answers for Hostile {
    async fn publish(
        &self,
        node: &InProcessNode,
        messages: &[Message],
    ) -> Result<Vec<Published>, BackplaneError> {
        match self.calls.fetch_add(1, Ordering::Relaxed) {
            0 => Err(hostile()),
            1 => Ok(messages
                .iter()
                .map(|_| Published::Refused {
                    permanent: true,
                    reason: hostile(),
                })
                .collect()),
            _ => node.publish(messages).await,
        }
    }

    async fn set_interest(
        &self,
        _: &InProcessNode,
        _: &[UserId],
        _: &[UserId],
    ) -> Result<(), BackplaneError> {
        Err(hostile())
    }

    fn events(&self, node: &InProcessNode) -> Pin<Box<dyn Stream<Item = Event> + Send>> {
        let unheard = Event::Unheard {
            users: vec![HOSTILE.into()],
            cause: Cause::Denied,
            detail: HOSTILE.into(),
        };
        Box::pin(tokio_stream::once(unheard).chain(node.events()))
    }
}

#[tokio::test(start_paused = true)]
async fn an_engines_errors_and_its_foreign_messages_are_logged_escaped() {
    let log = LOG.clone();
    let node = InProcess::new(Level::AtMostOnce).node();
    let hub: GenericBroadcaster<Text> = GenericBroadcaster::builder()
        .backplane(Wrapped {
            node: node.clone(),
            answers: Hostile {
                calls: AtomicUsize::new(0),
            },
        })
        .build()
        .expect("valid");
    let _tab = hub.register(HOSTILE).expect("room");
    node.inject(Received {
        user: HOSTILE.into(),
        body: Bytes::from_static(b"no message of a node"),
        place: None,
    });
    hub.broadcast(HOSTILE, &text("x")).expect("text");
    tokio::time::sleep(Duration::from_secs(1)).await;
    log.assert_logged(&[
        "not published",
        "interest was not set",
        "dropped a message that no node could have sent",
    ]);
}

/// So that the next line that is logged is as those above.
#[test]
fn no_line_of_the_log_has_a_value_that_is_written_as_it_is() {
    let mut found = Vec::new();
    let mut seen = 0;
    for folder in ["src", "examples"] {
        visit(folder.as_ref(), &mut |path, text| {
            for body in macros(text) {
                seen += 1;
                if let Some(why) = raw(body) {
                    found.push(format!("{path}: {why}: {body}"));
                }
            }
        });
    }
    // The search itself works.
    assert!(seen > 30, "{seen}");
    for (body, is_raw) in [
        ("%user, \"x\"", true),
        ("user = %user", true),
        ("?error, \"x\"", true),
        ("error = &error as &dyn Error", true),
        ("\"the user {user}\"", true),
        (
            "user, over = ?over, rest = user.as_str(), \"100 % {{}}\"",
            false,
        ),
    ] {
        assert_eq!(raw(body).is_some(), is_raw, "{body}");
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// What is wrong with the arguments of a macro of `tracing`.
///
/// `%` writes a value as it is, and so does an error, with its sources; `?` does for every type whose `Debug` somebody else
/// wrote. A `&str` is what subscribers escape.
fn raw(arguments: &str) -> Option<&'static str> {
    /// Times, which hold no text.
    const MAY_BE_DEBUG: [&str; 2] = ["over", "limit"];
    let mut code = String::new();
    for (at, part) in arguments.split('"').enumerate() {
        if at % 2 == 0 {
            code.push_str(part);
        } else if part.replace("{{", "").contains('{') {
            return Some("a value in the message");
        }
    }
    if code.contains('%') {
        return Some("a value by its Display");
    }
    if code.contains("dyn ") {
        return Some("an error as a value");
    }
    let debug = |field: &str| {
        let value = field.rsplit('=').next().unwrap_or_default().trim();
        value.strip_prefix('?').is_some_and(|value| {
            let name = value.rsplit('.').next().unwrap_or_default();
            !MAY_BE_DEBUG.contains(&name)
        })
    };
    code.split(',').any(debug).then_some("a value by its Debug")
}

fn visit(folder: &std::path::Path, look: &mut impl FnMut(&str, &str)) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            visit(&path, look);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).expect("a file");
            look(&path.display().to_string(), &text);
        }
    }
}

/// What stands between the parentheses of each macro of `tracing`, comments left out.
fn macros(text: &str) -> impl Iterator<Item = &str> {
    const NAMES: [&str; 12] = [
        "trace!(",
        "debug!(",
        "info!(",
        "warn!(",
        "error!(",
        "event!(",
        "trace_span!(",
        "debug_span!(",
        "info_span!(",
        "warn_span!(",
        "error_span!(",
        "span!(",
    ];
    text.match_indices("!(").filter_map(|(at, end)| {
        let begin = text[..at].rfind(|c: char| !c.is_alphanumeric() && c != '_')? + 1;
        let line = text[..begin].rfind('\n').map_or(0, |at| at + 1);
        let is_one = NAMES.contains(&&text[begin..at + end.len()])
            && !text[line..begin].trim_start().starts_with("//");
        is_one.then(|| inside(&text[at + end.len()..]))
    })
}

/// Up to the parenthesis that ends it.
fn inside(text: &str) -> &str {
    let mut depth = 1;
    let mut in_string = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => in_string = !in_string,
            '(' if !in_string => depth += 1,
            ')' if !in_string => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}
