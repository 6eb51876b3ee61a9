//! The client for pages, `clients/js`: in Chromium against a server that refuses, cuts and falls silent, and by its own tests
//! under Node.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::support::webdriver::Browser;
use server::{Answer, Server};

mod server;

/// Its folder.
fn client() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/js")
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
async fn a_page_of_a_full_user_is_told_so_and_comes_back_without_a_gap() {
    for options in both() {
        let server = Server::start(100).await;
        let ten: Vec<_> = (0..10)
            .map(|_| server.hub.register("ann").expect("room"))
            .collect();
        let browser = Browser::start().await;
        start(&server, &browser, options).await;
        browser.wait_until("all('refused').length > 0").await;
        drop(ten);
        server.wait_for_connections(1).await;
        server.send("one");
        wait_for_texts(&browser, &["one"]).await;
        let refused = browser.eval("all('refused')[0]").await;
        assert_eq!(refused, json!({ "reason": "user_full", "cap": 10 }));
        assert_eq!(browser.eval("all('gap')").await, json!([]));
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

    // The tab that it was taken from waits for it again.
    for tab in [&tabs[1], &tabs[2]] {
        browser.switch_to(tab).await;
        browser.close_tab().await;
    }
    browser.switch_to(&tabs[0]).await;
    server.send("five");
    wait_for_texts(&browser, &["one", "two", "three", "four", "five"]).await;
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
    server.open(&browser).await;
    browser.eval("window.isImpatient = true").await;
    browser.eval("follow('/stream/ann', { share: true })").await;
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
    // The next tab may have asked before it heard.
    server.wait_for_connections(0).await;
}

#[tokio::test]
async fn a_tab_that_takes_the_lead_before_it_learns_of_a_final_refusal_closes_as_well() {
    let server = Server::start(1000).await;
    let browser = Browser::start().await;
    start(&server, &browser, json!({ "share": true })).await;
    wait_for_state(&browser, "open").await;
    // The last word of the tab that had the stream, whose lock was faster.
    let word = "new BroadcastChannel(`tidings ${location.origin}/stream/ann undefined`)
        .postMessage(['onRefused', { status: 401, retryIn: null }, '', ''])";
    browser.eval(word).await;
    wait_for_state(&browser, "closed").await;
    server.wait_for_connections(0).await;
}

#[tokio::test]
async fn a_frame_that_may_not_use_locks_follows_the_stream_alone() {
    let server = Server::start(1000).await;
    let browser = Browser::start().await;
    server.open(&browser).await;
    let frame = r#"(() => {
        addEventListener("message", ({ data }) => {
            told.push(data);
            document.querySelector("ol").append("");
        });
        const frame = document.createElement("iframe");
        frame.sandbox = "allow-scripts";
        frame.srcdoc = `<script type="module">
            import { Tidings } from "${location.origin}/tidings.js";
            const tell = (kind, value) => parent.postMessage([kind, value], "*");
            const { request } = LockManager.prototype;
            LockManager.prototype.request = function (...args) {
                const asked = request.apply(this, args);
                asked.catch(({ name }) => tell("denied", name));
                return asked;
            };
            new Tidings("${location.origin}/stream/ann", {
                share: true,
                onEvent: (event) => tell("event", event),
                onState: (state) => tell("state", state),
            });
        <\/script>`;
        document.body.append(frame);
    })()"#;
    browser.eval(frame).await;
    browser.wait_until("all('state').includes('open')").await;
    server.send("one");
    wait_for_texts(&browser, &["one"]).await;
    assert_eq!(
        browser.eval("all('denied')").await,
        json!(["SecurityError"])
    );
    assert_eq!(server.asked().len(), 1);
}
