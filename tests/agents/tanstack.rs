//! TanStack AI at the example `agent_hub`: its client under node, and the bytes.

use std::process::Stdio;
use std::time::Duration;

use axum::http::Request;
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::hub::{Hub, within};
use crate::support::official::{INSTALL, place};
use crate::support::routes::{Event, Routes, events, input, said, text, types};

const ANN: &str = "/tanstack/ann";

/// What the client makes of a chat, see `tests/clients/tanstack_chat.mjs`.
async fn chat(name: &str, hub: &Hub, mode: &str, text: &str) -> Value {
    let client = Command::new("node")
        .arg(place("tanstack_chat.mjs", name))
        .arg(hub.url(&["tanstack", "ann"]).as_str())
        .arg(hub.url(&["users", "ann", "drop"]).as_str())
        .args(["a thread/1", mode, text])
        // Only the hub is talked to, and that is near.
        .env("NO_PROXY", "*")
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = within("the client", client).await.expect(INSTALL);
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Twelve seconds of the agent's work, of which the client needs a few if the machine is quiet.
const WORDS: usize = 600;

fn words() -> String {
    let words: Vec<String> = (0..WORDS).map(|n| format!("word{n}")).collect();
    words.join(" ")
}

fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value}"))
}

/// The pieces of the text in what a client has seen.
fn pieces(seen: &Value) -> Vec<&str> {
    let chunks = array(&seen["chunks"]).iter();
    chunks.filter_map(Value::as_str).collect()
}

/// How often it has seen an event of this type.
fn count(seen: &Value, name: &str) -> usize {
    let chunks = array(&seen["chunks"]).iter();
    chunks.filter(|chunk| chunk["type"] == name).count()
}

/// The texts of these messages, and whose they are.
fn texts(messages: &Value) -> Vec<(&str, String)> {
    let texts = array(messages).iter().map(|message| {
        let parts = array(&message["parts"]).iter();
        let parts = parts.filter(|part| part["type"] == "text");
        let text = parts.map(|part| part["content"].as_str().expect("a string"));
        (message["role"].as_str().expect("a role"), text.collect())
    });
    texts.collect()
}

async fn stats(hub: &Hub) -> Value {
    let response = hub.client.get(hub.url(&["stats"])).send().await;
    response.expect("a response").json().await.expect("JSON")
}

#[tokio::test]
async fn a_run_that_is_cut_twenty_times_is_one_run_and_nothing_comes_twice() {
    let hub = Hub::start().await;
    let text = words();
    let seen = chat("cut", &hub, "cut", &text).await;
    let only = &seen["only"];
    assert_eq!(only["error"], json!(null));
    let dropped: u64 = array(&only["dropped"])
        .iter()
        .filter_map(Value::as_u64)
        .sum();
    assert_eq!((array(&only["dropped"]).len(), dropped), (20, 20));

    assert_eq!(pieces(only).len(), WORDS);
    assert_eq!(pieces(only).concat(), text);
    for name in ["RUN_STARTED", "TEXT_MESSAGE_START", "RUN_FINISHED"] {
        assert_eq!(count(only, name), 1, "{name}");
    }
    assert_eq!(
        texts(&only["messages"]),
        [("user", text.clone()), ("assistant", text)]
    );

    // The client would leave out what it has. The hub has not sent it.
    let mut ids: Vec<&str> = array(&seen["ids"])
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let sent = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), sent);
    // One request began the run, the others went on with it.
    let requests = array(&seen["requests"]);
    let posts = requests.iter().filter(|it| it["method"] == "POST");
    let (went_on, began): (Vec<&Value>, _) = posts.partition(|it| it["lastEventId"].is_string());
    assert_eq!((began.len(), went_on.len()), (1, 20));
    assert_eq!(stats(&hub).await["runs"]["broadcasts"], sent);
}

