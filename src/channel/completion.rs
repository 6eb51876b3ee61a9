//! The end of a channel's events: streams end after the last one, and a later stream gets what is kept, then the end.
//!
//! The log has the mark of completion, under the lock that events are appended under: so every appended event is before the
//! end. Then each connection finishes: `complete` asks those that have begun, and the others find the mark when they begin. A
//! connection that has begun has its feed installed, so finishing costs it nothing that it has to read.

use super::{Accepted, Roster, Standing};
use crate::end::EndReason;
use crate::position::Place;

impl<T: Clone + Send + 'static> Roster<T> {
    /// Refuses events from now on, and ends the streams after the last event; the result says how many these are. `place` is
    /// where the engine's log has the end, if it does. See [`Log::complete`](super::Log).
    pub(crate) fn complete(&self, place: Option<Place>) -> Accepted {
        let Some(log) = self.log() else {
            return Accepted::Elsewhere;
        };
        let accepted = log.complete(place);
        if !matches!(accepted, Accepted::Delivered(_)) {
            return accepted;
        }
        self.finish_all();
        Accepted::Delivered(self.len())
    }

    /// Notes that a stream has read the end in the engine's log, at this place. See [`Log::find_end`](super::Log).
    pub(crate) fn find_end(&self, end: Place) -> Standing {
        // Whoever holds it is about to use the name again.
        let is_held = self.is_held();
        let standing = self.log().map(|log| log.find_end(end, is_held));
        if self.is_complete() {
            self.finish_all();
        }
        standing.unwrap_or(Standing::Level)
    }

    fn finish_all(&self) {
        self.for_each(|connection, _| {
            if connection.has_begun() {
                connection.finish(EndReason::Completed);
            }
        });
    }

    /// Whether no more events are taken.
    pub(crate) fn is_complete(&self) -> bool {
        self.log().is_some_and(|log| log.is_complete())
    }
}
