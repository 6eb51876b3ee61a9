//! Types for the events of open agent protocols, and for an application's own events.
//!
//! [`agui`] is AG-UI 1.0, the types of the crate [`tidings_agui`]; [`a2a`] is A2A 1.0, in the types of the protocol's own
//! crate. The events of [`context`], [`system`] and [`analytics`] are defined by this crate. The chunks of the AI SDK's UI
//! message stream are in the crate `tidings-aisdk`.
//!
//! All of them are plain values, written as JSON on one line, as the official clients expect. The types defined
//! here survive a round trip through JSON: an absent optional field stays absent, `null` stays where it is a value, and
//! unknown fields are kept. Names of fields are in camel case, and so are names of types, except AG-UI's own.

pub mod a2a;
pub mod agui;
pub mod analytics;
pub mod context;
mod events;
pub mod system;
mod task;
