//! A parser of HTTP/2 frames that keeps no payload (RFC 9113, section 4.1).

use bytes::Buf;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
pub(super) const END_HEADERS: u8 = 4;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// Splits the bytes of one direction into frames. It buffers at most the nine bytes of a frame's head and six of a field.
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: [u8; 9],
    head_len: usize,
    /// The bytes of the payload that have not come yet.
    left: usize,
    field: [u8; 6],
    field_len: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The head of a DATA frame, and the length of its payload, which counts against both windows.
    Data { stream: u32, len: usize },
    /// A WINDOW_UPDATE. Stream 0 is the connection.
    Grant { stream: u32, bytes: u32 },
    /// The initial window of streams, out of SETTINGS.
    InitialWindow(u32),
    /// The last byte of a frame.
    End { kind: u8, flags: u8, stream: u32 },
}

impl Frames {
    /// Parses up to the next item. Consumes the bytes up to there, or all of them if they have no item.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Option<Seen> {
        if self.head_len < self.head.len() {
            self.head_len += fill(&mut self.head[self.head_len..], bytes);
            if self.head_len < self.head.len() {
                return None;
            }
            let [a, b, c, ..] = self.head;
            self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            self.field_len = 0;
            if self.kind() == DATA {
                let (stream, len) = (self.stream(), self.left);
                return Some(Seen::Data { stream, len });
            }
        }
        let size = match self.kind() {
            WINDOW_UPDATE => 4,
            SETTINGS => 6,
            _ => 0,
        };
        while self.left > 0 && !bytes.is_empty() {
            if size == 0 {
                let len = self.left.min(bytes.len());
                bytes.advance(len);
                self.left -= len;
                continue;
            }
            let end = size.min(self.field_len + self.left);
            let len = fill(&mut self.field[self.field_len..end], bytes);
            self.left -= len;
            self.field_len += len;
            if self.field_len == size {
                self.field_len = 0;
                if let Some(seen) = self.of_field() {
                    return Some(seen);
                }
            }
        }
        if self.left > 0 {
            return None;
        }
        self.head_len = 0;
        Some(Seen::End {
            kind: self.kind(),
            flags: self.head[4],
            stream: self.stream(),
        })
    }

    /// Whether a frame has begun and not ended. DATA does not count: how fast a body may come is up to the service.
    pub(super) fn is_within(&self) -> bool {
        let is_data = self.head_len == self.head.len() && self.kind() == DATA;
        self.head_len > 0 && !is_data
    }

    fn kind(&self) -> u8 {
        self.head[3]
    }

    fn stream(&self) -> u32 {
        let [.., a, b, c, d] = self.head;
        u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff
    }

    fn of_field(&self) -> Option<Seen> {
        let [a, b, c, d, e, f] = self.field;
        if self.kind() == WINDOW_UPDATE {
            let stream = self.stream();
            let bytes = u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff;
            return Some(Seen::Grant { stream, bytes });
        }
        let is_window = u16::from_be_bytes([a, b]) == INITIAL_WINDOW_SIZE;
        is_window.then(|| Seen::InitialWindow(u32::from_be_bytes([c, d, e, f])))
    }
}

fn fill(room: &mut [u8], bytes: &mut &[u8]) -> usize {
    let len = room.len().min(bytes.len());
    bytes.copy_to_slice(&mut room[..len]);
    len
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        frame
    }

    #[test]
    fn frames_are_seen_however_their_bytes_are_cut() {
        let settings = [0, 3, 0, 0, 0, 100, 0, 4, 0, 0, 1, 0];
        let bytes = [
            frame(SETTINGS, 0, 0, &settings),
            frame(SETTINGS, 1, 0, &[]),
            frame(HEADERS, END_HEADERS, 1, b"abc"),
            frame(WINDOW_UPDATE, 0, 1, &[0x80, 0, 2, 0]),
            frame(DATA, 1, 3, &[0; 300]),
            frame(DATA, 0, 3, &[]),
            frame(250, 9, 5, b"unknown"),
        ]
        .concat();
        let end = |kind, flags, stream| Seen::End {
            kind,
            flags,
            stream,
        };
        let expected = [
            Seen::InitialWindow(256),
            end(SETTINGS, 0, 0),
            end(SETTINGS, 1, 0),
            end(HEADERS, END_HEADERS, 1),
            Seen::Grant {
                stream: 1,
                bytes: 512,
            },
            end(WINDOW_UPDATE, 0, 1),
            Seen::Data {
                stream: 3,
                len: 300,
            },
            end(DATA, 1, 3),
            Seen::Data { stream: 3, len: 0 },
            end(DATA, 0, 3),
            end(250, 9, 5),
        ];
        for size in [1, 2, 3, 5, 8, 13, 100, bytes.len()] {
            let mut frames = Frames::default();
            let mut seen = Vec::new();
            for mut piece in bytes.chunks(size) {
                seen.extend(std::iter::from_fn(|| frames.next(&mut piece)));
                assert!(piece.is_empty());
            }
            assert_eq!(seen, expected, "in pieces of {size} bytes");
            assert!(!frames.is_within());
        }
    }

    #[test]
    fn a_frame_of_data_may_take_its_time() {
        let mut frames = Frames::default();
        let headers = frame(HEADERS, END_HEADERS, 1, b"abc");
        for len in [1, 9, 11] {
            assert_eq!(frames.next(&mut &headers[..len]), None);
            assert!(frames.is_within(), "{len}");
            frames = Frames::default();
        }
        let data = frame(DATA, 0, 1, b"abc");
        let mut half = &data[..10];
        let seen = Seen::Data { stream: 1, len: 3 };
        assert_eq!(frames.next(&mut half), Some(seen));
        assert_eq!(frames.next(&mut half), None);
        assert!(!frames.is_within());
    }
}
