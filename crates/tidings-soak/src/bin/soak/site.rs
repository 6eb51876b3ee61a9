//! What a server serves: streams of its broadcasters, each with a count of who is in.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_body::{Frame, SizeHint};
use serde::Deserialize;
use tidings::sse::SseResponse;
use tidings::{KeepAlive, LastEventId};
use tokio::time::Instant;

use crate::event::News;
use crate::hubs::{self, Broadcaster, FEW, Hub, PAIR, Policy};
use crate::server::Settings;

/// How long a stream is silent at most.
const HEARTBEAT: Duration = Duration::from_millis(500);

pub(crate) struct Site {
    pub(crate) hubs: Vec<(&'static Hub, Broadcaster)>,
    pub(crate) topics: Vec<Arc<Topic>>,
    doors: HashMap<String, Door>,
    pub(crate) is_going: AtomicBool,
    /// The streams that are there, for when one stays that should have gone.
    streams: Mutex<HashMap<u64, Arc<Streaming>>>,
    /// Held by whoever broadcasts, so that a pause begins when the last one has ended.
    gate: RwLock<()>,
    pub(crate) faults: Mutex<Vec<String>>,
}

/// What one user is sent.
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) user: String,
    hub: Broadcaster,
    is_keyed: bool,
    /// The number of the event that is being broadcast or was the last.
    started: AtomicU64,
    /// The number of the last event whose broadcast has returned.
    done: AtomicU64,
    /// The order of the numbers is that of the broadcasts.
    order: Mutex<()>,
}

impl Topic {
    pub(crate) fn publish(&self, size: usize) {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.started.load(Ordering::SeqCst) + 1;
        let news = News::new(&self.name, number, size, self.is_keyed);
        self.started.store(number, Ordering::SeqCst);
        // Where there are several nodes, one that is shutting down says so.
        let _ = self.hub.broadcast(&self.user, &news);
        self.done.store(number, Ordering::SeqCst);
    }

    pub(crate) fn head(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }
}

/// Where the streams of one user come in, at one broadcaster.
struct Door {
    hub: usize,
    topic: Arc<Topic>,
    passed: Arc<Passed>,
    /// The same of all users of the broadcaster.
    passed_by_all: Arc<Passed>,
}

/// Who has asked to be let in, and who has certainly left. The difference is never less than who is in.
#[derive(Default)]
struct Passed {
    asked: AtomicU64,
    left: AtomicU64,
}

impl Site {
    /// Needs a runtime.
    pub(crate) fn new(settings: Settings) -> Self {
        let engine = hubs::engine();
        let hubs: Vec<_> = hubs::ALL
            .iter()
            .filter(|hub| settings.has_nodes || !hub.is_node())
            .map(|hub| (hub, hub.build(&engine)))
            .collect();
        let mut topics: HashMap<String, Arc<Topic>> = HashMap::new();
        let mut doors = HashMap::new();
        let place = |name| hubs.iter().position(|(hub, _)| hub.name == name);
        for (at, (hub, _)) in hubs.iter().enumerate() {
            let passed_by_all = Arc::<Passed>::default();
            let crowd = if hub.name == FEW { 0 } else { settings.users };
            let users = (0..crowd).map(|n| (n, n.to_string()));
            let users = users.chain((0..settings.drills).map(|n| (n, format!("drill-{n}"))));
            for (n, user) in users {
                let publishes = if hub.is_node() { PAIR[n % 2] } else { hub.name };
                let publishes = place(publishes).expect("it is one of them");
                let name = format!("{}/{user}", hub.topic);
                let topic = topics.entry(name.clone()).or_insert_with(|| {
                    Arc::new(Topic {
                        name,
                        user: user.clone(),
                        hub: hubs[publishes].1.clone(),
                        is_keyed: hub.is_keyed(),
                        started: AtomicU64::new(0),
                        done: AtomicU64::new(0),
                        order: Mutex::new(()),
                    })
                });
                let door = Door {
                    hub: at,
                    topic: topic.clone(),
                    passed: Arc::default(),
                    passed_by_all: passed_by_all.clone(),
                };
                doors.insert(format!("{}/{user}", hub.name), door);
            }
        }
        let mut topics: Vec<_> = topics.into_values().collect();
        // The seed chooses among them.
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            hubs,
            topics,
            doors,
            is_going: AtomicBool::new(false),
            streams: Mutex::default(),
            gate: RwLock::new(()),
            faults: Mutex::default(),
        }
    }

    pub(crate) fn app(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/{hub}/{user}", get(stream))
            .with_state(self.clone())
    }

    /// The broadcaster and the topic of `hub/user`.
    pub(crate) fn find(&self, path: &str) -> Option<(&Broadcaster, &Topic)> {
        let door = self.doors.get(path)?;
        Some((&self.hubs[door.hub].1, &door.topic))
    }

    /// Does it unless there is a pause.
    pub(crate) fn while_going(&self, publish: impl FnOnce()) {
        let _going = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        if self.is_going.load(Ordering::SeqCst) {
            publish();
        }
    }

    /// Returns when nobody broadcasts any more.
    pub(crate) fn pause(&self) {
        self.is_going.store(false, Ordering::SeqCst);
        drop(self.gate.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn fault(&self, what: String) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.push(what);
    }
}

