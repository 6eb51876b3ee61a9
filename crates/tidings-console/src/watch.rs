//! A user's stream as the page shows it.

use std::ops::ControlFlow;

use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use tidings::Frame;
use tidings::Gap;
use tidings::sse::{Chunks, View};

/// How much of an event's data is passed on: enough to look at, since events may be large.
const MOST_CHARS: usize = 4000;

/// Wraps each event in an event `seen`, so that one listener gets all of them whatever their names are. A gap stays as it is.
pub(super) struct Seen {
    _place: OwnedSemaphorePermit,
}

impl Seen {
    /// Keeps the place as long as the stream is there.
    pub(super) fn new(place: OwnedSemaphorePermit) -> Self {
        Self { _place: place }
    }
}

impl View for Seen {
    fn begin(&mut self, chunks: &mut Chunks) -> ControlFlow<()> {
        // The page reports that it watches once the service has answered, not just a proxy.
        chunks.push("event: watching\ndata: {}\n\n");
        ControlFlow::Continue(())
    }

    fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
        let field = |name| frame.fields().find(|field| field.0 == name);
        let data = frame.data();
        let end = data.char_indices().nth(MOST_CHARS).map(|(at, _)| at);
        let seen = json!({
            "event": field("event").map_or("message", |(_, event)| event),
            "id": field("id").map(|(_, id)| id),
            "data": &data[..end.unwrap_or(data.len())],
            "bytes": data.len(),
            "cut": end.is_some(),
        });
        // JSON has no line breaks of its own.
        chunks.push(format!("event: seen\ndata: {seen}\n\n"));
        ControlFlow::Continue(())
    }

    fn gap(&mut self, gap: &Gap, chunks: &mut Chunks) -> ControlFlow<()> {
        let gap = json!({ "reason": gap.reason.as_str(), "missed": gap.missed });
        chunks.push(format!("event: gap\ndata: {gap}\n\n"));
        ControlFlow::Continue(())
    }
}
