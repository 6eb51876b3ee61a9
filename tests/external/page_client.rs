//! The client for pages, `clients/js`: in Chromium against a server that refuses, cuts and falls silent, and by its own tests
//! under Node.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tidings::sse::SseResponse;
use tidings::{GenericBroadcaster, History, LastEventId, Text};
use tokio::net::TcpListener;

use crate::support::webdriver::Browser;
use crate::support::within::within;

/// Its folder.
fn client() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/js")
}

/// A request for a stream.
#[derive(Debug, Clone)]
struct Asked {
    at: Instant,
    /// The id in the header.
    header: Option<String>,
    /// `None` without a query, which an `EventSource` of the client always has.
    query: Option<String>,
}

/// What the server answers instead of the user's stream.
enum Answer {
    Status(StatusCode),
    /// These bytes, and then nothing, in a stream that stays open.
    Silence(&'static str),
}

#[derive(Clone)]
struct Server {
    hub: GenericBroadcaster<Text>,
    asked: Arc<Mutex<Vec<Asked>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    base: String,
}

impl Server {
    async fn start(history: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let hub = GenericBroadcaster::builder().history(History::new(history));
        let server = Self {
            hub: hub.build().expect("valid settings"),
            asked: Arc::default(),
            answers: Arc::default(),
            base: format!("http://{}", listener.local_addr().expect("an address")),
        };
        let script = fs::read_to_string(client().join("tidings.js")).expect("the client");
        let script = ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], script);
        let app = Router::new()
            .route("/", get(Html(include_str!("page_client.html"))))
            .route("/tidings.js", get(script))
            .route("/stream/{user}", get(follow))
            .with_state(server.clone());
        tokio::spawn(async { axum::serve(listener, app).await });
        server
    }

    fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        let mut queue = self.answers.lock().expect("no panic");
        queue.extend(answers);
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }

    async fn wait_for_requests(&self, count: usize) {
        let asked = async {
            while self.asked().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within("requests", asked).await;
    }

    async fn wait_for_connections(&self, count: usize) {
        let there = async {
            while self.hub.total_connections() != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within("connections", there).await;
    }

    fn send(&self, data: &str) {
        let event = Text::new(data.to_owned()).event("text");
        self.hub.broadcast("ann", &event).expect("text");
    }

    /// Opens the page in the current tab.
    async fn open(&self, browser: &Browser) {
        browser.open(&self.base).await;
        // The script has run.
        browser
            .wait_until("document.querySelector('li') !== null")
            .await;
    }
}

async fn follow(
    State(server): State<Server>,
    UrlPath(user): UrlPath<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    last_event_id: LastEventId,
) -> Response {
    let header = headers.get("last-event-id");
    let header = header.map(|id| id.to_str().expect("ASCII").to_owned());
    let at = Instant::now();
    let asked = Asked { at, header, query };
    server.asked.lock().expect("no panic").push(asked);
    let answer = server.answers.lock().expect("no panic").pop_front();
    match answer {
        Some(Answer::Status(status)) => status.into_response(),
        Some(Answer::Silence(bytes)) => {
            let bytes = stream::iter([Ok::<_, Infallible>(Bytes::from_static(bytes.as_bytes()))]);
            let body = Body::from_stream(bytes.chain(stream::pending()));
            ([(CONTENT_TYPE, "text/event-stream")], body).into_response()
        }
        None => {
            let subscription = server.hub.resume(user, &last_event_id).expect("room");
            let response = SseResponse::new(subscription).retry(Duration::from_millis(50));
            response.into_response()
        }
    }
}

async fn start(server: &Server, browser: &Browser, options: Value) {
    start_with(server, browser, &options.to_string()).await;
}

/// The client in the current tab, with options that are an expression.
async fn start_with(server: &Server, browser: &Browser, options: &str) {
    server.open(browser).await;
    let follow = format!("follow('/stream/ann', {options})");
    browser.eval(&follow).await;
}

async fn wait_for_texts(browser: &Browser, expected: &[&str]) {
    let last = json!(expected.last().expect("a text"));
    browser
        .wait_until(&format!("texts().includes({last})"))
        .await;
    assert_eq!(browser.eval("texts()").await, json!(expected));
}

async fn wait_for_state(browser: &Browser, state: &str) {
    let expression = format!("client.state === '{state}'");
    browser.wait_until(&expression).await;
}

/// The options that make it use the browser's `EventSource`, and those that make it use `fetch`.
fn both() -> [Value; 2] {
    [json!({ "events": ["text"] }), json!({})]
}

#[test]
fn the_client_passes_its_own_tests_under_node() {
    let mut node = Command::new("node");
    let output = node.arg("--test").current_dir(client()).output();
    let output = output.expect("if it is missing: apt-get install nodejs npm");
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}");
    assert!(
        report.contains("# fail 0") && !report.contains("# tests 0"),
        "{report}"
    );
}

