//! The id that a client comes back with, out of its request.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::request::Parts;

use crate::id::{EventId, LastEventId};

const HEADER: &str = "last-event-id";
/// For clients that cannot set the header.
const PARAMETERS: [&str; 2] = ["last_event_id", "lastEventId"];

/// Never refuses a request. Takes the header `Last-Event-ID`; without it the query's `last_event_id` or `lastEventId`, for
/// clients that cannot set the header. Of no id more than 128 bytes are looked at. If there are several that differ, or one
/// that is no text, the client has seen something that nobody can name. It never waits.
///
/// ```
/// use axum::extract::{Path, State};
/// use tidings::{GenericBroadcaster, LastEventId, RegisterError, Subscription, Text};
///
/// async fn stream(
///     State(hub): State<GenericBroadcaster<Text>>,
///     Path(user): Path<String>,
///     last_event_id: LastEventId,
/// ) -> Result<Subscription, RegisterError> {
///     hub.resume(user, &last_event_id)
/// }
/// ```
impl<S: Send + Sync> FromRequestParts<S> for LastEventId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let header = of_header(&parts.headers);
        Ok(header.unwrap_or_else(|| of_query(parts.uri.query().unwrap_or_default())))
    }
}

fn of_header(headers: &HeaderMap) -> Option<LastEventId> {
    let mut values = headers.get_all(HEADER).iter();
    let first = values.next()?;
    if values.any(|other| other != first) {
        return Some(LastEventId::unknown());
    }
    let id = first.to_str().map(LastEventId::new);
    Some(id.unwrap_or(LastEventId::unknown()))
}

fn of_query(query: &str) -> LastEventId {
    let mut values = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| PARAMETERS.contains(name))
        .map(|(_, value)| value);
    let Some(first) = values.next() else {
        return LastEventId::none();
    };
    if values.any(|other| other != first) || first.len() > EventId::MAX_LEN {
        return LastEventId::unknown();
    }
    // Ids of ours need no escapes, and what has been escaped nevertheless is none of ours or differs by `%2D`.
    LastEventId::new(&first.replace("%2D", "-").replace("%2d", "-"))
}