#[tokio::test]
async fn a_page_that_is_reloaded_in_the_middle_of_a_run_shows_all_of_it_once() {
    let hub = Hub::start().await;
    let text = words();
    let seen = chat("reload", &hub, "reload", &text).await;
    let (first, second, third) = (&seen["first"], &seen["second"], &seen["third"]);
    assert!((50..WORDS).contains(&pieces(first).len()));
    assert_eq!(second["error"], json!(null));
    assert_eq!(array(&second["dropped"]), [1, 1]);
    assert_eq!(pieces(second).concat(), text);
    assert_eq!(pieces(second).len(), WORDS);
    assert_eq!(count(second, "RUN_STARTED"), 1);
    let conversation = [("user", text.clone()), ("assistant", text)];
    assert_eq!(texts(&second["messages"]), conversation);
    // What is over is no run to join.
    assert_eq!(pieces(third), [""; 0]);
    assert_eq!(texts(&third["messages"]), conversation);
}

#[tokio::test]
async fn what_the_client_cannot_have_is_an_error_to_it() {
    let hub = Hub::start().await;
    let text = "x".repeat(20_000);
    let seen = chat("wrong", &hub, "wrong", &text).await;
    let error = seen["only"]["error"].as_str().expect("an error");
    assert!(error.contains("400"), "{error}");
    assert_eq!(array(&seen["requests"]).len(), 2, "{}", seen["requests"]);
}

/// A request that goes on behind an event.
async fn go_on(hub: &Routes, body: &Value, id: &str) -> Response {
    let request = Request::post(ANN).header("last-event-id", id);
    hub.call(request, body.to_string()).await
}

/// The next bytes of a response, at least one event.
async fn some(response: &mut Response) -> Vec<Event> {
    let mut read = String::new();
    while !read.ends_with("\n\n") {
        let frame = within("a frame", response.body_mut().frame()).await;
        let frame = frame.expect("it goes on").expect("it is whole");
        let bytes = frame.into_data().expect("no trailers");
        read += std::str::from_utf8(&bytes).expect("UTF-8");
    }
    events(&read)
}

fn id(event: &Event) -> &str {
    event.0.as_deref().expect("an id")
}

#[tokio::test(start_paused = true)]
async fn the_same_request_goes_on_with_the_run_and_begins_none() {
    let hub = Routes::new();
    let words = "one two three four five six seven eight nine";
    let body = input("t", "r", words);
    let mut found = Vec::new();
    let mut response = hub.post(ANN, &body).await;
    // Cut after each few events, by the client, by the hub, and by a hub that ends the response as it should be.
    let mut requests = 1;
    while types(&found).last() != Some(&"RUN_FINISHED") {
        found.extend(some(&mut response).await);
        match requests % 3 {
            0 => drop(hub.post("/users/ann/drop", &json!(null)).await),
            1 => drop(hub.post("/users/ann/end", &json!(null)).await),
            _ => {}
        }
        if requests % 3 == 1 {
            found.extend(events(&text(response).await));
        }
        response = go_on(&hub, &body, id(found.last().expect("an event"))).await;
        assert_eq!(response.status(), 200);
        requests += 1;
    }
    assert!(requests > 10, "{requests}");
    assert_eq!(said(&found), words);

    let again = events(&text(hub.post(ANN, &body).await).await);
    let joined = hub.get("/tanstack/ann?offset=-1&runId=r").await;
    let joined = events(&text(joined).await);
    assert_eq!((&again, &joined), (&found, &found));
    let mut ids: Vec<&str> = found.iter().map(id).collect();
    ids.dedup();
    assert_eq!(ids.len(), found.len());
    assert_eq!(hub.json("/stats").await["runs"]["broadcasts"], found.len());

    // A client that has the last event but was cut before the end of the response is told again that the run has ended.
    let last = found.last().expect("an event");
    let rest = events(&text(go_on(&hub, &body, id(last)).await).await);
    assert_eq!(rest, [(None, last.1.clone())]);
}

