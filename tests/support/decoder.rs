//! A decoder of event streams, written from WHATWG HTML, section 9.2 ("Parsing an event stream" and "Interpreting an
//! event stream"), and from nothing else.

use std::mem;

use tidings_testkit::Item;

/// A dispatched event, as a browser's listener sees it, and the comments that stood in its block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dispatched {
    pub(crate) event: String,
    pub(crate) data: String,
    /// The last event id: it stays until another one comes.
    pub(crate) id: String,
    /// The reconnection time in milliseconds: it stays as well.
    pub(crate) retry: Option<u128>,
    pub(crate) comments: Vec<String>,
}

impl Dispatched {
    /// What a listener gets of what the test kit's decoder tells: that tells comments and times as they come.
    #[allow(dead_code, reason = "not every file compares the two")]
    pub(crate) fn of_items(items: impl IntoIterator<Item = Item>) -> Vec<Self> {
        let (mut dispatched, mut comments, mut retry) = (Vec::new(), Vec::new(), None);
        for item in items {
            match item {
                Item::Comment(comment) => comments.push(comment),
                Item::Retry(after) => retry = Some(after.as_millis()),
                Item::Message(message) => dispatched.push(Self {
                    event: message.event,
                    data: message.data,
                    id: message.id,
                    retry,
                    comments: mem::take(&mut comments),
                }),
                _ => {}
            }
        }
        dispatched
    }
}

/// Takes bytes in whatever pieces they come.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    line: Vec<u8>,
    not_first_line: bool,
    /// The last byte was CR: an LF that follows belongs to it.
    after_cr: bool,
    event_type: String,
    data: String,
    last_event_id: String,
    /// The one that a reconnect names: it is that of the last whole block.
    reconnects_with: String,
    retry: Option<u128>,
    comments: Vec<String>,
    dispatched: Vec<Dispatched>,
}

impl Decoder {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let after_cr = mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => self.end_line(),
                _ => self.line.push(byte),
            }
        }
    }

    /// What has been dispatched since the last call. A block that has not ended is not: at the end of the stream it is
    /// discarded.
    pub(crate) fn take(&mut self) -> Vec<Dispatched> {
        mem::take(&mut self.dispatched)
    }

    /// The id that a client which reconnects now sends as `Last-Event-ID`.
    #[allow(dead_code, reason = "not every file reconnects")]
    pub(crate) fn reconnects_with(&self) -> &str {
        &self.reconnects_with
    }

    fn end_line(&mut self) {
        let line = mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let mut line = &*line;
        // "The UTF-8 decode algorithm strips one leading UTF-8 Byte Order Mark, if any."
        if !mem::replace(&mut self.not_first_line, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            self.dispatch();
        } else {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            self.field(name, value.strip_prefix(' ').unwrap_or(value));
        }
    }

    fn field(&mut self, name: &str, value: &str) {
        match name {
            // "If the line starts with a colon: ignore the line." Kept here to be compared.
            "" => self.comments.push(value.to_owned()),
            "event" => self.event_type = value.to_owned(),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.last_event_id = value.to_owned(),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                // There is no limit to the digits; what does not fit is the longest.
                self.retry = Some(value.parse().unwrap_or(u128::MAX));
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        // "Set the last event ID string of the event source to the value of the last event ID buffer", with data or without.
        self.reconnects_with.clone_from(&self.last_event_id);
        let event_type = mem::take(&mut self.event_type);
        let mut data = mem::take(&mut self.data);
        let comments = mem::take(&mut self.comments);
        if data.is_empty() {
            return;
        }
        data.pop();
        self.dispatched.push(Dispatched {
            event: if event_type.is_empty() {
                "message".to_owned()
            } else {
                event_type
            },
            data,
            id: self.last_event_id.clone(),
            retry: self.retry,
            comments,
        });
    }
}
