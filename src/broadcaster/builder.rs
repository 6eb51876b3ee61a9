//! The settings of a broadcaster.

use std::fmt;
use std::marker::PhantomData;

use super::GenericBroadcaster;
use crate::error::ConfigError;
use crate::registry::Limits;

/// Builds a [`GenericBroadcaster`].
///
/// ```
/// use tidings::{GenericBroadcaster, Text};
///
/// let hub: GenericBroadcaster<Text> = GenericBroadcaster::builder()
///     .capacity(128)
///     .connections_per_user(20)
///     .total_connections(50_000)
///     .build()?;
/// # Ok::<(), tidings::ConfigError>(())
/// ```
#[must_use = "a builder does nothing until it builds"]
pub struct Builder<E: ?Sized> {
    limits: Limits,
    event: PhantomData<fn(&E)>,
}

impl<E: ?Sized> Builder<E> {
    /// The largest [`capacity`](Self::capacity).
    pub const MAX_CAPACITY: usize = 1 << 20;

    pub(super) fn new() -> Self {
        Self {
            limits: Limits {
                capacity: 64,
                per_user: 10,
                total: usize::MAX,
            },
            event: PhantomData,
        }
    }

    /// How many events a user's ring holds: the longest burst that a stream may sleep through without losing any.
    /// Default 64. Rounded up to a power of two.
    ///
    /// Each connected user pays for the slots before the first event: 136 bytes and 32 bytes a slot, 2.2 KB at 64, 8.3
    /// KB at 256. The events themselves stay until all of the user's streams have read them, or until they are
    /// overwritten: one stream that does not read keeps up to this many.
    pub fn capacity(mut self, events: usize) -> Self {
        self.limits.capacity = events;
        self
    }

    /// How many connections one user may have at a time. Default 10; `None` for no cap.
    ///
    /// A browser that talks HTTP/1.1 keeps to six of its own accord, all tabs together.
    pub fn connections_per_user(mut self, cap: impl Into<Option<usize>>) -> Self {
        self.limits.per_user = cap.into().unwrap_or(usize::MAX);
        self
    }

    /// How many connections there may be in all. Default `None`, no cap.
    pub fn total_connections(mut self, cap: impl Into<Option<usize>>) -> Self {
        self.limits.total = cap.into().unwrap_or(usize::MAX);
        self
    }

    /// Builds the broadcaster.
    ///
    /// # Errors
    ///
    /// When the capacity is zero or above [`MAX_CAPACITY`](Self::MAX_CAPACITY), or a cap is zero.
    pub fn build(self) -> Result<GenericBroadcaster<E>, ConfigError> {
        let Limits {
            capacity,
            per_user,
            total,
        } = self.limits;
        if capacity == 0 || capacity > Self::MAX_CAPACITY {
            return Err(ConfigError::Capacity {
                capacity,
                max: Self::MAX_CAPACITY,
            });
        }
        if per_user == 0 || total == 0 {
            return Err(ConfigError::ZeroCap);
        }
        Ok(GenericBroadcaster::with_limits(self.limits))
    }
}

impl<E: ?Sized> fmt::Debug for Builder<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("limits", &self.limits)
            .finish()
    }
}
