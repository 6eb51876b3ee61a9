//! Three decoders of event streams that know nothing of each other, brought to one form.

use std::convert::Infallible;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use sse_stream::SseByteStream;
use tidings_testkit::{Decoder, Item};
use tokio_stream::Stream;

#[allow(dead_code, unreachable_pub)]
#[path = "../../tests/support/decoder.rs"]
mod standard;

/// An event as a browser's listener gets it, with the comments that stood in its block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatched {
    pub event: String,
    pub data: String,
    /// The last event id, which stays.
    pub id: String,
    /// The time to wait in milliseconds, which stays.
    pub retry: Option<u128>,
    pub comments: Vec<String>,
}

impl From<standard::Dispatched> for Dispatched {
    fn from(event: standard::Dispatched) -> Self {
        Self {
            event: event.event,
            data: event.data,
            id: event.id,
            retry: event.retry,
            comments: event.comments,
        }
    }
}

/// By the decoder that was written from the standard.
pub fn by_standard(chunks: &[&[u8]]) -> Vec<Dispatched> {
    let mut decoder = standard::Decoder::default();
    chunks.iter().for_each(|chunk| decoder.push(chunk));
    decoder.take().into_iter().map(Dispatched::from).collect()
}

/// By the test kit's.
pub fn items(chunks: &[&[u8]]) -> Vec<Item> {
    let mut decoder = Decoder::new();
    chunks.iter().for_each(|chunk| decoder.push(chunk));
    decoder.collect()
}

/// What a listener gets of what the test kit's decoder tells.
pub fn dispatched(items: Vec<Item>) -> Vec<Dispatched> {
    let dispatched = standard::Dispatched::of_items(items);
    dispatched.into_iter().map(Dispatched::from).collect()
}

/// Blocks by the crate sse-stream: what each says itself, nothing that stays from one to the next.
pub fn blocks(chunks: &[&[u8]]) -> Vec<sse_stream::Sse> {
    let chunks = chunks
        .iter()
        .map(|chunk| Ok::<_, Infallible>(Bytes::copy_from_slice(chunk)));
    let blocks = SseByteStream::new(tokio_stream::iter(chunks.collect::<Vec<_>>()));
    let mut blocks = pin!(blocks);
    let mut all = Vec::new();
    loop {
        match blocks
            .as_mut()
            .poll_next(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(Some(block)) => all.push(block.expect("a well-formed stream")),
            Poll::Ready(None) => return all,
            // All of it is there, but tokio's iterator lets others run now and then.
            Poll::Pending => {}
        }
    }
}

/// Cuts bytes into pieces of these lengths, again and again.
pub fn cut<'a>(mut bytes: &'a [u8], lengths: &[u8]) -> Vec<&'a [u8]> {
    let mut chunks = Vec::new();
    let mut lengths = lengths.iter().cycle();
    while !bytes.is_empty() {
        // Of zeros alone there would be no end.
        let length = lengths
            .next()
            .map_or(bytes.len(), |length| 1 + usize::from(*length));
        let (chunk, rest) = bytes.split_at(length.min(bytes.len()));
        chunks.push(chunk);
        bytes = rest;
    }
    chunks
}
