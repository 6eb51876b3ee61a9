//! What an operator does to a user.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::caller::Caller;
use super::served::{Refusal, Shared, answer};
use tidings::ConnectionId;

#[derive(Deserialize)]
struct Disconnect {
    broadcaster: String,
    user: String,
    /// All of the user's, if none is named.
    connection: Option<String>,
}

/// Ends a connection, or all of a user, and returns how many there were.
pub(super) async fn disconnect(
    State(shared): State<Shared>,
    caller: Caller,
    body: Bytes,
) -> Result<Response, Refusal> {
    may_act(&shared)?;
    let request: Disconnect = parse(&body)?;
    let source = shared.source(&request.broadcaster)?;
    let user = &*request.user;
    let connection = request.connection.map(ConnectionId::from);
    let ended = match &connection {
        Some(connection) => usize::from(source.unregister(user, connection)),
        None => source.disconnect_user(user),
    };
    if ended == 0 {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "There is no such connection any more.",
        ));
    }
    tracing::info!(
        broadcaster = request.broadcaster,
        user,
        connection = connection.as_deref(),
        ended,
        peer = caller.peer(),
        host = caller.host(),
        operator = caller.operator(),
        "disconnected by an operator"
    );
    Ok(answer(&json!({ "ended": ended })))
}

#[derive(Deserialize)]
struct Send {
    broadcaster: String,
    user: String,
    text: String,
}

/// Sends a test event, and returns how many streams it reached.
pub(super) async fn send(
    State(shared): State<Shared>,
    caller: Caller,
    body: Bytes,
) -> Result<Response, Refusal> {
    may_act(&shared)?;
    let request: Send = parse(&body)?;
    let source = shared.source(&request.broadcaster)?;
    let Some(sent) = source.send(&request.user, &request.text) else {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "This broadcaster takes no test events: see Console::broadcaster_with.",
        ));
    };
    // Logged after a failure as well: the streams of this node may have it.
    tracing::info!(
        broadcaster = request.broadcaster,
        user = request.user,
        reached = sent.as_ref().ok(),
        peer = caller.peer(),
        host = caller.host(),
        operator = caller.operator(),
        "a test event was sent by an operator"
    );
    match sent {
        Ok(reached) => Ok(answer(&json!({ "reached": reached }))),
        Err(error) => {
            let sentence = format!("Not sent: {error}.");
            Err(Refusal::new(error.into_response().status(), sentence))
        }
    }
}

fn may_act(shared: &Shared) -> Result<(), Refusal> {
    if shared.read_only {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "The console is read-only.",
        ));
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| {
        Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("The body is invalid: {error}."),
        )
    })
}
