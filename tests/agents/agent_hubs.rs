//! Runs of the demo agent of `agent_hub`, asked for on a hub that does not run the agent.

use std::time::Duration;

use axum::http::Request;
use axum::response::Response;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::hub::Engines;
use crate::support::routes::{Routes, events, input, said, text, types};

const ECHO: &str = "/agui/ann?agent=echo";

async fn pair() -> (Engines, Routes, Routes) {
    let engines = Engines::new();
    let (here, there) = (Routes::of(engines.nodes()), Routes::of(engines.nodes()));
    (engines, here, there)
}

/// So that the other hub has heard of what was begun, and the run goes on.
async fn shortly() {
    sleep(Duration::from_millis(150)).await;
}

fn words(count: usize) -> String {
    (0..count).map(|word| format!("word{word} ")).collect()
}

fn chat(message: &str, text: &str) -> Value {
    let parts = [json!({ "type": "text", "text": text })];
    json!({ "id": "c", "messages": [{ "id": message, "role": "user", "parts": parts }] })
}

/// The chunks of an AI SDK stream.
fn chunks(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let data = data.filter(|data| *data != "[DONE]");
    data.map(|json| serde_json::from_str(json).expect("JSON"))
        .collect()
}

fn kinds(chunks: &[Value]) -> Vec<&str> {
    let kinds = chunks.iter().map(|chunk| chunk["type"].as_str());
    kinds.map(|kind| kind.expect("a type")).collect()
}

async fn tanstack_after(hub: &Routes, run: &Value, last: &str) -> Response {
    let request = Request::post("/tanstack/ann").header("last-event-id", last);
    hub.call(request, run.to_string()).await
}

