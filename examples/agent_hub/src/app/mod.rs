//! The routes. [`router`] is the whole of it, so that tests can serve it in a process of their own.
//!
//! The user is a part of each path, so that one can play with it. A service would take it from what it has authenticated:
//! whoever names a user here gets that user's events.
//!
//! - `streams` opens streams of events, `events` sends some, both one kind at a time.
//! - `agui`, `a2a`, `aisdk` and `tanstack` are what the official clients of AG-UI, of A2A, of the AI SDK and of TanStack AI talk
//!   to.
//! - `agent` is an agent for them, a small one, and `work` how much it does at a time. `runs` has what it does, so that clients
//!   that come back get it, `elsewhere` those of other hubs, and `threads` what was said.
//! - `site` is which hosts it answers to, and which pages may ask.
//! - `limits` is what a request may be at the most. It is served behind `tidings::serve`, which bounds its head.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tidings::protocol::a2a::{A2aEvent, TaskState};
use tidings::protocol::agui::{AgUiEvent, Body, Event, RunRef};
use tidings::{
    BroadcastError, EventRouter, GenericBroadcaster, KeepAlive, RefusalForm, RegisterError, Routed,
    Text,
};
use tidings_aisdk::Chunk;

mod a2a;
mod agent;
mod agui;
mod aisdk;
mod body;
mod cut;
mod elsewhere;
mod events;
mod limits;
pub(crate) mod runs;
pub(crate) mod site;
mod streams;
mod tanstack;
mod threads;
mod work;

use a2a::tasks::{Tasks, Unsent};
use agent::{Job, Outlet};
use body::Refusal;
use cut::Cuts;
use runs::{Phase, Run, Runs};
use site::Site;
use threads::Threads;
use work::Work;

/// What the routes share.
#[derive(Clone)]
pub(crate) struct Hub {
    text: GenericBroadcaster<Text>,
    events: EventRouter,
    tasks: Arc<Tasks>,
    /// Of the agent, as events of AG-UI.
    runs: Runs<AgUiEvent>,
    threads: Threads,
    /// The same for the chats of the AI SDK, in its chunks.
    chats: Runs<Chunk>,
    work: Work,
    /// How long a stream may be silent, if not as long as its kind may by default.
    heartbeat: Option<Duration>,
    /// How long clients shall wait before they reconnect.
    retry: Option<Duration>,
    cuts: Cuts,
    site: Site,
}

impl Hub {
    pub(crate) fn new(
        text: GenericBroadcaster<Text>,
        events: EventRouter,
        heartbeat: Option<Duration>,
        retry: Option<Duration>,
    ) -> Self {
        Self {
            text,
            events,
            tasks: Arc::default(),
            runs: Runs::new(runs::of_agent(), tanstack::summary),
            threads: Threads::default(),
            chats: Runs::new(runs::of_chats(), |_| None),
            work: Work::default(),
            heartbeat,
            retry,
            cuts: Cuts::default(),
            site: Site::default(),
        }
    }

    fn keep_alive(&self, form: KeepAlive) -> KeepAlive {
        match self.heartbeat {
            Some(interval) => form.interval(interval),
            None => form,
        }
    }

    /// Says how clients reach it, if not by loopback names and addresses only.
    pub(crate) fn site(mut self, site: Site) -> Self {
        self.site = site;
        self
    }

    /// Shares the runs with other hubs: those of the agent, and those of the AI SDK's chats. Has to be called in a runtime.
    #[allow(dead_code, reason = "some tests have one hub only")]
    pub(crate) fn sharing(
        mut self,
        runs: GenericBroadcaster<AgUiEvent>,
        chats: GenericBroadcaster<Chunk>,
        notices: &GenericBroadcaster<Text>,
    ) -> Result<Self, RegisterError> {
        self.runs = self.runs.over(runs, notices, "runs")?;
        self.chats = self.chats.over(chats, notices, "aisdk")?;
        Ok(self)
    }

    /// The runs of the agent, each a channel.
    #[allow(dead_code, reason = "tests serve the routes without the program")]
    pub(crate) fn runs(&self) -> &GenericBroadcaster<AgUiEvent> {
        self.runs.hub()
    }

    /// The runs of the AI SDK's chats, each a channel.
    #[allow(dead_code, reason = "tests serve the routes without the program")]
    pub(crate) fn chats(&self) -> &GenericBroadcaster<Chunk> {
        self.chats.hub()
    }

