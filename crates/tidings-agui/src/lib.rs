//! AG-UI 1.0: every event, message and input of [the protocol](https://docs.ag-ui.com) as types.
//!
//! An [`Event`] is what all events have in common and a [`Body`], which has a variant for each of the 31 types and one
//! for types that are not known here. The constructors on [`Event`] are for the common ones and set the time; the structs
//! behind the variants have constructors of their own that take what is required, and a method for each optional field.
//!
//! ```
//! use tidings_agui::{Event, Outcome, RunFinished, SuccessOutcome};
//!
//! let run = [
//!     Event::run_started("thread-1", "run-1"),
//!     Event::text_message_start("message-1"),
//!     Event::text_message_content("message-1", "hello"),
//!     Event::text_message_end("message-1"),
//!     Event::new(RunFinished::new("thread-1", "run-1").outcome(SuccessOutcome::new())),
//! ];
//! let json = serde_json::to_string(&run[2].clone().without_timestamp())?;
//! assert_eq!(json, r#"{"type":"TEXT_MESSAGE_CONTENT","messageId":"message-1","delta":"hello"}"#);
//! assert_eq!(serde_json::from_str::<Event>(&serde_json::to_string(&run[0])?)?, run[0]);
//! # Ok::<(), serde_json::Error>(())
//! ```
//!
//! These are plain values, for agents and servers of any kind. The crate [`tidings`](https://docs.rs/tidings) has them as
//! `tidings::protocol::agui` and sends them to users as server-sent events.
//!
//! # What is refused
//!
//! The official clients check each event and end the run with an error at the first that is wrong. So parsing refuses
//! what they refuse, with one exception: whether values are in their range is a question for [`Event::check`], so that
//! what was recorded elsewhere can be read and looked at. Neither looks at the order of events.
//!
//! Integers come back exactly if they fit 64 bits, other numbers as the `f64` that is nearest; with
//! `serde_json/arbitrary_precision`, all of them as they were written.

// The program on the README compiles.
#![cfg_attr(doctest, doc = include_str!("../README.md"))]

mod build;
mod check;
#[doc(hidden)]
pub mod clock;
mod content;
mod event;
mod events;
mod input;
mod message;
#[doc(hidden)]
pub mod record;
mod wire;

pub use check::{InvalidEvent, Problem};
pub use content::{
    AudioPart, Content, ContentPart, DataSource, DocumentPart, FileSource, ImagePart, PartSource,
    TextPart, UrlSource, VideoPart,
};
pub use event::{Body, Event, Unknown};
pub use events::*;
pub use input::{Context, ResumeEntry, ResumeStatus, RunAgentInput, State, Tool};
pub use message::{
    ActivityMessage, AssistantMessage, DeveloperMessage, FunctionCall, FunctionToolCall, Message,
    ReasoningMessage, SystemMessage, ToolCall, ToolMessage, UserMessage,
};
pub use record::{Extra, Metadata};
