//! A chat with rooms. A room is a set of users that the service keeps; an event for a room is one `broadcast_many`, encoded once.
//!
//!     cargo run -p chat
//!     curl -X PUT http://127.0.0.1:3000/ann/rooms/lobby
//!     curl -N http://127.0.0.1:3000/ann/events &
//!     curl -d hello http://127.0.0.1:3000/ann/rooms/lobby
//!     curl -X POST http://127.0.0.1:3000/ann/rooms/lobby/typing
//!
//! Each user has one stream for all rooms; after a lost connection it continues where it was, in all of them. The user is in
//! the path so that `curl` can be anybody. A service takes it from a session: see `examples/auth`.
//!
//! Each room has a lock, held while its members change and while an event goes to all of them. All members therefore see the
//! events of a room in the same order, and a user who has left gets none that was said afterwards. Rooms do not wait for
//! each other. For rooms of thousands, `Publisher::publish_many` keeps this work off the handler's thread.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use serde_json::{Value, json};
use tidings::{ConfigError, History, Hub, JsonEvent, LastEventId, RegisterError, Subscription};

pub(crate) type Event = JsonEvent<Value>;

#[derive(Clone)]
pub(crate) struct Chat {
    pub(crate) hub: Hub<Event>,
    /// A service with thousands of rooms, or rooms that come and go, has the members in its database.
    rooms: Arc<HashMap<&'static str, Mutex<BTreeSet<String>>>>,
}

impl Chat {
    pub(crate) fn new(rooms: impl IntoIterator<Item = &'static str>) -> Result<Self, ConfigError> {
        let rooms = rooms.into_iter().map(|room| (room, Mutex::default()));
        Ok(Self {
            hub: Hub::builder().history(History::new(200)).build()?,
            rooms: Arc::new(rooms.collect()),
        })
    }

    /// Sends an event to the members of a room: who joins gets it as well, and who leaves.
    fn send(&self, kind: &str, (user, room): (String, String), text: &str) -> Response {
        let Some(members) = self.rooms.get(&*room) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        let mut members = members.lock().unwrap_or_else(PoisonError::into_inner);
        let is_member = members.contains(&user);
        match kind {
            "joined" if is_member => return StatusCode::NO_CONTENT.into_response(),
            "joined" => drop(members.insert(user.clone())),
            _ if !is_member => return StatusCode::FORBIDDEN.into_response(),
            _ => {}
        }
        let event = json!({ "room": room, "user": user, "text": text });
        let event = JsonEvent::new(event).event(kind);
        let sent = match kind {
            // Whoever is away need not know.
            "typing" => self.hub.broadcast_many_ephemeral(&*members, &event),
            _ => self.hub.broadcast_many(&*members, &event),
        };
        if kind == "left" {
            members.remove(&user);
        }
        sent.map(|_| StatusCode::NO_CONTENT).into_response()
    }
}

type Place = Path<(String, String)>;

pub(crate) fn router(chat: Chat) -> Router {
    let room = put(async |State(chat): State<Chat>, place: Place| chat.send("joined", place.0, ""))
        .delete(async |State(chat): State<Chat>, place: Place| chat.send("left", place.0, ""))
        .post(say);
    let typing = async |State(chat): State<Chat>, place: Place| chat.send("typing", place.0, "");
    Router::new()
        .route("/{user}/events", get(events))
        .route("/{user}/rooms/{room}", room)
        .route("/{user}/rooms/{room}/typing", post(typing))
        .with_state(chat)
}

async fn events(
    State(chat): State<Chat>,
    Path(user): Path<String>,
    last_event_id: LastEventId,
) -> Result<Subscription, RegisterError> {
    chat.hub.resume(user, &last_event_id)
}

async fn say(State(chat): State<Chat>, Path(place): Place, text: String) -> Response {
    chat.send("said", place, &text)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tidings::serve::bind("127.0.0.1:3000").await?;
    let chat = Chat::new(["lobby", "kitchen"])?;
    axum::serve(listener, router(chat)).await?;
    Ok(())
}
