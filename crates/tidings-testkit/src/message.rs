//! What a client reads from a stream.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Anything that a stream sends, in wire order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Item {
    /// An event.
    Message(Message),
    /// A comment, without its colon and one space after it: usually a keep-alive. It is returned as soon as its line
    /// has ended.
    Comment(String),
    /// An id to reconnect with, from a block that is not an event. An empty one makes the client forget its id.
    Id(String),
    /// How long to wait before reconnecting, returned as soon as the line has ended. If an event follows in the block,
    /// the event has it too.
    Retry(Duration),
}

/// An event, as a browser's listener gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Message {
    /// Its name; `message` if it came without one.
    pub event: String,
    /// Its data, the lines joined by LF.
    pub data: String,
    /// The last event id: its own, or else that of an event before it. Empty if there was none.
    pub id: String,
    /// How long to wait before reconnecting, if the event itself says so.
    pub retry: Option<Duration>,
}

impl Message {
    /// The data as JSON.
    ///
    /// # Panics
    ///
    /// If the data is not the JSON of a `T`; the message has the data and what is wrong with it.
    #[must_use]
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        let Self { event, data, .. } = self;
        serde_json::from_str(data).unwrap_or_else(|error| {
            panic!("the event {event:?} has data that is no such JSON: {error}; the data: {data}")
        })
    }

    /// The events that it reports as missing; `None` if it is not the event [`gap`](tidings::Gap).
    #[must_use]
    pub fn gap(&self) -> Option<SeenGap> {
        let is_gap = self.event == "gap";
        is_gap.then(|| serde_json::from_str(&self.data).ok())?
    }
}

/// The data of the event [`gap`](tidings::Gap), as a client reads it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct SeenGap {
    /// Why events are missing, as in [`GapReason::as_str`](tidings::GapReason::as_str).
    pub reason: String,
    /// How many; `None` if unknown.
    pub missed: Option<u64>,
}
