//! Servers that can crash, a page that uses `@ai-sdk/react`, and a service for it as the guide on agents has it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::time::Duration;

use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tidings::sse::SseResponse;
use tidings::{GenericBroadcaster, Hold, LastEventId};
use tidings_aisdk::{
    Chunk, ChunkView, Failure, Finish, HEADER, Start, TextDelta, TextEnd, TextStart,
};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::support::official::installed;

/// The page's script with all that it imports, bundled once.
static SCRIPT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let packages = installed().join("react/node_modules");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/react/page.jsx");
    let bundled = Command::new("node")
        .arg(packages.join("esbuild/bin/esbuild"))
        .arg(page)
        .args(["--bundle", "--format=esm", "--jsx=automatic"])
        .arg("--define:process.env.NODE_ENV=\"production\"")
        .env("NODE_PATH", packages)
        .output()
        .expect("node runs");
    let errors = String::from_utf8_lossy(&bundled.stderr);
    assert!(bundled.status.success(), "{errors}");
    bundled.stdout
});

/// The page beside what it talks to.
fn with_page(api: Router) -> Router {
    let page = "<!doctype html><title>A chat</title><script type=module src=/page.js></script>";
    let script = || async {
        let script_type = [(CONTENT_TYPE, "text/javascript; charset=utf-8")];
        (script_type, SCRIPT.as_slice())
    };
    Router::new()
        .route("/chat", get(Html(page)))
        .route("/page.js", get(script))
        .fallback_service(api)
}

/// A server in a runtime of its own, which ends it with all its connections.
pub(super) struct Node {
    addr: SocketAddr,
    runtime: Option<Runtime>,
}

impl Node {
    /// Serves a page and this, which is built in the runtime.
    pub(super) async fn start(api: impl FnOnce() -> Router) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), api).await
    }

    async fn start_at(addr: SocketAddr, api: impl FnOnce() -> Router) -> Self {
        // Not while the page waits for it.
        LazyLock::force(&SCRIPT);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let app = {
            let _entered = runtime.enter();
            with_page(api())
        };
        let served = runtime.spawn(async move {
            let listener = TcpListener::bind(addr).await.expect("the port is free");
            let addr = listener.local_addr().expect("an address");
            tokio::spawn(async { axum::serve(listener, app).await });
            addr
        });
        let addr = served.await.expect("it listens");
        let runtime = Some(runtime);
        Self { addr, runtime }
    }

    /// Ends as a process that is killed, and starts with another state on the same port.
    pub(super) async fn restart(mut self, api: impl FnOnce() -> Router) -> Self {
        let runtime = self.runtime.take().expect("it runs");
        let ended =
            tokio::task::spawn_blocking(|| runtime.shutdown_timeout(Duration::from_secs(10)));
        ended.await.expect("it ends");
        Self::start_at(self.addr, api).await
    }

    /// The page's address. The path ends with the chat's name.
    pub(super) fn page(&self, api: &str) -> String {
        format!("http://{}/chat?api={api}&id=c", self.addr)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What a service has in its database: it outlives nodes, and all nodes see it.
#[derive(Clone, Default)]
pub(super) struct Database(Arc<Mutex<HashMap<String, Chat>>>);

#[derive(Default)]
struct Chat {
    messages: Vec<Value>,
    /// The newest run, until some seconds after its end.
    run: Option<Run>,
    runs: usize,
}

/// A run, and the place of its history that it begins behind.
#[derive(Clone)]
struct Run {
    id: String,
    begin: LastEventId,
    has_ended: bool,
}

impl Database {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Chat>> {
        self.0.lock().expect("no panic")
    }

    /// How many runs the chat has had.
    pub(super) fn runs(&self) -> usize {
        self.lock()["c"].runs
    }

    /// Forgets the chat's run: some seconds after its end, or because its agent was on a node that is no more.
    pub(super) fn forget_run(&self) {
        self.lock().get_mut("c").expect("a chat").run = None;
    }
}

/// One node of the service.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) hub: GenericBroadcaster<Chunk>,
    database: Database,
    /// The run whose agent is here.
    agent: Arc<Mutex<Option<(String, Hold)>>>,
    last_words: Arc<Mutex<Option<String>>>,
}

