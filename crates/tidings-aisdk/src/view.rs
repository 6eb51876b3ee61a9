//! The stream of one run.

use std::ops::ControlFlow;

use tidings::sse::{Chunks, View};
use tidings::{Frame, Gap};

use crate::chunk::Chunk;
use crate::records::Failure;

/// The name and value of the header that marks a response as a UI message stream.
pub const HEADER: (&str, &str) = ("x-vercel-ai-ui-message-stream", "v1");

const DONE: &str = "data: [DONE]\n\n";

/// Shows one run to the AI SDK: the chunks as they are, and `[DONE]` after `finish`, `abort` or `error`, which ends the stream.
///
/// The client treats a response that ends as a whole message, whatever its last chunk was. A stream that ends before its run,
/// because of a shutdown, a deadline or the service, therefore ends with an `error` chunk. So does the stream of a run that is
/// completed without a last chunk. A gap becomes an `error` chunk and ends the stream, since the client does not know the event
/// `gap`.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ChunkView;

/// The last chunk of a run. Chunks are written with their type first.
const LAST: [&[u8]; 3] = [
    br#"{"type":"finish""#,
    br#"{"type":"abort""#,
    br#"{"type":"error""#,
];

fn fail(text: String, chunks: &mut Chunks) {
    let error = Frame::encode(&Chunk::from(Failure::new(text)));
    chunks.push(error.expect("a sentence can be encoded").to_bytes());
    chunks.push(DONE);
}

impl View for ChunkView {
    fn show(&mut self, frame: &Frame, chunks: &mut Chunks) -> ControlFlow<()> {
        let Some(json) = frame.data_line() else {
            return ControlFlow::Continue(());
        };
        chunks.push(frame.to_bytes());
        if LAST.iter().any(|head| json.starts_with(head)) {
            chunks.push(DONE);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn gap(&mut self, gap: &Gap, chunks: &mut Chunks) -> ControlFlow<()> {
        fail(format!("Events of this run are missing: {gap}."), chunks);
        ControlFlow::Break(())
    }

    fn end(&mut self, chunks: &mut Chunks) {
        fail("The stream ended before the run.".to_owned(), chunks);
    }
}