#[tokio::test(start_paused = true)]
async fn a_run_is_followed_from_its_start_on_any_hub_and_begins_once() {
    let (_engines, here, there) = pair().await;
    let text_of_run = words(100);
    let run = input("t", "r", &text_of_run);
    let first = here.post(ECHO, &run).await;
    shortly().await;
    let joined = there.post(ECHO, &run).await;
    let followed = there.post("/agui/ann", &run).await;
    let by_offset = there.get("/tanstack/ann?offset=-1&runId=r").await;
    let of_another = there.post(ECHO, &input("u", "r", "")).await;
    assert_eq!(of_another.status(), 409);
    let page = there.json("/tanstack/ann?threadId=t").await;
    assert_eq!(page["activeRun"]["runId"], "r");

    let first = text(first).await;
    let expected = events(&first);
    assert_eq!(said(&expected), text_of_run);
    for other in [joined, followed, by_offset] {
        assert_eq!(events(&text(other).await), expected);
    }
    assert_eq!(there.json("/stats").await["runs"]["broadcasts"], 0);

    // Over, and kept for a while.
    shortly().await;
    let late = there.post(ECHO, &run).await;
    assert_eq!(events(&text(late).await), expected);
    let (id, _) = expected.last().expect("a last event");
    let id = id.as_deref().expect("an id");
    let repeated = text(tanstack_after(&there, &run, id).await).await;
    assert_eq!(types(&events(&repeated)), ["RUN_FINISHED"]);
    sleep(Duration::from_secs(60)).await;
    let unknown = there.get("/tanstack/ann?offset=-1&runId=r").await;
    assert_eq!(unknown.status(), 404);
    let anew = events(&text(there.post(ECHO, &input("t", "r", "anew")).await).await);
    assert_eq!((types(&anew)[0], &*said(&anew)), ("RUN_STARTED", "anew"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_cut_goes_on_at_another_hub_behind_its_last_event() {
    let (_engines, here, there) = pair().await;
    let run = input("t", "r", &words(100));
    let whole = here.post("/tanstack/ann", &run).await;
    shortly().await;
    // Any of the events that are there by now.
    let begun = there.get("/tanstack/ann?offset=-1&runId=r").await;
    let (whole, begun) = (events(&text(whole).await), events(&text(begun).await));
    assert_eq!(begun, whole);
    let id = whole[20].0.as_deref().expect("an id");
    let rest = events(&text(tanstack_after(&there, &run, id).await).await);
    assert_eq!(rest, whole[21..]);
}

#[tokio::test(start_paused = true)]
async fn a_chat_is_resumed_answered_once_and_stopped_on_any_hub() {
    let (_engines, here, there) = pair().await;
    let text_of_run = words(100);
    let (send, resume) = ("/aisdk/ann/chat", "/aisdk/ann/chat/c/stream");
    assert_eq!(there.get(resume).await.status(), 204);
    let first = here.post(send, &chat("m", &text_of_run)).await;
    shortly().await;
    let resumed = there.get(resume).await;
    assert_eq!(resumed.status(), 200);
    let same = there.post(send, &chat("m", &text_of_run)).await;
    let other = there.post(send, &chat("n", "something else")).await;
    assert_eq!(other.status(), 409);
    let first = chunks(&text(first).await);
    assert_eq!(kinds(&first).last(), Some(&"finish"));
    for again in [resumed, same] {
        assert_eq!(chunks(&text(again).await), first);
    }
    shortly().await;
    assert_eq!(there.get(resume).await.status(), 204);

    let next = here.post(send, &chat("n", &text_of_run)).await;
    shortly().await;
    let stopped = there.post("/aisdk/ann/chat/c/stop", &json!(null)).await;
    assert_eq!(stopped.status(), 204);
    let next = chunks(&text(next).await);
    assert_eq!(kinds(&next).last(), Some(&"abort"));
    shortly().await;
    for hub in [&here, &there] {
        assert_eq!(hub.get(resume).await.status(), 204);
    }
    // Nothing more is said.
    let said = here.json("/stats").await["aisdk"]["broadcasts"].clone();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(here.json("/stats").await["aisdk"]["broadcasts"], said);
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_hub_is_silent_ends_with_an_error() {
    let engines = Engines::new();
    let nodes = engines.nodes();
    let (here, there) = (Routes::of(nodes.clone()), Routes::of(engines.nodes()));
    let resume = "/aisdk/ann/chat/c/stream";
    let first = here
        .post("/aisdk/ann/chat", &chat("m", &"a ".repeat(8000)))
        .await;
    assert_eq!(first.status(), 200);
    shortly().await;
    let resumed = there.get(resume).await;
    engines.cut(&nodes);
    sleep(Duration::from_secs(30)).await;
    let resumed = chunks(&text(resumed).await);
    assert_eq!(kinds(&resumed).last(), Some(&"error"));
    assert_eq!(there.get(resume).await.status(), 204);
}

/// It hears of nobody meanwhile, and takes nobody for silent.
#[tokio::test(start_paused = true)]
async fn a_hub_that_was_without_its_engine_ends_no_run_of_another() {
    let engines = Engines::new();
    let nodes = engines.nodes();
    let (here, there) = (Routes::of(engines.nodes()), Routes::of(nodes.clone()));
    let resume = "/aisdk/ann/chat/c/stream";
    let message = chat("m", &"a ".repeat(5300));
    let first = here.post("/aisdk/ann/chat", &message).await;
    shortly().await;
    assert_eq!(there.get(resume).await.status(), 200);
    engines.cut(&nodes);
    sleep(Duration::from_secs(60)).await;
    engines.mend(&nodes);
    sleep(Duration::from_secs(30)).await;
    let resumed = there.get(resume).await;
    assert_eq!(resumed.status(), 200);
    let (first, resumed) = (chunks(&text(first).await), chunks(&text(resumed).await));
    assert_eq!(kinds(&first).last(), Some(&"finish"));
    assert_eq!(resumed, first);
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_has_just_started_hears_of_the_runs_of_others_within_moments() {
    let engines = Engines::new();
    let here = Routes::of(engines.nodes());
    let first = here.post(ECHO, &input("t", "r", &words(100))).await;
    shortly().await;
    let there = Routes::of(engines.nodes());
    shortly().await;
    let joined = there.post(ECHO, &input("t", "r", "")).await;
    assert_eq!(events(&text(joined).await), events(&text(first).await));
}