#[tokio::test]
async fn a_client_that_is_refused_comes_back_and_goes_on_where_it_was() {
    for options in both() {
        let is_native = options["events"].is_array();
        let server = Server::start(100).await;
        let browser = Browser::start().await;
        start(&server, &browser, options).await;
        wait_for_state(&browser, "open").await;
        server.send("one");
        wait_for_texts(&browser, &["one"]).await;

        let statuses = [503, 429, 503, 429].map(|code| StatusCode::from_u16(code).expect("valid"));
        server.answer(statuses.map(Answer::Status));
        server.hub.disconnect_user("ann");
        server.send("two");
        wait_for_texts(&browser, &["one", "two"]).await;
        server.send("three");
        wait_for_texts(&browser, &["one", "two", "three"]).await;

        let asked = server.asked();
        assert_eq!(asked.len(), 6, "{asked:?}");
        // The first refusal is the end of the EventSource, which does not say why. From then on it is fetch that asks.
        let by_event_source: Vec<_> = asked.iter().map(|asked| asked.query.is_some()).collect();
        let expected = [is_native, is_native, false, false, false, false];
        assert_eq!(by_event_source, expected);
        let told = browser
            .eval("all('refused').map(refused => refused.status)")
            .await;
        let expected = if is_native {
            json!([429, 503, 429])
        } else {
            json!([503, 429, 503, 429])
        };
        assert_eq!(told, expected);
        // Each pause is at least as long as was told, and twice the one before it at least, but for the jitter.
        let pauses = browser
            .eval("all('refused').map(refused => refused.retryIn)")
            .await;
        let pauses: Vec<f64> = serde_json::from_value(pauses).expect("numbers");
        let first = asked.len() - 1 - pauses.len();
        for (index, pause) in pauses.iter().enumerate() {
            let least = 50.0 * f64::from(2_u32.pow(u32::try_from(index).expect("few")));
            assert!(*pause >= least, "{index}: {pauses:?}");
            let took = asked[first + index + 1].at - asked[first + index].at;
            assert!(
                took.as_secs_f64() * 1000.0 >= pause - 2.0,
                "{index}: {pauses:?}, {took:?}"
            );
        }
        assert_eq!(browser.eval("all('gap')").await, json!([]));

        // A stream that fetch had read is followed by an EventSource again, where it can be one.
        server.hub.disconnect_user("ann");
        server.send("four");
        wait_for_texts(&browser, &["one", "two", "three", "four"]).await;
        let asked = server.asked();
        let last = asked.last().expect("requests");
        let expected = is_native.then(|| last.query.clone().expect("a query"));
        assert_eq!(last.query, expected);
        let id = last
            .query
            .as_deref()
            .or(last.header.as_deref())
            .expect("an id");
        assert!(id.ends_with("-3"), "{id}");
    }
}

#[tokio::test]
async fn a_status_that_is_final_closes_the_client() {
    for options in both() {
        let server = Server::start(100).await;
        let browser = Browser::start().await;
        // The EventSource learns of none of them, so it takes two.
        server.answer(
            [401, 401].map(|code| Answer::Status(StatusCode::from_u16(code).expect("valid"))),
        );
        start(&server, &browser, options).await;
        wait_for_state(&browser, "closed").await;
        let refused = browser.eval("all('refused')").await;
        assert_eq!(refused, json!([{ "status": 401, "retryIn": null }]));
    }
}

