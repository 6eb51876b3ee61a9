//! A run over HTTP: its end, and the response to a client that has all of it.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::http::{Request, StatusCode};
use axum::response::Response;
use axum::routing::get;
use tidings::sse::SseResponse;
use tidings::{Frame, GenericBroadcaster, History, LastEventId, RegisterError, Subscription, Text};
use tower::ServiceExt;

type Hub = GenericBroadcaster<Text>;

async fn stream(
    State(hub): State<Hub>,
    Path(run): Path<String>,
    last_event_id: LastEventId,
) -> Result<Subscription, RegisterError> {
    hub.resume(run, &last_event_id.or_from_start())
}

/// What has something to say at the end in any case.
struct Farewell;

impl tidings::sse::View for Farewell {
    fn show(
        &mut self,
        frame: &Frame,
        chunks: &mut tidings::sse::Chunks,
    ) -> std::ops::ControlFlow<()> {
        chunks.push(frame.to_bytes());
        std::ops::ControlFlow::Continue(())
    }

    fn end(&mut self, chunks: &mut tidings::sse::Chunks) {
        chunks.push("data: [DONE]\n\n");
    }
}

async fn viewed(
    State(hub): State<Hub>,
    Path(run): Path<String>,
    last_event_id: LastEventId,
) -> Result<SseResponse, RegisterError> {
    let stream = hub.resume(run, &last_event_id.or_from_start())?;
    Ok(SseResponse::new(stream).view(Farewell))
}

/// Without the events that are `b`, until one that is `b`.
async fn filtered(
    State(hub): State<Hub>,
    Path(run): Path<String>,
    last_event_id: LastEventId,
) -> Result<SseResponse, RegisterError> {
    let stream = hub.resume(run, &last_event_id.or_from_start())?;
    Ok(SseResponse::new(stream).filter_map(|frame| (frame.data() != "b").then_some(frame)))
}

async fn until(
    State(hub): State<Hub>,
    Path(run): Path<String>,
    last_event_id: LastEventId,
) -> Result<SseResponse, RegisterError> {
    let stream = hub.resume(run, &last_event_id.or_from_start())?;
    let response = SseResponse::new(stream).until(|frame| frame.data() == "b");
    Ok(response.filter_map(|frame| (frame.data() != "b").then_some(frame)))
}

async fn without_a_cursor(
    State(hub): State<Hub>,
    Path(run): Path<String>,
    last_event_id: LastEventId,
) -> Result<SseResponse, RegisterError> {
    let response = filtered(State(hub), Path(run), last_event_id).await?;
    Ok(response.cursor(false))
}

async fn ask(hub: &Hub, path: &str, id: Option<&str>) -> Response {
    let app = Router::new()
        .route("/runs/{run}", get(stream))
        .route("/viewed/{run}", get(viewed))
        .route("/filtered/{run}", get(filtered))
        .route("/until/{run}", get(until))
        .route("/off/{run}", get(without_a_cursor))
        .with_state(hub.clone());
    let mut request = Request::get(path);
    if let Some(id) = id {
        request = request.header("last-event-id", id);
    }
    let request = request.body(Body::empty()).expect("a request");
    app.oneshot(request).await.expect("it answers")
}

async fn text(response: Response) -> String {
    let body = to_bytes(response.into_body(), 1 << 20).await;
    String::from_utf8(body.expect("it ends").into()).expect("UTF-8")
}

fn run_of(events: &[&str]) -> Hub {
    let built = GenericBroadcaster::builder()
        .history(History::new(100))
        .build();
    let hub: Hub = built.expect("valid settings");
    let _run = hub.hold("1").expect("there is room");
    for event in events {
        let sent = hub.broadcast("1", &Text::new(*event));
        sent.expect("it can be encoded");
    }
    hub.complete("1").expect("there is room");
    hub
}

/// The id of the last event of a body.
fn last_id(body: &str) -> &str {
    let at = body.rfind("id: ").expect("an id") + 4;
    body[at..].lines().next().expect("a line")
}

#[tokio::test]
async fn a_complete_run_is_a_response_that_ends() {
    let hub = run_of(&["a", "b"]);
    let response = ask(&hub, "/runs/1", None).await;
    assert_eq!(response.status(), StatusCode::OK);
    let body = text(response).await;
    assert_eq!(body.matches("data: ").count(), 2, "{body}");
    let response = ask(&hub, "/runs/1", Some(last_id(&body))).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert!(response.headers().get("content-type").is_none());
    assert_eq!(text(response).await, "");
    assert_eq!(hub.total_connections(), 0);
    // What was before that is there again.
    let first = body.lines().find_map(|line| line.strip_prefix("id: "));
    let again = text(ask(&hub, "/runs/1", first).await).await;
    assert_eq!(again.matches("data: ").count(), 2, "{again}");
}

#[tokio::test]
async fn a_run_completed_without_an_event_is_204_immediately() {
    let hub = run_of(&[]);
    let response = ask(&hub, "/runs/1", None).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_client_that_is_not_shown_the_last_event_gets_204_next() {
    for path in ["/filtered/1", "/until/1"] {
        let hub = run_of(&["a", "b"]);
        let body = text(ask(&hub, path, None).await).await;
        assert_eq!(body.matches("data: ").count(), 1, "{body}");
        let response = ask(&hub, path, Some(last_id(&body))).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT, "{path}");
    }
    // The last event has an id of its own.
    let hub = run_of(&["b", "a"]);
    let body = text(ask(&hub, "/filtered/1", None).await).await;
    assert!(body.ends_with("data: a\n\n"), "{body}");
    let hub = run_of(&["a", "b"]);
    let body = text(ask(&hub, "/off/1", None).await).await;
    assert!(body.ends_with("data: a\n\n"), "{body}");
}

#[tokio::test]
async fn a_gap_is_reported_before_the_end() {
    let hub = run_of(&["a", "b"]);
    let response = ask(&hub, "/runs/1", Some("0123456789abcdef-1")).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(text(response).await.contains("event: gap"));
}

#[tokio::test]
async fn a_view_has_the_last_word() {
    let hub = run_of(&["a"]);
    let body = text(ask(&hub, "/viewed/1", None).await).await;
    assert!(body.ends_with("data: a\n\ndata: [DONE]\n\n"), "{body}");
    let all = text(ask(&hub, "/runs/1", None).await).await;
    let response = ask(&hub, "/viewed/1", Some(last_id(&all))).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(text(response).await.ends_with("data: [DONE]\n\n"));
}