#[derive(Deserialize)]
struct Posted {
    id: String,
    messages: Vec<Value>,
}

impl Service {
    pub(super) fn new(hub: GenericBroadcaster<Chunk>, database: &Database) -> Self {
        Self {
            hub,
            database: database.clone(),
            agent: Arc::default(),
            last_words: Arc::default(),
        }
    }

    pub(super) fn router(&self) -> Router {
        Router::new()
            .route("/api/chat", post(send))
            .route("/api/chat/{id}", get(messages))
            .route("/api/chat/{id}/stream", get(resume))
            .with_state(self.clone())
    }

    fn broadcast(&self, chunk: impl Into<Chunk>) {
        let agent = self.agent.lock().expect("no panic");
        let (run, _) = agent.as_ref().expect("a run is under way");
        let sent = self.hub.broadcast(run, &chunk.into());
        sent.expect("the run takes chunks");
    }

    /// The agent says these words.
    pub(super) fn say(&self, words: std::ops::Range<usize>) {
        for word in words {
            self.broadcast(TextDelta::new("text", format!("{word} ")));
        }
    }

    /// The agent has said it all: the chat gets its message, and the run ends.
    pub(super) fn finish(&self, text: &str) {
        self.finish_in(self.database.lock().get_mut("c").expect("a chat"), text);
    }

    fn finish_in(&self, chat: &mut Chat, text: &str) {
        let run = chat.run.as_mut().expect("a run is under way");
        run.has_ended = true;
        let part = json!({ "type": "text", "text": text });
        // With the id of `Start`: a page that has the message and gets the run as well shows it once.
        chat.messages
            .push(json!({ "id": run.id, "role": "assistant", "parts": [part] }));
        self.broadcast(TextEnd::new("text"));
        self.broadcast(Finish::new());
        self.complete();
    }

    /// Lets the run end right after the next page has read the chat's messages, and before it asks for the run.
    pub(super) fn finish_after_next_read(&self, text: &str) {
        *self.last_words.lock().expect("no panic") = Some(text.to_owned());
    }

    /// The agent cannot go on.
    pub(super) fn fail(&self, why: &str) {
        self.broadcast(Failure::new(why));
        self.complete();
    }

    fn complete(&self) {
        let agent = self.agent.lock().expect("no panic").take();
        let (run, _hold) = agent.expect("a run is under way");
        self.hub.complete(&run).expect("it is held");
    }

    fn respond(&self, run: &Run) -> Response {
        let stream = self.hub.resume(&*run.id, &run.begin);
        let response = stream.map(|it| SseResponse::new(it).view(ChunkView::default()));
        ([HEADER], response).into_response()
    }
}

async fn send(State(service): State<Service>, Json(posted): Json<Posted>) -> Response {
    let mut chats = service.database.lock();
    let chat = chats.entry(posted.id).or_default();
    if chat.run.as_ref().is_some_and(|run| !run.has_ended) {
        return (StatusCode::CONFLICT, "This chat is being answered.").into_response();
    }
    chat.messages.extend(posted.messages.last().cloned());
    chat.runs += 1;
    let id = format!("run {}", chat.runs);
    let hold = service.hub.hold(&*id).expect("there is room");
    let begin = service.hub.position(&id).expect("it is held").into();
    let run = Run {
        id,
        begin,
        has_ended: false,
    };
    *service.agent.lock().expect("no panic") = Some((run.id.clone(), hold));
    service.broadcast(Start::new().message_id(&*run.id));
    service.broadcast(TextStart::new("text"));
    let response = service.respond(&run);
    chat.run = Some(run);
    response
}

async fn messages(State(service): State<Service>, UrlPath(id): UrlPath<String>) -> Json<Value> {
    let mut chats = service.database.lock();
    let Some(chat) = chats.get_mut(&id) else {
        return Json(json!([]));
    };
    let messages = json!(chat.messages);
    let last_words = service.last_words.lock().expect("no panic").take();
    if let Some(text) = last_words {
        service.finish_in(chat, &text);
    }
    Json(messages)
}

async fn resume(State(service): State<Service>, UrlPath(id): UrlPath<String>) -> Response {
    let chats = service.database.lock();
    match chats.get(&id).and_then(|chat| chat.run.as_ref()) {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(run) => service.respond(run),
    }
}
