//! A test suite for backplanes: what each must do. [`InProcess`] is an engine in memory, for tests of several nodes.
//!
//! An implementation gives a [`Cluster`], and for the tests of failures [`Faults`]; each function here is a test, which
//! panics and says what was not kept. Each needs a cluster on which nothing else goes on, but may be given one that others
//! have used before. [`every_level`], [`replayable`] and [`failures`] run all of a kind.
//!
//! # Cancel safety
//!
//! A test that is given up drops its nodes, and says nothing about the backplane. The cluster can be used again; after those of
//! [`failures`] the engine may be stopped, or nodes of theirs cut off.
//!
//! # Examples
//!
//! ```no_run
//! use std::sync::Arc;
//! use tidings::backplane::Backplane;
//! use tidings_testkit::backplane::{self, Cluster};
//!
//! # struct Mine;
//! #[async_trait::async_trait]
//! impl Cluster for Mine {
//!     async fn node(&self) -> Arc<dyn Backplane> {
//!         todo!("connect another node")
//!     }
//! }
//!
//! # async fn run() {
//! backplane::every_level(&Mine).await;
//! # }
//! ```

mod cluster;
mod every_level;
mod failures;
mod in_process;
mod node;
mod replayable;

pub use cluster::{Cluster, Faults};
pub use every_level::{
    a_body_may_be_as_long_as_was_said, a_closed_one_is_closed,
    a_message_reaches_the_interested_nodes, every_level, interest_is_idempotent,
    messages_of_a_user_come_in_order, odd_ids_are_users_of_their_own, who_has_left_gets_nothing,
    who_is_ready_misses_nothing,
};
pub use failures::{
    a_node_that_was_cut_off_is_told, failures, interest_survives_the_engine,
    what_was_accepted_outlives_the_engine,
};
pub use in_process::{InProcess, InProcessNode};
pub use replayable::{
    a_message_is_logged_once, all_nodes_mean_the_same_log, places_are_a_chain, replayable,
    the_log_can_be_read, what_was_dropped_is_told,
};