    /// Sends an AG-UI event, also to those who follow its run alone.
    fn publish_agui(&self, user: &str, event: &AgUiEvent) -> Result<Routed, BroadcastError> {
        match self.say_agui(user, event)? {
            Some(routed) => Ok(routed),
            None => self.route_agui(user, event),
        }
    }

    /// The same for an event that belongs to a run that is under way; `None` if it does not.
    fn say_agui(&self, user: &str, event: &AgUiEvent) -> Result<Option<Routed>, BroadcastError> {
        let Some(of) = &event.run else {
            return Ok(None);
        };
        let end = match event.event.body {
            Body::RunFinished(_) => Some(Phase::Finished),
            Body::RunError(_) => Some(Phase::Failed),
            _ => None,
        };
        let route = || self.route_agui(user, event);
        self.runs
            .say(user, of.thread(), of.run(), event, end, route)
    }

    fn route_agui(&self, user: &str, event: &AgUiEvent) -> Result<Routed, BroadcastError> {
        if let Some(of) = &event.run {
            // Before the run ends, so that a page that finds it over also finds its text.
            self.threads.hear(user, of.thread(), &event.event);
        }
        self.events.route_agui(user, event)
    }

    /// Sends an A2A event, and keeps its task up to date.
    fn publish_a2a(&self, user: &str, event: &A2aEvent) -> Result<Routed, Unsent> {
        let send = |event: &A2aEvent| self.events.route_a2a(user, event);
        self.tasks.update(user, event, false, send)
    }

    /// The same for an event of the agent, whose tasks are bounded by its work.
    fn say_a2a(&self, user: &str, event: &A2aEvent) -> Result<(), BroadcastError> {
        let send = |event: &A2aEvent| self.events.route_a2a(user, event);
        match self.tasks.update(user, event, true, send) {
            Ok(_) | Err(Unsent::Ended | Unsent::Full) => Ok(()),
            Err(Unsent::Failed(error)) => Err(error),
        }
    }

    /// Lets the agent work for the clients of AG-UI and A2A.
    fn start_agent(&self, run: Run<AgUiEvent>, user: String, job: Job) {
        // A run that is forgotten may begin anew. Its task would be over already.
        self.tasks.forget_ended(&user, &job.id);
        let outlet = UserOutlet {
            hub: self.clone(),
            user,
            of: RunRef::new(&*job.conversation, &*job.id),
            _run: run,
        };
        self.start(job, outlet);
    }

    /// Lets the agent work. It goes on whether or not somebody listens.
    fn start(&self, job: Job, outlet: impl Outlet + Send + Sync + 'static) {
        tokio::spawn(async move {
            if let Err(error) = agent::work(job, outlet).await {
                tracing::warn!(error = error.to_string(), "the agent has failed");
            }
        });
    }
}

/// The agent's way to its user's streams.
struct UserOutlet {
    hub: Hub,
    user: String,
    of: RunRef,
    _run: Run<AgUiEvent>,
}

impl Outlet for UserOutlet {
    fn agui(&self, event: &AgUiEvent) -> Result<(), BroadcastError> {
        // Not after its end, which others may have posted.
        self.hub.say_agui(&self.user, event).map(drop)
    }

    fn a2a(&self, event: &A2aEvent) -> Result<(), BroadcastError> {
        self.hub.say_a2a(&self.user, event)
    }

    fn is_canceled(&self) -> bool {
        let (user, run) = (&self.user, self.of.run());
        self.hub.tasks.has_ended(user, run) || !self.hub.runs.is_under_way(user, run)
    }
}

impl Drop for UserOutlet {
    /// An agent that failed, or panicked, has said neither that its task is over nor that its run is.
    fn drop(&mut self) {
        let (thread, run) = (self.of.thread(), self.of.run());
        if !self.hub.tasks.has_ended(&self.user, run) {
            let last = A2aEvent::status(run, thread, TaskState::Failed);
            let _ = self.hub.say_a2a(&self.user, &last);
        }
        let last = self.of.event(Event::run_error("the agent has failed"));
        // Only a hub that stops refuses it, and that ends the streams as well.
        let _ = self.hub.say_agui(&self.user, &last);
    }
}

/// What pages follow streams with.
const CLIENT: &str = include_str!("../../../../clients/js/tidings.js");

