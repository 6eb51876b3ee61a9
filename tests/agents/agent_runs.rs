//! A run of the demo agent of `agent_hub` that is asked for again, by clients of AG-UI.

use std::time::Duration;

use axum::response::Response;
use serde_json::{Value, json};
use tidings::{A2ABroadcaster, EventRouter, History};

use crate::support::hub::{Hub, within};
use crate::support::process::Process;
use crate::support::routes::{Routes, events, input, said, text, types};

async fn ask(hub: &Routes, thread: &str, run: &str, words: &str) -> Response {
    let path = "/agui/ann?agent=echo";
    hub.post(path, &input(thread, run, words)).await
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_asked_for_again_is_replayed_and_no_second_one_begins() {
    let hub = Routes::new();
    let all = hub.get("/users/ann/streams/agui").await;
    let first = ask(&hub, "t", "r", "one two three").await;
    // In the middle of it.
    tokio::time::sleep(Duration::from_millis(150)).await;
    let second = ask(&hub, "t", "r", "one two three").await;
    // Who does not ask for the agent gets its run as well.
    let third = hub.post("/agui/ann", &input("t", "r", "")).await;
    let (first, second, third) = (text(first).await, text(second).await, text(third).await);
    let late = ask(&hub, "t", "r", "one two three").await;
    let late = text(late).await;

    let expected = events(&first);
    assert_eq!(types(&expected)[0], "RUN_STARTED");
    assert_eq!(types(&expected).last(), Some(&"RUN_FINISHED"));
    assert_eq!(said(&expected), "one two three");
    for other in [second, third, late] {
        assert_eq!(events(&other), expected);
    }
    hub.post("/users/ann/end", &json!(null)).await;
    let all = events(&text(all).await);
    assert_eq!(types(&all), types(&expected), "one run, not four");
}

#[tokio::test(start_paused = true)]
async fn a_run_is_one_of_its_user_and_of_its_conversation() {
    let hub = Routes::new();
    let of_ann = ask(&hub, "t", "r", "for ann").await;
    let of_bob = "/agui/bob?agent=echo";
    let of_bob = hub.post(of_bob, &input("u", "r", "for bob")).await;
    assert_eq!(ask(&hub, "u", "r", "for ann").await.status(), 409);
    let without_agent = hub.post("/agui/ann", &input("u", "r", "")).await;
    assert_eq!(without_agent.status(), 409);
    assert_eq!(said(&events(&text(of_ann).await)), "for ann");
    assert_eq!(said(&events(&text(of_bob).await)), "for bob");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_nobody_reads_goes_on_and_is_kept_for_a_while() {
    let hub = Routes::new();
    // The most that the agent reads, as the most words.
    let words = "a ".repeat(8 * 1024);
    drop(ask(&hub, "t", "r", &words).await);
    tokio::time::sleep(Duration::from_secs(150)).await;
    let again = events(&text(ask(&hub, "t", "r", &words).await).await);
    assert_eq!(types(&again)[0], "RUN_STARTED");
    assert!(said(&again) == words, "{} events", again.len());
    assert_eq!(types(&again).last(), Some(&"RUN_FINISHED"));
    let stats = hub.json("/stats").await;
    assert_eq!(stats["runs"]["broadcasts"], again.len());

    // After that it is another run.
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(hub.json("/stats").await["runs"]["away"], 0);
    let anew = events(&text(ask(&hub, "t", "r", "anew").await).await);
    assert_eq!(types(&anew)[0], "RUN_STARTED");
    assert_eq!(said(&anew), "anew");
    assert_eq!(types(&anew).last(), Some(&"RUN_FINISHED"));
    assert_ne!(anew[0].0, again[0].0);
}

#[tokio::test(start_paused = true)]
async fn a_run_of_the_most_events_is_kept_whole() {
    let hub = Routes::new();
    // Each space is a word, and a name takes six times as many bytes in JSON.
    let words = " ".repeat(16 * 1024);
    let run = "\u{1}".repeat(256);
    for words in [words, ". ".repeat(8 * 1024)] {
        drop(ask(&hub, &run, &run, &words).await);
        tokio::time::sleep(Duration::from_secs(335)).await;
        let again = events(&text(ask(&hub, &run, &run, &words).await).await);
        assert_eq!(types(&again).last(), Some(&"RUN_FINISHED"));
        assert!(said(&again) == words, "{} events", again.len());
        // It is forgotten, and the other one takes its name.
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_ended_by_others_stops_its_agent() {
    let hub = Routes::new();
    let all = hub.get("/users/ann/streams/agui").await;
    let first = ask(&hub, "t", "r", &"word ".repeat(100)).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let end = json!({ "type": "RUN_FINISHED", "threadId": "t", "runId": "r" });
    hub.post("/users/ann/events/agui", &end).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let task = hub.json("/a2a/ann/tasks/r").await;
    assert_eq!(task["status"]["state"], "TASK_STATE_CANCELED");
    tokio::time::sleep(Duration::from_secs(10)).await;
    hub.post("/users/ann/end", &json!(null)).await;
    let (first, all) = (events(&text(first).await), events(&text(all).await));
    // The client's stream also ends the message that was open.
    let mut expected = types(&first);
    assert_eq!(expected.pop(), Some("RUN_FINISHED"));
    assert_eq!(expected.pop(), Some("TEXT_MESSAGE_END"));
    expected.push("RUN_FINISHED");
    assert_eq!(types(&all), expected, "nothing after the end");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_canceled_before_the_first_word_is_no_run_that_finished() {
    for words in ["", "one"] {
        let hub = Routes::new();
        let first = ask(&hub, "t", "r", words).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        let canceled = hub.post("/a2a/ann/tasks/r:cancel", &json!({})).await;
        assert_eq!(canceled.status(), 200);
        let first = events(&text(first).await);
        assert_eq!(types(&first).last(), Some(&"RUN_ERROR"), "{words:?}");
        assert!(!types(&first).contains(&"TEXT_MESSAGE_START"), "{words:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_some_streams_do_not_get_does_not_stop_the_agent() {
    let a2a = A2ABroadcaster::builder().history(History::new(10)).build();
    let a2a = a2a.expect("valid settings");
    let _held = a2a.hold("ann").expect("there is a history");
    a2a.complete("ann").expect("there is a history");
    let hub = Routes::over(EventRouter::builder().a2a(a2a).build());
    let run = events(&text(ask(&hub, "t", "r", "one two").await).await);
    assert_eq!(said(&run), "one two");
    assert_eq!(types(&run).last(), Some(&"RUN_FINISHED"));
    let task = hub.json("/a2a/ann/tasks/r").await;
    assert_eq!(task["status"]["state"], "TASK_STATE_COMPLETED");
}

#[tokio::test(start_paused = true)]
async fn a_state_beyond_the_limit_is_refused() {
    let hub = Routes::new();
    let most = 64 * 1024 - json!({ "key": "" }).to_string().len();
    for (run, bytes, status) in [("r", most, 200), ("s", most + 1, 400)] {
        let mut body = input("t", run, "one");
        body["state"] = json!({ "key": "x".repeat(bytes) });
        for path in ["/agui/ann?agent=echo", "/tanstack/ann"] {
            assert_eq!(hub.post(path, &body).await.status(), status, "{path} {run}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_posted_to_the_agents_run_belongs_to_it() {
    let hub = Routes::new();
    let first = ask(&hub, "t", "r", "one").await;
    // It has begun by then.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let event = json!({ "type": "CUSTOM", "name": "aside", "value": 1 });
    for run in ["thread=t&run=r", "thread=t&run=s", "thread=u&run=r"] {
        let path = format!("/users/ann/events/agui?{run}");
        assert_eq!(hub.post(&path, &event).await.status(), 200);
    }
    let second = ask(&hub, "t", "r", "one").await;
    let (first, second) = (events(&text(first).await), events(&text(second).await));
    assert_eq!(first, second);
    let is_aside = |name: &&&str| **name == "CUSTOM";
    assert_eq!(types(&first).iter().filter(is_aside).count(), 1);
}

/// Sends an event of the run `r` of ann's.
async fn publish(hub: &Hub, event: Value) {
    let mut url = hub.url(&["users", "ann", "events", "agui"]);
    url.set_query(Some("thread=t&run=r"));
    let response = hub.client.post(url).json(&event).send().await;
    assert_eq!(response.expect("a response").status(), 200);
}

#[tokio::test]
async fn a_posted_run_is_replayed_from_the_users_history() {
    let process = Process::start(&["--history", "6"]).await;
    let hub = &process.hub;
    let follow = async || {
        let request = hub.client.post(hub.url(&["agui", "ann"]));
        let response = request.json(&input("t", "r", "")).send().await;
        response.expect("a response")
    };
    // More than is kept, and none of this run.
    for value in 0..10 {
        let event = json!({ "type": "CUSTOM", "name": "other", "value": value });
        let request = hub
            .client
            .post(hub.url(&["users", "ann", "events", "agui"]));
        request.json(&event).send().await.expect("a response");
    }
    let first = follow().await;
    publish(
        hub,
        json!({ "type": "RUN_STARTED", "threadId": "t", "runId": "r" }),
    )
    .await;
    publish(hub, json!({ "type": "CUSTOM", "name": "n", "value": 1 })).await;
    let second = follow().await;
    publish(
        hub,
        json!({ "type": "RUN_FINISHED", "threadId": "t", "runId": "r" }),
    )
    .await;
    let third = follow().await;
    let expected = ["RUN_STARTED", "CUSTOM", "RUN_FINISHED"];
    for response in [first, second, third] {
        let text = within("the end", response.text()).await.expect("UTF-8");
        assert_eq!(types(&events(&text)), expected);
    }

    // Of which the beginning is kept no longer.
    for value in 0..5 {
        publish(
            hub,
            json!({ "type": "CUSTOM", "name": "n", "value": value }),
        )
        .await;
    }
    let response = follow().await;
    let text = within("the end", response.text()).await.expect("UTF-8");
    let found = events(&text);
    assert_eq!(types(&found), ["RUN_ERROR"]);
    assert_eq!(found[0].1["code"], "STREAM_CUT_OFF");
}