#[tokio::test]
async fn an_event_source_that_is_cut_comes_back_by_itself_with_an_id_that_the_page_never_saw() {
    let server = Server::start(100).await;
    let browser = Browser::start().await;
    start(&server, &browser, json!({ "events": ["text"] })).await;
    wait_for_state(&browser, "open").await;
    server.hub.disconnect_user("ann");
    server.send("one");
    wait_for_texts(&browser, &["one"]).await;
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    assert!(
        asked[1]
            .header
            .as_deref()
            .is_some_and(|id| id.ends_with("-0")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_gap_says_whether_what_the_page_has_is_still_good() {
    for options in both() {
        let server = Server::start(2).await;
        let browser = Browser::start().await;
        start(&server, &browser, options.clone()).await;
        wait_for_state(&browser, "open").await;
        server.send("one");
        wait_for_texts(&browser, &["one"]).await;
        browser.eval("client.close()").await;
        server.wait_for_connections(0).await;
        for text in ["two", "three", "four", "five"] {
            server.send(text);
        }
        let again = async |id: &str| {
            let options = format!("{{ ...{options}, lastEventId: {id} }}");
            browser
                .eval(&format!("told = [], follow('/stream/ann', {options})"))
                .await;
        };
        again("client.lastEventId").await;
        wait_for_texts(&browser, &["four", "five"]).await;
        let gap = json!([{ "reason": "evicted", "missed": 2, "drop": false }]);
        assert_eq!(browser.eval("all('gap')").await, gap);
        browser.eval("client.close()").await;

        // An id of another run of the server.
        again("'0123456789abcdef-7'").await;
        browser.wait_until("all('gap').length === 1").await;
        let gap = json!([{ "reason": "epoch", "missed": null, "drop": true }]);
        assert_eq!(browser.eval("all('gap')").await, gap);
    }
}

#[tokio::test]
async fn silence_is_noticed_where_heartbeats_can_be_seen() {
    let server = Server::start(100).await;
    let browser = Browser::start().await;
    // Comments are nothing that an EventSource shows: it must not be taken for dead.
    server.answer([
        Answer::Silence("event: text\ndata: one\n\n:\n"),
        Answer::Silence("event: text\nid: 7-1\ndata: two\n\nevent: heartbeat\ndata: {\"type\":\"heartbeat\"}\n\n"),
        Answer::Silence("event: text\ndata: three\n\n"),
    ]);
    start(
        &server,
        &browser,
        json!({ "events": ["text"], "silence": 100 }),
    )
    .await;
    wait_for_texts(&browser, &["one"]).await;
    browser
        .eval("setTimeout(() => { told.push(['waited']); document.querySelector('ol').append('') }, 1000)")
        .await;
    browser.wait_until("all('waited').length === 1").await;
    assert_eq!(server.asked().len(), 1);
    browser.eval("client.close(), told = []").await;
    browser
        .eval("follow('/stream/ann', { events: ['text'], silence: 100 })")
        .await;
    wait_for_texts(&browser, &["two", "three"]).await;
    // The third by fetch, which sees all bytes, and so gives it up as well.
    server.wait_for_requests(4).await;
    assert_eq!(server.asked()[2].header.as_deref(), Some("7-1"));
}

/// Three tabs, of which the first one opened has the stream.
async fn three_tabs(server: &Server, browser: &Browser, options: &Value) -> [String; 3] {
    let mut options = options.clone();
    options["share"] = true.into();
    let first = browser.tab().await;
    start(server, browser, options.clone()).await;
    wait_for_state(browser, "open").await;
    let mut tabs = vec![first];
    for _ in 0..2 {
        tabs.push(browser.open_tab().await);
        start(server, browser, options.clone()).await;
        wait_for_state(browser, "open").await;
    }
    tabs.try_into().expect("three")
}

#[tokio::test]
async fn all_tabs_use_one_stream_and_lose_nothing_when_the_tab_that_has_it_is_closed() {
    for options in both() {
        let server = Server::start(100_000).await;
        let browser = Browser::start().await;
        let tabs = three_tabs(&server, &browser, &options).await;
        assert_eq!(server.asked().len(), 1);
        assert_eq!(server.hub.total_connections(), 1);

        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let sender = {
            let server = server.clone();
            tokio::spawn(async move {
                let mut sent = Vec::new();
                while stopped.try_recv().is_err() {
                    sent.push(sent.len().to_string());
                    server.send(&sent[sent.len() - 1]);
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                sent
            })
        };
        // In the middle of it, and again.
        for (tab, other) in [(&tabs[0], &tabs[1]), (&tabs[1], &tabs[2])] {
            browser.switch_to(tab).await;
            let count = browser.eval("texts().length").await;
            browser
                .wait_until(&format!("texts().length > {count} + 20"))
                .await;
            browser.close_tab().await;
            browser.switch_to(other).await;
        }
        stop.send(()).expect("it runs");
        let mut sent = sender.await.expect("it does not panic");
        sent.push("the end".into());
        server.send("the end");
        browser.wait_until("texts().includes('the end')").await;
        assert_eq!(browser.eval("texts()").await, json!(sent));
        assert_eq!(browser.eval("all('gap')").await, json!([]));
        assert_eq!(server.asked().len(), 3);
        server.wait_for_connections(1).await;
    }
}

#[tokio::test]
async fn a_tab_that_is_reloaded_gets_what_it_missed_and_the_others_nothing_twice() {
    let server = Server::start(1000).await;
    let browser = Browser::start().await;
    let tabs = three_tabs(&server, &browser, &json!({})).await;
    server.send("one");
    browser.switch_to(&tabs[1]).await;
    wait_for_texts(&browser, &["one"]).await;
    let id = browser.eval("client.lastEventId").await;
    server.send("two");
    wait_for_texts(&browser, &["one", "two"]).await;
    server.open(&browser).await;
    server.send("three");
    browser.switch_to(&tabs[2]).await;
    wait_for_texts(&browser, &["one", "two", "three"]).await;

    browser.switch_to(&tabs[1]).await;
    let options = json!({ "share": true, "lastEventId": id });
    browser
        .eval(&format!("follow('/stream/ann', {options})"))
        .await;
    wait_for_texts(&browser, &["two", "three"]).await;
    server.send("four");
    for (tab, texts) in [
        (&tabs[0], &["one", "two", "three", "four"][..]),
        (&tabs[1], &["two", "three", "four"]),
        (&tabs[2], &["one", "two", "three", "four"]),
    ] {
        browser.switch_to(tab).await;
        wait_for_texts(&browser, texts).await;
        assert_eq!(browser.eval("all('gap')").await, json!([]));
        wait_for_state(&browser, "open").await;
    }
    // The tab that needed older events took the stream.
    assert_eq!(server.asked().len(), 2);
    server.wait_for_connections(1).await;
}

#[tokio::test]
async fn a_tab_that_has_the_stream_and_does_not_answer_loses_it() {
    let server = Server::start(1000).await;
    let browser = Browser::start().await;
    server.open(&browser).await;
    // As a suspended tab does, which nothing can be done about from outside.
    let hold = "void navigator.locks.request(`tidings ${location.origin}/stream/ann undefined`, () => new Promise(() => {}))";
    browser.eval(hold).await;
    browser.open_tab().await;
    start(&server, &browser, json!({ "share": true })).await;
    wait_for_state(&browser, "open").await;
    server.send("one");
    wait_for_texts(&browser, &["one"]).await;
}

#[tokio::test]
async fn a_final_refusal_closes_the_client_in_all_tabs() {
    let server = Server::start(1000).await;
    let browser = Browser::start().await;
    let tabs = three_tabs(&server, &browser, &json!({})).await;
    server.answer([Answer::Status(StatusCode::UNAUTHORIZED)]);
    server.hub.disconnect_user("ann");
    for tab in &tabs {
        browser.switch_to(tab).await;
        wait_for_state(&browser, "closed").await;
        let refused = browser.eval("all('refused')").await;
        assert_eq!(refused, json!([{ "status": 401, "retryIn": null }]));
    }
    assert_eq!(server.asked().len(), 2);
}
