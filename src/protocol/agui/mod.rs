//! AG-UI 1.0: every event, message and input of [the protocol](https://docs.ag-ui.com) as types.
//!
//! The types are those of the crate [`tidings-agui`](tidings_agui), which says what they refuse. This module sends them:
//! an [`Event`] is checked ([`Event::check`]) and cannot be broadcast if it fails; an [`AgUiEvent`] is an event of a run; a
//! [`RunView`] turns a user's events into what the client of one run reads, in order.
//!
//! ```
//! use tidings::Frame;
//! use tidings::protocol::agui::{Event, RunRef};
//!
//! let run = RunRef::new("thread-1", "run-1");
//! let event = run.event(Event::text_message_content("message-1", "hello").without_timestamp());
//! let frame = Frame::encode(&event)?;
//! assert_eq!(frame.data(), r#"{"type":"TEXT_MESSAGE_CONTENT","messageId":"message-1","delta":"hello"}"#);
//! # Ok::<(), tidings::EncodeError>(())
//! ```

mod order;
mod run;
mod view;

pub use run::{AgUiEvent, RunRef};
pub use tidings_agui::*;
pub use view::RunView;
