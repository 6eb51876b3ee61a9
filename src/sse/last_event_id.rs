//! Reads the id that a client resumes from out of its request.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::request::Parts;

use crate::id::{EventId, LastEventId};

const HEADER: &str = "last-event-id";

/// Never refuses a request. Takes the header `Last-Event-ID`; without it the parameter of that name in the query, for
/// clients that cannot set the header: `last_event_id`, `lastEventId`, `Last-Event-ID`, in any spelling that differs in
/// case, `-` and `_`. An empty value counts as none, in the header and in the query. At most 128 bytes of an id are read. If
/// there are several that differ, or one that is not text, the client counts as having seen an unknown event. It never waits.
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
    let values = headers.get_all(HEADER).iter();
    let mut values = values.filter(|value| !value.is_empty());
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
        .filter(|(name, value)| is_parameter(name) && !value.is_empty())
        .map(|(_, value)| value);
    let Some(first) = values.next() else {
        return LastEventId::none();
    };
    if values.any(|other| other != first) || first.len() > EventId::MAX_LEN {
        return LastEventId::unknown();
    }
    // Our ids need no escapes. Some clients escape `-` and `~` nevertheless; with any other escape it is not one of our ids.
    let id = first.replace("%2D", "-").replace("%2d", "-");
    LastEventId::new(&id.replace("%7E", "~").replace("%7e", "~"))
}

/// Whether a query's parameter is the id, however its words are joined.
fn is_parameter(name: &str) -> bool {
    let letters = name.bytes().filter(|byte| !matches!(byte, b'-' | b'_'));
    let letters = letters.map(|byte| byte.to_ascii_lowercase());
    letters.eq(*b"lasteventid")
}
