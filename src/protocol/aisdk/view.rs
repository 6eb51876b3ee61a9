//! The stream of one run.

use std::ops::ControlFlow;

use super::chunk::Chunk;
use super::records::Failure;
use crate::frame::Frame;
use crate::gap::Gap;
use crate::sse::{Chunks, View};

/// The name and value of the header that marks a response as a UI message stream.
pub const HEADER: (&str, &str) = ("x-vercel-ai-ui-message-stream", "v1");

const DONE: &str = "data: [DONE]\n\n";

/// Shows one run to the AI SDK: the chunks as they are, and `[DONE]` after `finish` or `abort`, which ends the stream. A gap
/// becomes an `error` chunk and ends the stream, since the client does not know the event `gap`.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ChunkView;

impl View for ChunkView {
    fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
        let Some(json) = frame.data_line() else {
            return ControlFlow::Continue(());
        };
        // Chunks are written with their type first.
        let is_last = [&br#"{"type":"finish""#[..], br#"{"type":"abort""#]
            .iter()
            .any(|head| json.starts_with(head));
        chunks.push(frame.to_bytes());
        if is_last {
            chunks.push(DONE);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn gap(&mut self, gap: &Gap, chunks: &mut Chunks) -> ControlFlow<()> {
        let text = format!("Events of this run are missing: {gap}.");
        let error = Frame::encode(&Chunk::from(Failure::new(text)));
        chunks.push(error.expect("a sentence can be encoded").to_bytes());
        chunks.push(DONE);
        ControlFlow::Break(())
    }
}
