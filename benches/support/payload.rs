//! What is broadcast.

use serde::Serialize;
use tidings::{Data, EncodeError, ToSse};

/// A message of a chat, about 200 bytes as JSON.
#[derive(Serialize)]
pub(crate) struct Message {
    id: u64,
    from: String,
    room: String,
    text: String,
    seen: bool,
    reactions: Vec<u32>,
}

impl Message {
    fn number(id: u64) -> Self {
        Self {
            id: 1_000_000 + id,
            from: "ann.example".into(),
            room: "general".into(),
            text: "\"On time\", she said; the rest of us were late, as we had been on each day of that week."
                .into(),
            seen: id % 2 == 0,
            reactions: vec![3, 1, 4],
        }
    }
}

/// An event called `message` with some messages.
pub(crate) struct Messages(pub(crate) Vec<Message>);

impl Messages {
    /// So many that their JSON has about this many bytes.
    pub(crate) fn filling(bytes: usize) -> Self {
        let count = (bytes / 200).max(1) as u64;
        Self((0..count).map(Message::number).collect())
    }
}

impl ToSse for Messages {
    fn event(&self) -> Option<&str> {
        Some("message")
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        data.json(&self.0)
    }
}
