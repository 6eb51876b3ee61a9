//! Events of the open agent protocols as types, and the application's own beside them.
//!
//! [`agui`] is AG-UI 1.0, the types of the crate [`tidings_agui`], with the feature `agui`; [`a2a`] is A2A 1.0, with the
//! feature `a2a`. With the feature `agents` there are both, and [`context`], [`system`] and [`analytics`] besides: events
//! that this crate defines.
//!
//! All of them are plain values. They are written as JSON on one line, which is what the official clients read. What is
//! defined here comes back from JSON as it was: an optional field that was absent stays absent, `null` stays where it is a
//! value, and what a type does not know is carried along. The names of fields and, but for AG-UI's own, of types are in
//! camel case.

#[cfg(feature = "a2a")]
pub mod a2a;
#[cfg(feature = "agui")]
pub mod agui;
#[cfg(feature = "agents")]
pub mod analytics;
#[cfg(feature = "agents")]
pub mod context;
#[cfg(feature = "agents")]
pub mod system;
#[cfg(feature = "a2a")]
mod task;
