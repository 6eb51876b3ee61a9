//! The status of a user's orders, from a database: clients resume by the database's numbers, after a restart as well.
//!
//!     cargo run -p orders
//!     curl -N http://127.0.0.1:3000/ann/events &
//!     curl -d '7 is shipped' http://127.0.0.1:3000/ann/events
//!
//! The table is in memory, so that this runs without a database. `insert` and `after` are what a service asks of Postgres; the
//! statements, and why a sequence alone is not enough, are in `docs/resume.md`. The hub keeps no history: the table has it.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tidings::sse::{Chunks, SseResponse, View};
use tidings::{BroadcastError, EventId, Frame, Gap, Hub, LastEventId, RegisterError, Text};

#[derive(Clone, Default)]
pub(crate) struct Orders {
    hub: Hub<Text>,
    pub(crate) table: Arc<Mutex<HashMap<String, Vec<String>>>>,
}

impl Orders {
    /// The transaction takes the user's next number, inserts the row, and notifies. Each node then broadcasts the row, in
    /// the order of commits: here under the lock.
    fn insert(&self, user: &str, body: String) -> Result<usize, BroadcastError> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = table.entry(user.to_owned()).or_default();
        rows.push(body.clone());
        self.hub.broadcast(user, &event(rows.len() as u64, body))
    }

    /// `select number, body from events where user_id = $1 and number > $2 order by number`
    fn after(&self, user: &str, number: u64) -> Vec<(u64, String)> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = (1..).zip(table.get(user).into_iter().flatten().cloned());
        rows.filter(|(row, _)| *row > number).collect()
    }
}

fn event(number: u64, body: String) -> Text {
    Text::new(body).id(EventId::from(number))
}

/// What the client missed, then what comes and was not in the table by then.
struct Behind(Vec<(u64, String)>, u64);

impl View for Behind {
    fn begin(&mut self, chunks: &mut Chunks) -> ControlFlow<()> {
        for (number, body) in self.0.drain(..) {
            let frame = Frame::encode(&event(number, body));
            chunks.push(frame.expect("text can be encoded").to_bytes());
        }
        ControlFlow::Continue(())
    }

    fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
        if number(frame.id()) > self.1 {
            chunks.push(frame.to_bytes());
        }
        ControlFlow::Continue(())
    }

    // The client comes back with its last id and gets from the table what this stream was too slow for.
    fn gap(&mut self, _: &Gap, _: &mut Chunks) -> ControlFlow<()> {
        ControlFlow::Break(())
    }
}

/// An id that is not a number is somebody else's: its client gets everything.
fn number(id: Option<&str>) -> u64 {
    id.and_then(|id| id.parse().ok()).unwrap_or(0)
}

type Stream = Result<SseResponse, RegisterError>;

async fn events(State(app): State<Orders>, Path(user): Path<String>, id: LastEventId) -> Stream {
    let subscription = app.hub.register(&*user)?; // first, then the table
    let seen = number(id.as_str());
    let missed = app.after(&user, seen);
    let shown = missed.last().map_or(seen, |(number, _)| *number);
    Ok(SseResponse::new(subscription).view(Behind(missed, shown)))
}

async fn report(State(app): State<Orders>, Path(user): Path<String>, body: String) -> Response {
    app.insert(&user, body).map(drop).into_response()
}

pub(crate) fn router(orders: Orders) -> Router {
    let events = get(events).post(report);
    Router::new()
        .route("/{user}/events", events)
        .with_state(orders)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listener = tidings::serve::bind("127.0.0.1:3000").await?;
    axum::serve(listener, router(Orders::default())).await?;
    Ok(())
}
