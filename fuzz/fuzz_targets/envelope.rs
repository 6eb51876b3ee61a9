//! What nodes say to each other comes back as it was, and nothing else is read.
#![no_main]

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidings::fuzzing::{Content, Parts, data_of, parse_envelope, write_envelope};
use tidings::{Frame, Text};
use tidings_fuzz::decoders::by_standard;

/// A key of so many bytes is left out.
const TOO_LONG: usize = 65_535;

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    /// Whatever somebody has put into the engine.
    Bytes(&'a [u8]),
    /// The same, by somebody who knows how it goes.
    Forged {
        kind: u8,
        node: u64,
        rest: Rest<'a>,
    },
    Lost(u64, Option<u64>),
    Sent {
        node: u64,
        trace: Option<(u64, u64)>,
        key: Option<String>,
        relay_data: Option<String>,
        name: Option<&'a str>,
        text: &'a str,
    },
}

#[derive(Debug, Arbitrary)]
enum Rest<'a> {
    Bytes(&'a [u8]),
    Lost(u64),
    Event {
        key: Option<&'a [u8]>,
        relay_data: Option<&'a [u8]>,
        trace: Option<&'a [u8]>,
        lines: Vec<(Name, &'a str)>,
        end: &'a [u8],
    },
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Name {
    Comment,
    Event,
    Id,
    Retry,
    Data,
}

impl Rest<'_> {
    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Bytes(rest) => bytes.extend_from_slice(rest),
            Self::Lost(count) => bytes.extend(count.to_be_bytes()),
            Self::Event {
                key,
                relay_data,
                trace,
                lines,
                end,
            } => {
                bytes.extend(key.map_or(u16::MAX, |key| key.len() as u16).to_be_bytes());
                bytes.extend_from_slice(key.unwrap_or_default());
                bytes.extend(
                    relay_data.map_or(u32::MAX, |relay_data| relay_data.len() as u32)
                        .to_be_bytes(),
                );
                bytes.extend_from_slice(relay_data.unwrap_or_default());
                let trace = trace.unwrap_or_default();
                bytes.push(trace.len() as u8);
                bytes.extend_from_slice(trace);
                for (name, value) in lines {
                    let name = ["", "event", "id", "retry", "data"][*name as usize];
                    bytes.extend(format!("{name}: {value}\n").into_bytes());
                }
                bytes.push(b'\n');
                bytes.extend_from_slice(end);
            }
        }
    }
}

fuzz_target!(|input: Input| match input {
    Input::Bytes(bytes) => read(bytes.to_vec()),
    Input::Forged { kind, node, rest } => {
        let mut bytes = vec![b'T', 2, kind % 4];
        bytes.extend(node.to_be_bytes());
        rest.write(&mut bytes);
        read(bytes);
    }
    Input::Lost(node, lost) => {
        write(Parts {
            node,
            trace: None,
            content: Content::Lost(lost.filter(|lost| *lost != u64::MAX)),
        });
    }
    Input::Sent {
        node,
        trace,
        key,
        relay_data,
        name,
        text,
    } => {
        let mut event = Text::new(text);
        if let Some(name) = name {
            event = event.event(name);
        }
        let Ok(frame) = Frame::encode(&event) else {
            return;
        };
        let trace = trace.filter(|(trace, span)| *trace != 0 && *span != 0);
        write(Parts {
            node,
            trace: trace.map(|(trace, span)| format!("00-{trace:032x}-{span:016x}-01")),
            content: Content::Event {
                key,
                relay_data,
                shown: (node % 2 == 1).then_some(node),
                frame: frame.to_bytes(),
            },
        });
    }
});

/// What is read is written so, and the frame in it is one whole event.
fn read(bytes: Vec<u8>) {
    let bytes = Bytes::from(bytes);
    let Some(parts) = parse_envelope(bytes.clone()) else {
        return;
    };
    assert!(
        write_envelope(&parts) == Some(bytes),
        "it is written in another way"
    );
    if let Content::Event { frame, .. } = parts.content {
        let events = by_standard(&[&frame]);
        assert_eq!(events.len(), 1, "one event");
        assert_eq!(data_of(frame).as_ref(), Some(&events[0].data));
    }
}

/// What is written is read so.
fn write(mut parts: Parts) {
    let bytes = write_envelope(&parts).expect("the frame is one of ours");
    if let Content::Event { key, .. } = &mut parts.content {
        *key = key.take().filter(|key| key.len() < TOO_LONG);
    }
    assert!(
        parse_envelope(bytes) == Some(parts),
        "it is read in another way"
    );
}
