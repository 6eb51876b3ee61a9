//! The routes of the example `agent_hub` without a server, so that time can be paused: the agent works only while everybody waits
//! for it.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, request};
use axum::response::Response;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tidings::EventRouter;
use tower::ServiceExt;

use super::hub::{Hub, Nodes, within};

/// A hub's routes.
pub(crate) struct Routes(Router);

impl Routes {
    pub(crate) fn new() -> Self {
        Self(Hub::router())
    }

    /// Those of a hub that sends its events through these broadcasters.
    pub(crate) fn over(events: EventRouter) -> Self {
        Self(Hub::router_over(events))
    }

    /// Those of one of several hubs.
    pub(crate) fn of(nodes: Nodes) -> Self {
        Self(Hub::router_of(nodes))
    }

    pub(crate) async fn call(&self, request: request::Builder, body: String) -> Response {
        let request = request.header("host", "localhost").body(Body::from(body));
        let response = self.0.clone().oneshot(request.expect("a request"));
        response.await.expect("it never fails")
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.call(Request::get(path), String::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.call(Request::post(path), body.to_string()).await
    }

    /// What a route answers in JSON.
    pub(crate) async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        serde_json::from_str(&text(response).await).expect("JSON")
    }
}

/// An AG-UI client's request for a run.
pub(crate) fn input(thread: &str, run: &str, text: &str) -> Value {
    let message = json!({ "id": "asked", "role": "user", "content": text });
    json!({ "threadId": thread, "runId": run, "messages": [message] })
}

/// The whole of a body.
pub(crate) async fn text(response: Response) -> String {
    let body = within("the end", response.into_body().collect()).await;
    let body = body.expect("a clean end").to_bytes();
    String::from_utf8(body.to_vec()).expect("UTF-8")
}

/// An event as it came over the wire: its id, and its data as JSON.
pub(crate) type Event = (Option<String>, Value);

/// The events of a stream. There is nothing else in it but comments, and each event has one line of data.
pub(crate) fn events(text: &str) -> Vec<Event> {
    let lines = text.lines().filter(|line| !line.starts_with(':'));
    let text = lines.collect::<Vec<_>>().join("\n");
    let mut events = Vec::new();
    for block in text.split("\n\n").filter(|block| !block.is_empty()) {
        let (mut id, mut data) = (None, None);
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("id", value)) => assert_eq!(id.replace(value.to_owned()), None, "{block}"),
                Some(("data", json)) => assert_eq!(data.replace(json), None, "{block}"),
                Some(("event", _)) => {}
                _ => panic!("{line:?} in {block}"),
            }
        }
        let data = data.unwrap_or_else(|| panic!("no data in {block}"));
        events.push((id, serde_json::from_str(data).expect("JSON")));
    }
    events
}

/// The types of these.
pub(crate) fn types(events: &[Event]) -> Vec<&str> {
    let types = events.iter().map(|(_, event)| event["type"].as_str());
    types.map(|name| name.expect("a type")).collect()
}

/// What the agent says in these.
pub(crate) fn said(events: &[Event]) -> String {
    let is_said = |event: &&Event| event.1["type"] == "TEXT_MESSAGE_CONTENT";
    let said = events.iter().filter(is_said);
    said.map(|(_, event)| event["delta"].as_str().expect("a string"))
        .collect()
}
