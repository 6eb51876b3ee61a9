//! HTTP/2 as bytes: no client library would send what abuse does.

#![allow(dead_code, reason = "each program uses a part of it")]

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("a frame is short");
    let mut frame = len.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// What a client begins with.
pub(crate) fn preface() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes
}

/// The headers of a GET in HPACK: the method and the scheme out of its table, a path of less than 127 bytes and a host.
pub(crate) fn get(path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86];
    let len = u8::try_from(path.len()).expect("a short path");
    block.extend([0x44, len]);
    block.extend(path.as_bytes());
    block.extend([0x41, 4]);
    block.extend(b"test");
    block
}

/// The kinds of the frames that are whole, and what is in them.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut frames = Vec::new();
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = bytes {
        let len = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let Some((payload, rest)) = rest.split_at_checked(len) else {
            break;
        };
        frames.push((*kind, payload));
        bytes = rest;
    }
    frames
}
