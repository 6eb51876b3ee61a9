//! Events of the open agent protocols as types, and the application's own beside them.
//!
//! [`agui`] is AG-UI 1.0, the types of the crate [`tidings_agui`]; [`a2a`] is A2A 1.0, in the types of the protocol's own
//! crate. [`aisdk`] has the chunks of the AI SDK's UI message stream. The events of [`context`], [`system`] and
//! [`analytics`] are defined by this crate.
//!
//! All of them are plain values. They are written as JSON on one line, which is what the official clients read. The chunks
//! of [`aisdk`] are only written. The other types that are defined here come back from JSON as they were: an optional field
//! that was absent stays absent, `null` stays where it is a value, and what a type does not know is carried along. The names
//! of fields and, but for AG-UI's own, of types are in camel case.

pub mod a2a;
pub mod agui;
pub mod aisdk;
pub mod analytics;
pub mod context;
pub mod system;
mod task;
