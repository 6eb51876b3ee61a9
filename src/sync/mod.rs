//! The primitives that threads share: `ArcSwap`, atomics, a `try_lock`-only cell, mutexes, tokio's broadcast channel and its
//! `Notify`. Also tokio's coop budget, and a way to contain panics.
//!
//! Everything above this module takes them from here, and this is the only place that says `loom`. A normal build gets
//! [`real`](self), thin names for the real types. The models in `loom_tests/` get stand-ins that loom can schedule; they
//! are compiled only for this crate's own tests, so a service that runs loom models of its own keeps the real ones.
//!
//! `std::sync::Arc` is not modelled: its counts order nothing that this crate relies on.

mod lock;
#[cfg(all(test, loom))]
mod model;
#[cfg(not(all(test, loom)))]
mod real;
mod receiver;
mod waker;

pub(crate) use lock::lock;
#[cfg(all(test, loom))]
pub(crate) use model::*;
#[cfg(not(all(test, loom)))]
pub(crate) use real::*;
pub(crate) use waker::keep_waker;
