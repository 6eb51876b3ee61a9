//! Events of the open agent protocols as types, and the application's own beside them.
//!
//! [`agui`] is AG-UI 1.0, with the feature `agui`.
//!
//! All of them are plain values with public fields. They are written as JSON on one line, which is what the official
//! clients read, and come back from JSON as they were: an optional field that was absent stays absent, `null` stays where it
//! is a value, and what a type does not know is carried along.

#[cfg(feature = "agui")]
pub mod agui;
mod clock;
