//! The server: a page that has the client, and streams that it may refuse, cut or leave silent.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, RawQuery, State};
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use futures_util::{StreamExt, stream};
use tidings::sse::SseResponse;
use tidings::{GenericBroadcaster, History, LastEventId, RefusalForm, Text};
use tokio::net::TcpListener;

use super::client;
use crate::support::webdriver::Browser;
use crate::support::within::within;

/// A request for a stream.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) at: Instant,
    /// The id in the header.
    pub(super) header: Option<String>,
    /// `None` without a query, which an `EventSource` of the client always has.
    pub(super) query: Option<String>,
}

/// What the server answers instead of the user's stream.
pub(super) enum Answer {
    Status(StatusCode),
    /// These bytes, and then nothing, in a stream that stays open.
    Silence(&'static str),
}

#[derive(Clone)]
pub(super) struct Server {
    pub(super) hub: GenericBroadcaster<Text>,
    asked: Arc<Mutex<Vec<Asked>>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
    base: String,
}

impl Server {
    pub(super) async fn start(history: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let hub = GenericBroadcaster::builder()
            .history(History::new(history))
            .when_full(RefusalForm::ComeBack);
        let server = Self {
            hub: hub.build().expect("valid settings"),
            asked: Arc::default(),
            answers: Arc::default(),
            base: format!("http://{}", listener.local_addr().expect("an address")),
        };
        let script = fs::read_to_string(client().join("tidings.js")).expect("the client");
        let script = ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], script);
        let app = Router::new()
            .route("/", get(Html(include_str!("page.html"))))
            .route("/tidings.js", get(script))
            .route("/stream/{user}", get(follow))
            .layer(map_response(allow_all_origins))
            .with_state(server.clone());
        tokio::spawn(async { axum::serve(listener, app).await });
        server
    }

    pub(super) fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        let mut queue = self.answers.lock().expect("no panic");
        queue.extend(answers);
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no panic").clone()
    }

    pub(super) async fn wait_for_requests(&self, count: usize) {
        let asked = async {
            while self.asked().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within("requests", asked).await;
    }

    pub(super) async fn wait_for_connections(&self, count: usize) {
        let there = async {
            while self.hub.total_connections() != count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within("connections", there).await;
    }

    pub(super) fn send(&self, data: &str) {
        let event = Text::new(data.to_owned()).event("text");
        self.hub.broadcast("ann", &event).expect("text");
    }

    /// Opens the page in the current tab.
    pub(super) async fn open(&self, browser: &Browser) {
        browser.open(&self.base).await;
        // The script has run.
        browser
            .wait_until("document.querySelector('li') !== null")
            .await;
    }
}

/// A sandboxed frame is of an origin of its own.
async fn allow_all_origins(mut response: Response) -> Response {
    let all = HeaderValue::from_static("*");
    response
        .headers_mut()
        .insert(ACCESS_CONTROL_ALLOW_ORIGIN, all);
    response
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
            let response = server.hub.resume(user, &last_event_id);
            let response = response.map(SseResponse::new);
            let response = response.map(|stream| stream.retry(Duration::from_millis(50)));
            response.into_response()
        }
    }
}
