//! From bytes to items, by [WHATWG HTML, section 9.2](https://html.spec.whatwg.org/multipage/server-sent-events.html).

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use super::message::{Item, Message};

/// Decodes an event stream that arrives in pieces of any size, by WHATWG HTML, section 9.2.
///
/// Nothing is an error: what the standard ignores is ignored, bytes that are no UTF-8 become U+FFFD, and a block that has
/// not ended when the stream ends is no event. A line is kept until it ends, however long that takes.
///
/// ```
/// use tidings_testkit::{Decoder, Item};
///
/// let mut decoder = Decoder::new();
/// decoder.push(b"id: 7\r\ndata: one\r");
/// assert_eq!(decoder.next(), None);
/// decoder.push(b"\ndata: two\r\n\r\n");
/// let Some(Item::Message(message)) = decoder.next() else {
///     panic!("no event");
/// };
/// assert_eq!((&*message.data, &*message.id), ("one\ntwo", "7"));
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    /// What has come of a line.
    line: Vec<u8>,
    /// A line has ended: a BOM can only be in the first.
    is_begun: bool,
    /// The last byte was CR. An LF that follows belongs to it.
    is_after_cr: bool,
    event: String,
    data: String,
    /// The standard's last event ID buffer, which outlives the block.
    id: String,
    /// The block has an id.
    has_id: bool,
    retry: Option<Duration>,
    items: VecDeque<Item>,
}

impl Decoder {
    /// For a client's first stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// For a client that reconnects with this id, which its events have until another one arrives, as in browsers.
    #[must_use]
    pub fn resuming(last_event_id: impl Into<String>) -> Self {
        Self {
            id: last_event_id.into(),
            ..Self::default()
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if mem::take(&mut self.is_after_cr) {
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(at) = memchr::memchr2(b'\r', b'\n', bytes) {
            self.line.extend_from_slice(&bytes[..at]);
            self.end_line();
            let rest = &bytes[at..];
            self.is_after_cr = rest == b"\r";
            bytes = rest.strip_prefix(b"\r\n").unwrap_or(&rest[1..]);
        }
        self.line.extend_from_slice(bytes);
    }

    fn end_line(&mut self) {
        let line = mem::take(&mut self.line);
        // Line by line is as good as all at once: no character of more than one byte has CR or LF in it.
        let line = String::from_utf8_lossy(&line);
        let mut line = &*line;
        if !mem::replace(&mut self.is_begun, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            self.end_block();
        } else {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            self.field(name, value.strip_prefix(' ').unwrap_or(value));
        }
    }

    fn field(&mut self, name: &str, value: &str) {
        match name {
            "" => self.items.push_back(Item::Comment(value.to_owned())),
            "event" => value.clone_into(&mut self.event),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => {
                value.clone_into(&mut self.id);
                self.has_id = true;
            }
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                // Digits that are no `u64` are too many.
                let retry = Duration::from_millis(value.parse().unwrap_or(u64::MAX));
                self.retry = Some(retry);
                self.items.push_back(Item::Retry(retry));
            }
            _ => {}
        }
    }

    fn end_block(&mut self) {
        let event = mem::take(&mut self.event);
        let mut data = mem::take(&mut self.data);
        let retry = self.retry.take();
        let has_id = mem::take(&mut self.has_id);
        // The last line's LF. Data of nothing but that is an event whose data is empty; no line at all is no event.
        if data.pop().is_some() {
            let event = if event.is_empty() {
                "message".to_owned()
            } else {
                event
            };
            let id = self.id.clone();
            self.items.push_back(Item::Message(Message {
                event,
                data,
                id,
                retry,
            }));
        } else if has_id {
            self.items.push_back(Item::Id(self.id.clone()));
        }
    }
}

/// What has been read so far; `None` is not the end, but waits for more bytes.
impl Iterator for Decoder {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        self.items.pop_front()
    }
}
