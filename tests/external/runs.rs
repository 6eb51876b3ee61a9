//! A browser's own `EventSource` follows a run to its end, and then stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use serde_json::json;
use tidings::sse::SseResponse;
use tidings::{GenericBroadcaster, History, LastEventId, Text};
use tokio::net::TcpListener;

use crate::support::webdriver::Browser;

#[derive(Clone)]
struct Service {
    hub: GenericBroadcaster<Text>,
    requests: Arc<AtomicUsize>,
}

const PAGE: &str = "<!doctype html><title>a run</title><p id=said></p><p id=state></p><script>
    const source = new EventSource('/run');
    source.onmessage = (event) => said.textContent += event.data;
    source.onerror = () => state.textContent += source.readyState;
</script>";

async fn run(State(service): State<Service>, last_event_id: LastEventId) -> impl IntoResponse {
    service.requests.fetch_add(1, Ordering::Relaxed);
    let stream = service.hub.resume("run", &last_event_id.or_from_start());
    // So that it reconnects soon.
    stream.map(|stream| SseResponse::new(stream).retry(Duration::from_millis(10)))
}

#[tokio::test]
async fn an_event_source_stops_at_the_end_of_a_run_that_it_has_all_of() {
    let built = GenericBroadcaster::builder()
        .history(History::new(100))
        .build();
    let hub: GenericBroadcaster<Text> = built.expect("valid settings");
    let held = hub.hold("run").expect("there is room");
    let say = |text: &str| hub.broadcast("run", &Text::new(text)).expect("text");
    say("Once ");
    say("upon ");
    let service = Service {
        hub: hub.clone(),
        requests: Arc::default(),
    };
    let app = Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/run", get(run))
        .with_state(service.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async { axum::serve(listener, app).await });

    let browser = Browser::start().await;
    browser.open(&base).await;
    let said = |text: &str| format!("said.textContent === {text:?}");
    browser.wait_until(&said("Once upon ")).await;
    // In the middle of the run.
    browser.open(&base).await;
    browser.wait_until(&said("Once upon ")).await;
    say("a time.");
    hub.complete("run").expect("there is room");
    drop(held);
    // The stream ends, and it tries again (0); then it has been told to stop (2).
    browser.wait_until("state.textContent === '02'").await;
    assert_eq!(
        browser.eval("said.textContent").await,
        json!("Once upon a time.")
    );
    assert_eq!(
        service.requests.load(Ordering::Relaxed),
        3,
        "two pages, and the one that was told"
    );
    browser.open(&base).await;
    browser.wait_until("state.textContent === '02'").await;
    assert_eq!(
        browser.eval("said.textContent").await,
        json!("Once upon a time.")
    );
}