/// Everything the hub answers to.
pub(crate) fn router(hub: Hub) -> Router {
    Router::new()
        .route("/", get(Html(include_str!("index.html"))))
        .route(
            "/index.css",
            get(typed("text/css; charset=utf-8", include_str!("index.css"))),
        )
        .route(
            "/index.js",
            get(typed(
                "text/javascript; charset=utf-8",
                include_str!("index.js"),
            )),
        )
        .route(
            "/tidings.js",
            get(typed("text/javascript; charset=utf-8", CLIENT)),
        )
        .route("/stats", get(stats))
        .route("/users/{user}/streams/{kind}", get(streams::open))
        .route("/users/{user}/events/{kind}", post(events::publish))
        .route("/users/{user}/drop", post(cut_connections))
        .route("/users/{user}/end", post(end_connections))
        .route("/agui/{user}", post(agui::run))
        .merge(a2a::router())
        .route("/tanstack/{user}", get(tanstack::get).post(tanstack::run))
        .route("/aisdk/{user}/chat", post(aisdk::send))
        .route("/aisdk/{user}/chat/{id}/stream", get(aisdk::resume))
        .route("/aisdk/{user}/chat/{id}/stop", post(aisdk::stop))
        .fallback(unknown_path)
        .layer(DefaultBodyLimit::max(limits::MOST_BODY))
        .layer(from_fn(limits::uri))
        .layer(from_fn_with_state(hub.site.clone(), site::guard))
        .with_state(hub)
}

fn typed(content_type: &'static str, text: &'static str) -> impl IntoResponse + Clone {
    ([(CONTENT_TYPE, content_type)], text)
}

/// Ends the user's connections as a server ends a response: clients see that it is complete.
async fn end_connections(State(hub): State<Hub>, Path(user): Path<String>) -> Json<Value> {
    let (runs, chats) = (hub.runs.channels_of(&user), hub.chats.channels_of(&user));
    let ended_runs = runs.iter().map(|run| hub.runs().drain_user(run));
    let ended_chats = chats.iter().map(|run| hub.chats().drain_user(run));
    let ended = ended_runs.chain(ended_chats).sum::<usize>()
        + hub.text.drain_user(&user)
        + hub.events.agui().drain_user(&user)
        + hub.events.a2a().drain_user(&user)
        + hub.events.context().drain_user(&user)
        + hub.events.analytics().drain_user(&user);
    Json(json!({ "ended": ended }))
}

/// Ends the user's connections as a crash would: clients see that the response is not complete.
async fn cut_connections(State(hub): State<Hub>, Path(user): Path<String>) -> Json<Value> {
    let (runs, chats) = (hub.runs.channels_of(&user), hub.chats.channels_of(&user));
    let cut_runs = runs.iter().map(|run| hub.cuts.cut(hub.runs(), run));
    let cut_chats = chats.iter().map(|run| hub.cuts.cut(hub.chats(), run));
    let dropped = cut_runs.chain(cut_chats).sum::<usize>()
        + hub.cuts.cut(&hub.text, &user)
        + hub.cuts.cut(hub.events.agui(), &user)
        + hub.cuts.cut(hub.events.a2a(), &user)
        + hub.cuts.cut(hub.events.context(), &user)
        + hub.cuts.cut(hub.events.analytics(), &user);
    Json(json!({ "dropped": dropped }))
}

/// The figures of the text streams, and beside them, by their names, those of the other kinds.
async fn stats(State(hub): State<Hub>) -> Json<Value> {
    let mut stats = json!(hub.text.stats());
    stats["agui"] = json!(hub.events.agui().stats());
    stats["a2a"] = json!(hub.events.a2a().stats());
    stats["context"] = json!(hub.events.context().stats());
    stats["analytics"] = json!(hub.events.analytics().stats());
    stats["runs"] = json!(hub.runs().stats());
    stats["aisdk"] = json!(hub.chats().stats());
    Json(stats)
}

async fn unknown_path(uri: Uri) -> Refusal {
    let sentence = format!("There is nothing at {}.", uri.path());
    (StatusCode::NOT_FOUND, sentence)
}

fn unknown_kind(what: &str, kind: &str) -> Refusal {
    let third = if what == "events" {
        "system"
    } else {
        "context"
    };
    let sentence = format!(
        "There are no {what} of the kind {kind:?}, only of the kinds \"agui\", \"a2a\", \"{third}\", \"analytics\" and \"text\"."
    );
    (StatusCode::NOT_FOUND, sentence)
}

/// A refusal for clients that read one answer and do not reconnect: they would take an event stream that says when to come
/// back for an empty answer.
fn refused(error: RegisterError) -> Response {
    error.in_form(RefusalForm::Status).into_response()
}