#[tokio::test(start_paused = true)]
async fn of_a_last_event_that_is_long_its_end_of_the_run_is_told_again() {
    let hub = Routes::new();
    for (run, bytes, is_whole) in [("r", 1_000, true), ("s", 1_000_000, false)] {
        let body = input("t", run, "one two three");
        let first = hub.post(ANN, &body).await;
        let end = json!({
            "type": "RUN_FINISHED", "threadId": "t", "runId": run, "result": "x".repeat(bytes),
        });
        hub.post("/users/ann/events/agui", &end).await;
        let found = events(&text(first).await);
        let last = found.last().expect("an event");
        assert_eq!(last.1["result"], end["result"]);
        let rest = events(&text(go_on(&hub, &body, id(last)).await).await);
        assert_eq!(types(&rest), ["RUN_FINISHED"]);
        assert_eq!((&rest[0].0, &rest[0].1["runId"]), (&None, &json!(run)));
        assert_eq!(rest[0].1.get("result").is_some(), is_whole);
    }
}

fn is_of_agent(message: &Value) -> bool {
    let id = message["id"].as_str().expect("an id");
    message["role"] == "assistant" && id.ends_with("-message")
}

#[tokio::test(start_paused = true)]
async fn a_page_learns_what_was_said_and_which_run_is_under_way() {
    let hub = Routes::new();
    let path = "/tanstack/ann?threadId=t";
    let nothing = json!({ "messages": [], "activeRun": null, "interrupts": null });
    assert_eq!(hub.json(path).await, nothing);
    let first = hub.post(ANN, &input("t", "r", "one two")).await;
    let page = hub.json(path).await;
    assert_eq!(page["activeRun"], json!({ "runId": "r" }));
    assert_eq!(texts(&page["messages"]), [("user", "one two".into())]);
    assert_eq!(hub.json("/tanstack/bob?threadId=t").await, nothing);
    assert_eq!(hub.json("/tanstack/ann?threadId=u").await, nothing);

    text(first).await;
    let page = hub.json(path).await;
    let expected = [("user", "one two".into()), ("assistant", "one two".into())];
    assert_eq!(texts(&page["messages"]), expected);
    assert_eq!(
        (&page["activeRun"], &page["interrupts"]),
        (&json!(null), &json!(null))
    );
    let messages = array(&page["messages"]);
    assert_eq!(messages[0]["id"], "asked");
    assert!(is_of_agent(&messages[1]), "{}", messages[1]);

    // The newest of several.
    let second = hub.post(ANN, &input("t", "s", "three four five")).await;
    let third = hub.post(ANN, &input("t", "q", "six")).await;
    assert_eq!(hub.json(path).await["activeRun"]["runId"], "q");
    text(third).await;
    assert_eq!(hub.json(path).await["activeRun"]["runId"], "s");
    text(second).await;
    assert_eq!(hub.json(path).await["activeRun"], json!(null));
}

#[tokio::test(start_paused = true)]
async fn only_the_newest_messages_of_a_user_are_remembered() {
    let hub = Routes::new();
    let message =
        |n: usize| json!({ "id": n.to_string(), "role": "user", "content": "x".repeat(1_000) });
    let mut body = input("t", "r", "");
    body["messages"] = (0..100).map(message).collect();
    text(hub.post(ANN, &body).await).await;
    let page = hub.json("/tanstack/ann?threadId=t").await;
    let messages = array(&page["messages"]);
    assert!((50..64).contains(&messages.len()), "{}", messages.len());
    assert!(is_of_agent(&messages[messages.len() - 1]));
    assert_eq!(messages[messages.len() - 2]["id"], "99");
    // A newer conversation takes the place of this one.
    text(hub.post(ANN, &input("u", "s", &"y".repeat(2_000))).await).await;
    let first = hub.json("/tanstack/ann?threadId=t").await;
    assert!(array(&first["messages"]).is_empty());
    let second = hub.json("/tanstack/ann?threadId=u").await;
    assert_eq!(array(&second["messages"]).len(), 2);
}

