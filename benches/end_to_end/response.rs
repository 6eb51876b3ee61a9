//! What one connection receives, taken apart.

use memchr::{memchr, memmem};

use crate::support::http1::Chunks;

/// A response that is read as it comes: its head, and then the `data` lines of its events.
#[derive(Debug)]
pub(crate) struct Response {
    state: State,
    /// The part of a head or a line that has come.
    part: Vec<u8>,
}

#[derive(Debug)]
enum State {
    Head,
    Chunked(Chunks),
    /// Up to the end of the connection.
    Plain,
}

impl Response {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Head,
            part: Vec::new(),
        }
    }

    pub(crate) fn has_begun(&self) -> bool {
        !matches!(self.state, State::Head)
    }

    /// Takes bytes, and passes on the data of events.
    pub(crate) fn push(
        &mut self,
        bytes: &[u8],
        mut event: impl FnMut(&[u8]),
    ) -> Result<(), String> {
        let part = &mut self.part;
        match &mut self.state {
            State::Chunked(chunks) => chunks.push(bytes, |body| lines(part, body, &mut event)),
            State::Plain => lines(part, bytes, &mut event),
            State::Head => {
                part.extend_from_slice(bytes);
                let Some(end) = memmem::find(part, b"\r\n\r\n") else {
                    return Ok(());
                };
                let rest = part.split_off(end + 4);
                let head = String::from_utf8_lossy(part).to_ascii_lowercase();
                if !head.starts_with("http/1.1 200") {
                    return Err(format!("refused: {head}"));
                }
                self.state = match head.contains("transfer-encoding: chunked") {
                    true => State::Chunked(Chunks::default()),
                    false => State::Plain,
                };
                *part = Vec::new();
                return self.push(&rest, event);
            }
        }
        Ok(())
    }
}

/// Cuts bytes into lines. Copies only what does not end here.
fn lines(part: &mut Vec<u8>, mut bytes: &[u8], event: &mut impl FnMut(&[u8])) {
    while let Some(end) = memchr(b'\n', bytes) {
        let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
        bytes = rest;
        if part.is_empty() {
            data_of(line, event);
        } else {
            part.extend_from_slice(line);
            data_of(part, event);
            part.clear();
        }
    }
    part.extend_from_slice(bytes);
}

fn data_of(line: &[u8], event: &mut impl FnMut(&[u8])) {
    if let Some(data) = line.strip_prefix(b"data: ") {
        event(data);
    }
}
