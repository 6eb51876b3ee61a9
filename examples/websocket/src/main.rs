//! The same events over a WebSocket: one task for each, fed from a subscription, with ids and gaps.
//!
//!     cargo run -p websocket
//!
//! For clients that already have a socket open. A WebSocket is not needed to write to the server, since a `POST` does that,
//! and the browser does less for it: it does not reconnect, and does not say which event it saw last. The page has to do
//! both, with the id of the last message in the query: `ws://…/events/ann?last_event_id=…`.

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::StreamExt;
use serde::Serialize;
use tidings::{
    Frame, Gap, GenericBroadcaster, HEARTBEAT_INTERVAL, History, LastEventId, Subscription, Text,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

type Hub = GenericBroadcaster<Text>;

pub(crate) fn hub() -> Result<Hub, tidings::ConfigError> {
    GenericBroadcaster::builder()
        .history(History::new(500))
        .build()
}

pub(crate) fn router(hub: Hub) -> Router {
    Router::new()
        .route("/events/{user}", get(open).post(send))
        .with_state(hub)
}

/// What a client reads: JSON, one message for each event. A gap is one too.
#[derive(Default, Serialize)]
struct Record {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    event: String,
    data: String,
}

impl Record {
    fn of_event(frame: &Frame) -> Self {
        let mut record = Self {
            event: "message".into(),
            data: frame.data(),
            ..Self::default()
        };
        for (name, value) in frame.fields() {
            match name {
                "id" => record.id = Some(value.into()),
                "event" => record.event = value.into(),
                _ => {}
            }
        }
        record
    }

    /// As an event stream has it.
    fn of_gap(gap: &Gap) -> Self {
        let data = serde_json::json!({ "reason": gap.reason.as_str(), "missed": gap.missed });
        Self {
            id: gap.id().map(|id| id.as_str().into()),
            event: "gap".into(),
            data: data.to_string(),
        }
    }

    fn into_message(self) -> Message {
        let json = serde_json::to_string(&self).expect("strings can be serialised");
        Message::Text(json.into())
    }
}

// The user stands in the path to keep the example to its question; see `auth`. Browsers let any page open a WebSocket and
// send the cookies with it, whatever CORS says: with cookies, check the header `Origin` as well.
async fn open(
    State(hub): State<Hub>,
    Path(user): Path<String>,
    last_event_id: LastEventId,
    upgrade: WebSocketUpgrade,
) -> Response {
    // Registered before the answer, so that what is broadcast from then on arrives.
    match hub.resume(user, &last_event_id) {
        Ok(subscription) => upgrade.on_upgrade(move |socket| forward(subscription, socket)),
        Err(error) => error.into_response(),
    }
}

/// Sends what comes until either side ends. Dropping the subscription, on every path, takes the connection out.
async fn forward(mut subscription: Subscription, mut socket: WebSocket) {
    // In place of the keep-alive of an event stream. The pongs say that the client is there.
    let mut pings = interval_at(Instant::now() + HEARTBEAT_INTERVAL, HEARTBEAT_INTERVAL);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            item = subscription.next() => match item {
                Some(Ok(frame)) => Record::of_event(&frame).into_message(),
                Some(Err(gap)) => Record::of_gap(&gap).into_message(),
                None => break,
            },
            _ = pings.tick() => Message::Ping(axum::body::Bytes::new()),
            received = socket.recv() => match received {
                // Pings are answered by the library, and nothing else is expected.
                Some(Ok(_)) => continue,
                Some(Err(_)) | None => return,
            },
        };
        // While a client does not read, this waits, and the subscription falls behind: the ring is bounded, and so is the
        // wait, by the stall limit of the listener.
        if socket.send(message).await.is_err() {
            return;
        }
    }
    // The hub has ended the stream: the client may come back.
    let reason = Utf8Bytes::from_static("come back");
    let close = CloseFrame {
        code: close_code::RESTART,
        reason,
    };
    let _ = socket.send(Message::Close(Some(close))).await;
}

async fn send(State(hub): State<Hub>, Path(user): Path<String>, text: String) -> String {
    match hub.broadcast(&user, &Text::new(text)) {
        Ok(reached) => format!("reached {reached} connections\n"),
        Err(error) => format!("not sent: {error}\n"),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1);
    let address = address.as_deref().unwrap_or("127.0.0.1:3000");
    let listener = tokio::net::TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    println!("websocket listens on http://{address}\n");
    println!("In the console of a browser:\n");
    println!("  new WebSocket('ws://{address}/events/ann').onmessage = m => console.log(m.data)\n");
    println!("and then: curl -d hello http://{address}/events/ann");
    axum::serve(tidings::serve::listener(listener), router(hub()?)).await?;
    Ok(())
}