/// Asserts that it is refused with this status and a sentence that says `hint`.
async fn assert_refused(response: Response, status: u16, hint: &str) {
    let found = response.status();
    let sentence = text(response).await;
    assert_eq!(found, status, "{sentence}");
    assert!(sentence.contains(hint), "{sentence:?} lacks {hint:?}");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_had_is_refused_with_a_status_and_a_sentence() {
    let hub = Routes::new();
    let body = input("t", "r", "one two three");
    let mut first = hub.post(ANN, &body).await;
    let begun = some(&mut first).await;
    for (path, status, hint) in [
        ("/tanstack/ann", 400, "runId"),
        ("/tanstack/ann?runId=r&threadId=t&offset=-1", 400, "Either"),
        ("/tanstack/ann?runId=r", 400, "offset=-1"),
        ("/tanstack/ann?runId=r&offset=7", 400, "offset=-1"),
        ("/tanstack/ann?runId=r&offset=now", 400, "offset=-1"),
        ("/tanstack/ann?runId=s&offset=-1", 404, "\"s\""),
        ("/tanstack/bob?runId=r&offset=-1", 404, "of this user"),
    ] {
        assert_refused(hub.get(path).await, status, hint).await;
    }
    let id = id(&begun[0]);
    let unknown = go_on(&hub, &input("t", "s", ""), id).await;
    assert_refused(unknown, 404, "not begun").await;
    let foreign = Request::post("/tanstack/bob").header("last-event-id", id);
    let foreign = hub.call(foreign, body.to_string()).await;
    assert_refused(foreign, 404, "of this user").await;
    assert_refused(
        hub.post(ANN, &json!({ "threadId": "t" })).await,
        400,
        "runId",
    )
    .await;
    let other = hub.post(ANN, &input("u", "r", "")).await;
    assert_refused(other, 409, "another conversation").await;
    let other = go_on(&hub, &input("u", "r", ""), id).await;
    assert_refused(other, 409, "another conversation").await;
    let header = Request::post(ANN).header("x-run-id", "s");
    let header = hub.call(header, body.to_string()).await;
    assert_refused(header, 400, "X-Run-Id").await;

    // An id that the run does not have is a gap, and the client knows no gaps.
    for wrong in ["smith", "0123456789abcdef-1"] {
        let found = events(&text(go_on(&hub, &body, wrong).await).await);
        assert_eq!(types(&found), ["RUN_ERROR"], "{wrong}");
        assert_eq!(found[0].1["code"], "STREAM_CUT_OFF");
    }

    // A hub that was restarted knows nothing of it.
    let restarted = Routes::new();
    assert_refused(go_on(&restarted, &body, id).await, 404, "restarted").await;

    // Nor does one that has forgotten it, some time after the end.
    text(first).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(go_on(&hub, &body, id).await.status(), 200);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_refused(go_on(&hub, &body, id).await, 404, "forgotten").await;
    let join = hub.get("/tanstack/ann?runId=r&offset=-1").await;
    assert_refused(join, 404, "forgotten").await;
}

#[tokio::test(start_paused = true)]
async fn a_beginning_that_is_lost_is_an_error_of_the_run() {
    let hub = Routes::new();
    let first = hub.post(ANN, &input("t", "r", "one two three")).await;
    // More than is kept of a run.
    let event = json!({ "type": "CUSTOM", "name": "n", "value": "x".repeat(1_500_000) });
    for _ in 0..6 {
        let path = "/users/ann/events/agui?thread=t&run=r";
        assert_eq!(hub.post(path, &event).await.status(), 200);
    }
    let joined = hub.get("/tanstack/ann?offset=-1&runId=r").await;
    let joined = events(&text(joined).await);
    assert_eq!(types(&joined), ["RUN_ERROR"]);
    assert_eq!(joined[0].1["code"], "STREAM_CUT_OFF");
    let why = joined[0].1["message"].as_str().expect("a sentence");
    assert!(why.contains("missing"), "{why}");
    // A client of AG-UI gets an error as well, and does not wait for the end of the run.
    let again = hub.post("/agui/ann", &input("t", "r", "")).await;
    let again = events(&text(again).await);
    assert_eq!(types(&again), ["RUN_ERROR"]);
    assert_eq!(again[0].1["message"], "events were lost");
    drop(first);
}
