//! Events that carry their number, and a check that none is missing.

/// `data: `, ten digits and a colon. Filling follows, up to the size.
const HEAD: usize = 17;

/// The data of an event: of this size, of which the number is the first part.
pub(crate) fn numbered(number: u64, size: usize) -> String {
    let mut data = format!("{number:010}:");
    data.extend(std::iter::repeat_n('x', size.saturating_sub(data.len())));
    data
}

/// Checks that a stream consists of [`numbered`] events of one size, from 0 on, in order, each once and whole, with empty
/// comments between them.
///
/// Looks at the head and the end of each event only, so that one core can check what another sends.
#[derive(Debug)]
pub(crate) struct Numbers {
    /// Bytes of an event on the wire.
    len: usize,
    /// How far in the present event we are.
    at: usize,
    head: [u8; HEAD],
    /// How many came.
    pub(crate) count: u64,
    /// What came instead of the next one.
    pub(crate) fault: Option<String>,
}

impl Numbers {
    pub(crate) fn of_size(size: usize) -> Self {
        Self {
            len: "data: ".len() + size + "\n\n".len(),
            at: 0,
            head: [0; HEAD],
            count: 0,
            fault: None,
        }
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.fault.is_none() {
            // An empty comment, with which a stream begins that has no event yet.
            if self.at == 0 && matches!(bytes[0], b':' | b'\n') {
                bytes = &bytes[1..];
                continue;
            }
            let in_head = self.at < HEAD;
            let until = if in_head { HEAD } else { self.len };
            let (now, later) = bytes.split_at((until - self.at).min(bytes.len()));
            if in_head {
                self.head[self.at..][..now.len()].copy_from_slice(now);
            }
            self.at += now.len();
            bytes = later;
            if self.at == HEAD {
                let expected = format!("data: {:010}:", self.count);
                self.check(self.head == *expected.as_bytes(), &expected);
            } else if self.at == self.len {
                self.check(now.ends_with(b"\n"), "the end of the event");
                self.count += 1;
                self.at = 0;
            }
        }
    }

    fn check(&mut self, is_right: bool, expected: &str) {
        if !is_right {
            let head = String::from_utf8_lossy(&self.head);
            self.fault = Some(format!("{expected:?} expected, in {head:?}"));
        }
    }
}
