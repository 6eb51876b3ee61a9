//! How a stream ended.

use std::time::Instant;

/// More than the last event and what follows it.
const KEPT: usize = 256;

/// The last bytes of a stream, and its end.
#[derive(Debug, Default)]
pub(crate) struct Farewell {
    tail: Vec<u8>,
    /// When it ended, and whether as the server ends a response that is complete.
    end: Option<(Instant, bool)>,
}

impl Farewell {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let surplus = self.tail.len().saturating_sub(KEPT);
        self.tail.drain(..surplus);
    }

    pub(crate) fn end(&mut self, is_complete: bool) {
        self.end = Some((Instant::now(), is_complete));
    }

    pub(crate) fn ended_at(&self) -> Option<Instant> {
        self.end.map(|(at, _)| at)
    }

    /// Checks that an event with this data came last, then a `retry:`, then a complete end. Says what is missing.
    pub(crate) fn check(&self, last: &str) -> Result<(), String> {
        let tail = String::from_utf8_lossy(&self.tail);
        let after = tail.rsplit_once(&format!("data: {last}\n\n"));
        let retry = after.and_then(|(_, after)| after.split_once("retry: "));
        let retry = retry.and_then(|(_, retry)| retry.trim_end().parse::<u64>().ok());
        match (after, retry, self.end) {
            (None, ..) => Err(format!("no last event in {tail:?}")),
            (_, None, _) => Err(format!("no `retry:` in {tail:?}")),
            (.., None) => Err("no end".to_owned()),
            (.., Some((_, false))) => Err("an end that is none of a whole response".to_owned()),
            (.., Some((_, true))) => Ok(()),
        }
    }
}
