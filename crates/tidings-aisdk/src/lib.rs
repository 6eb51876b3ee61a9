//! The UI message stream of the [AI SDK](https://ai-sdk.dev): its chunks as types, and a run's stream as `useChat` reads it.
//!
//! Give each run a channel of its own, and show its stream through a [`ChunkView`]; the [guide on agents] has the routes of a
//! service. The types write only the fields that are set, so that clients with strict schemas accept them as well.
//!
//! ```
//! use tidings::Frame;
//! use tidings_aisdk::{Chunk, TextDelta};
//!
//! let frame = Frame::encode(&Chunk::from(TextDelta::new("text-1", "hello")))?;
//! assert_eq!(frame.data(), r#"{"type":"text-delta","id":"text-1","delta":"hello"}"#);
//! # Ok::<(), tidings::EncodeError>(())
//! ```
//!
//! [guide on agents]: https://docs.rs/tidings/latest/tidings/guide/agents/

mod chunk;
mod records;
mod view;

pub use chunk::{Chunk, DataPart};
pub use records::*;
pub use view::{ChunkView, HEADER};
