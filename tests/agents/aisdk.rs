//! A run's stream ends as the client of the AI SDK expects.

use futures_util::FutureExt;
use http_body_util::BodyExt;
use serde_json::Value;
use tidings::sse::SseBody;
use tidings::{GenericBroadcaster, History, Subscription};
use tidings_aisdk::*;

async fn shown(subscription: Subscription) -> String {
    let body = SseBody::new(subscription).view(ChunkView::default());
    // Time is paused: this passes only when nothing else happens.
    let whole = tokio::time::timeout(std::time::Duration::from_secs(1), body.collect());
    let whole = whole.await.expect("the stream ends");
    let body = whole.expect("it does not fail").to_bytes();
    String::from_utf8(body.to_vec()).expect("UTF-8")
}

fn hub(events: usize) -> GenericBroadcaster<Chunk> {
    let built = GenericBroadcaster::builder().history(History::new(events));
    built.build().expect("valid settings")
}

fn say(hub: &GenericBroadcaster<Chunk>, chunk: impl Into<Chunk>) {
    hub.broadcast("run", &chunk.into()).expect("a chunk");
}

fn data(text: &str) -> Vec<&str> {
    let lines = text.lines();
    lines
        .filter_map(|line| line.strip_prefix("data: "))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_with_done_and_steps_do_not_end_it() {
    let hub = hub(100);
    let _held = hub.hold("run").expect("there is room");
    say(&hub, Start::new());
    say(&hub, FinishStep::new());
    say(&hub, Finish::new());
    let text = shown(hub.resume_from_start("run").expect("there is room")).await;
    assert_eq!(
        data(&text),
        [
            r#"{"type":"start"}"#,
            r#"{"type":"finish-step"}"#,
            r#"{"type":"finish"}"#,
            "[DONE]"
        ]
    );
    assert!(!text.contains("event:"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_an_error_chunk_and_the_end() {
    let hub = hub(2);
    let _held = hub.hold("run").expect("there is room");
    for delta in ["a", "b", "c"] {
        say(&hub, TextDelta::new("t", delta));
    }
    let text = shown(hub.resume_from_start("run").expect("there is room")).await;
    let [error, done] = data(&text)[..] else {
        panic!("{text}");
    };
    let error: Value = serde_json::from_str(error).expect("JSON");
    assert_eq!(error["type"], "error");
    assert_eq!(done, "[DONE]");
    assert!(!text.contains("event:"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_ended_before_its_run_ends_with_an_error_chunk() {
    type End = fn(&GenericBroadcaster<Chunk>);
    let ends: [(&str, End); 3] = [
        ("the service ends it", |hub| {
            assert_eq!(hub.drain_user("run"), 1);
        }),
        ("the hub shuts down", |hub| {
            let _ = hub.shutdown(std::time::Duration::ZERO).now_or_never();
        }),
        ("the run is complete without a last chunk", |hub| {
            hub.complete("run").expect("it is held");
        }),
    ];
    for (name, end) in ends {
        let hub = hub(100);
        let _held = hub.hold("run").expect("there is room");
        say(&hub, TextDelta::new("t", "half"));
        let stream = hub.resume_from_start("run").expect("there is room");
        end(&hub);
        let text = shown(stream).await;
        let [.., error, "[DONE]"] = data(&text)[..] else {
            panic!("{name}: {text}");
        };
        let error: Value = serde_json::from_str(error).expect("JSON");
        assert_eq!(error["type"], "error", "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_chunk_of_the_service_ends_the_run() {
    let hub = hub(100);
    let _held = hub.hold("run").expect("there is room");
    say(&hub, Failure::new("the model is gone"));
    say(&hub, TextDelta::new("t", "the client would not read it"));
    let text = shown(hub.resume_from_start("run").expect("there is room")).await;
    assert_eq!(
        data(&text),
        [
            r#"{"type":"error","errorText":"the model is gone"}"#,
            "[DONE]"
        ]
    );
}