/// What is known of a stream that is there.
struct Streaming {
    request: String,
    begun: Instant,
    polls: AtomicU64,
    /// In milliseconds since it began.
    polled_at: AtomicU64,
}

impl Site {
    /// What is known of the streams that are there.
    pub(crate) fn who(&self) -> String {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |stream: &Arc<Streaming>| {
            let polled_at = Duration::from_millis(stream.polled_at.load(Ordering::Relaxed));
            format!(
                "{}, {:.1?} old, polled {} times, last {:.1?} ago",
                stream.request,
                stream.begun.elapsed(),
                stream.polls.load(Ordering::Relaxed),
                stream.begun.elapsed().saturating_sub(polled_at),
            )
        };
        let all: Vec<_> = streams.values().take(5).map(of).collect();
        all.join("; ")
    }
}

/// How a client wants its stream.
#[derive(Deserialize)]
struct Wishes {
    policy: Option<String>,
    deadline: Option<u64>,
}

async fn stream(
    State(site): State<Arc<Site>>,
    Path((hub, user)): Path<(String, String)>,
    Query(wishes): Query<Wishes>,
    last_event_id: LastEventId,
    request: Parts,
) -> Response {
    let path = format!("{hub}/{user}");
    let Some(door) = site.doors.get(&path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let (hub, broadcaster) = &site.hubs[door.hub];
    // What was broadcast by now may be left out, what is broadcast when the stream is there may not.
    let from = door.topic.done.load(Ordering::SeqCst);
    let left = [&door.passed, &door.passed_by_all].map(|passed| passed.left.load(Ordering::SeqCst));
    let stay = Stay::of(door);
    // Without a cluster this does not wait.
    let registered = broadcaster
        .resume_when_ready(user.as_str(), &last_event_id)
        .await;
    let subscription = match registered {
        Ok(subscription) => subscription,
        Err(error) => {
            use tidings::RegisterError::{TotalFull, UserFull};
            // At the moment of the refusal, no more were in than had asked by now and not left before; one of them is this.
            let most_in = |at: usize, passed: &Passed| {
                let asked = passed.asked.load(Ordering::SeqCst);
                asked.saturating_sub(1 + left[at])
            };
            let (most, cap) = match error {
                UserFull { cap, .. } => (most_in(0, &door.passed), cap),
                TotalFull { cap, .. } => (most_in(1, &door.passed_by_all), cap),
                _ => (u64::MAX, 0),
            };
            if most < cap as u64 {
                site.fault(format!(
                    "{path}: refused ({error}), but at most {most} were in"
                ));
            }
            return error.into_response();
        }
    };
    let until = door.topic.started.load(Ordering::SeqCst);
    let counts = [
        (broadcaster.connection_count(&user), Some(hub.cap)),
        (broadcaster.total_connections(), hub.total),
    ];
    for (count, cap) in counts {
        if cap.is_some_and(|cap| count > cap) {
            site.fault(format!("{path}: {count} connections, more than {cap:?}"));
        }
    }
    let policy = Policy::named(wishes.policy.as_deref().unwrap_or_default());
    let mut subscription = subscription.lag_policy(policy);
    if let Some(after) = wishes.deadline {
        subscription = subscription.deadline(Instant::now() + Duration::from_millis(after));
    }
    let keep_alive = KeepAlive::comment().interval(HEARTBEAT);
    let response = SseResponse::new(subscription).keep_alive(&keep_alive);
    let head = [("x-from", from.to_string()), ("x-until", until.to_string())];
    (head, response)
        .into_response()
        .map(|body| Body::new(Counted::new(body, &site, stay, &request)))
}

/// One who asked, and has left when this drops.
struct Stay([Arc<Passed>; 2]);

impl Stay {
    fn of(door: &Door) -> Self {
        let all = [door.passed.clone(), door.passed_by_all.clone()];
        for passed in &all {
            passed.asked.fetch_add(1, Ordering::SeqCst);
        }
        Self(all)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        for passed in &self.0 {
            passed.left.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// The body of a stream, which is counted until after the stream is dropped.
struct Counted {
    body: Body,
    streaming: Arc<Streaming>,
    id: u64,
    site: Arc<Site>,
    _stay: Stay,
}

impl Counted {
    fn new(body: Body, site: &Arc<Site>, stay: Stay, request: &Parts) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let streaming = Arc::new(Streaming {
            request: format!("{:?} {}", request.version, request.uri),
            begun: Instant::now(),
            polls: AtomicU64::new(0),
            polled_at: AtomicU64::new(0),
        });
        let mut streams = site.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.insert(id, streaming.clone());
        Self {
            body,
            streaming,
            id,
            site: site.clone(),
            _stay: stay,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let streams = &self.site.streams;
        let mut streams = streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.remove(&self.id);
        // What a crowd had made it grow to.
        if streams.is_empty() {
            streams.shrink_to_fit();
        }
    }
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let streaming = &self.streaming;
        let age = streaming.begun.elapsed().as_millis() as u64;
        streaming.polls.fetch_add(1, Ordering::Relaxed);
        streaming.polled_at.store(age, Ordering::Relaxed);
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
