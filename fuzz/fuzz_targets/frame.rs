//! A frame is one whole event: three decoders find in it what was put in, and what is refused deserves it.
#![no_main]

use std::fmt::Write as _;
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use sse_stream::Sse;
use tidings::{Data, EncodeError, EventId, Field, Frame, JsonEvent, Text, ToSse};
use tidings_fuzz::decoders::{Dispatched, blocks, by_standard, cut, dispatched, items};
use tidings_fuzz::json::{self, Any};

#[derive(Debug, Arbitrary)]
struct Input {
    events: Vec<Event>,
    /// Where the stream is cut.
    lengths: Vec<u8>,
}

#[derive(Debug, Arbitrary)]
struct Event {
    name: Option<String>,
    id: Option<String>,
    retry: Option<Duration>,
    comment: Option<String>,
    body: Body,
}

#[derive(Debug, Arbitrary)]
enum Body {
    Pieces(Vec<Piece>),
    Json(Any),
    Text(String),
}

#[derive(Debug, Arbitrary)]
enum Piece {
    Text(String),
    Formatted(char),
    Utf8(Vec<u8>),
    Json(Any),
}

fuzz_target!(|input: Input| {
    let mut stream = Vec::new();
    let (mut expected, mut expected_blocks) = (Vec::new(), Vec::new());
    let (mut last_id, mut last_retry) = (String::new(), None);
    for event in &input.events {
        let id = event.id.as_deref().and_then(id_of);
        let frame = match event.encode(id.clone()) {
            Ok(frame) => frame,
            Err(error) => {
                event.check_refused(&error);
                continue;
            }
        };
        assert!(event.refused().is_none(), "{event:?} was not refused");
        let wire = frame.as_bytes();
        assert!(
            wire.ends_with(b"\n\n") && !wire.contains(&b'\r'),
            "{event:?}"
        );
        stream.extend_from_slice(wire);

        let data = event.data();
        assert_eq!(frame.data(), data);
        if let Some(id) = &id {
            last_id = id.to_string();
        }
        let retry = event
            .retry
            .map(|retry| retry.as_millis().min(i32::MAX as u128));
        last_retry = retry.or(last_retry);
        // Those that are ready-made have none.
        let comment = event
            .comment
            .as_ref()
            .filter(|_| matches!(event.body, Body::Pieces(_)));
        expected.push(Dispatched {
            event: event.name.clone().unwrap_or("message".to_owned()),
            data: data.clone(),
            id: last_id.clone(),
            retry: last_retry,
            comments: comment.into_iter().cloned().collect(),
        });
        expected_blocks.push(Sse {
            event: event.name.clone(),
            data: Some(data),
            id: id.map(|id| id.to_string()),
            retry: retry.map(|retry| retry as u64),
        });
    }
    let chunks = cut(&stream, &input.lengths);
    assert_eq!(by_standard(&chunks), expected);
    assert_eq!(dispatched(items(&chunks)), expected);
    assert_eq!(blocks(&chunks), expected_blocks);
});

/// An id, which has to be one line of not too many bytes.
fn id_of(text: &str) -> Option<EventId> {
    let id = EventId::new(text).ok();
    let is_valid = !text.is_empty() && text.len() <= EventId::MAX_LEN && is_one_line(text);
    assert_eq!(id.is_some(), is_valid, "{text:?}");
    id
}

fn is_one_line(text: &str) -> bool {
    !text.contains(['\r', '\n', '\0'])
}

/// An event that writes its pieces.
struct InPieces<'a>(&'a Event, Option<EventId>, &'a [Piece]);

impl ToSse for InPieces<'_> {
    fn event(&self) -> Option<&str> {
        self.0.name.as_deref()
    }

    fn id(&self) -> Option<EventId> {
        self.1.clone()
    }

    fn retry(&self) -> Option<Duration> {
        self.0.retry
    }

    fn comment(&self) -> Option<&str> {
        self.0.comment.as_deref()
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        for piece in self.2 {
            match piece {
                Piece::Text(text) => data.text(text),
                Piece::Formatted(char) => write!(data, "{char}").map_err(EncodeError::other)?,
                Piece::Utf8(bytes) => data.utf8(bytes)?,
                Piece::Json(Any(value)) => data.json(value)?,
            }
        }
        Ok(())
    }
}

/// Gives a ready-made event the fields that it can have.
macro_rules! ready_made {
    ($event:expr, $fields:expr, $id:expr) => {{
        let mut event = $event;
        if let Some(name) = &$fields.name {
            event = event.event(name);
        }
        if let Some(id) = $id {
            event = event.id(id);
        }
        if let Some(retry) = $fields.retry {
            event = event.retry(retry);
        }
        Frame::encode(&event)
    }};
}

impl Event {
    fn encode(&self, id: Option<EventId>) -> Result<Frame, EncodeError> {
        match &self.body {
            Body::Pieces(pieces) => Frame::encode(&InPieces(self, id, pieces)),
            Body::Json(Any(value)) => ready_made!(JsonEvent::new(value), self, id),
            Body::Text(text) => ready_made!(Text::new(text), self, id),
        }
    }

    /// The first field that cannot be written.
    fn refused(&self) -> Option<Field> {
        let is_bad = |text: &Option<String>| text.as_deref().is_some_and(|text| !is_one_line(text));
        match &self.body {
            Body::Pieces(_) if is_bad(&self.comment) => Some(Field::Comment),
            _ if is_bad(&self.name) || self.name.as_deref() == Some("") => Some(Field::Event),
            Body::Pieces(pieces) if !pieces.iter().all(Piece::is_utf8) => Some(Field::Data),
            _ => None,
        }
    }

    fn check_refused(&self, error: &EncodeError) {
        assert!(error.field().is_some(), "{error}");
        assert_eq!(error.field(), self.refused(), "{self:?}: {error}");
    }

    /// As a client gets it.
    fn data(&self) -> String {
        let data = match &self.body {
            Body::Pieces(pieces) => pieces.iter().map(Piece::text).collect(),
            Body::Json(Any(value)) => json::line(value),
            Body::Text(text) => text.clone(),
        };
        data.replace("\r\n", "\n").replace('\r', "\n")
    }
}

impl Piece {
    fn is_utf8(&self) -> bool {
        !matches!(self, Self::Utf8(bytes) if str::from_utf8(bytes).is_err())
    }

    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Formatted(char) => char.to_string(),
            Self::Utf8(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Json(Any(value)) => json::line(value),
        }
    }
}
