//! The end of a channel's events: streams end behind the last of them, and who comes later gets what is kept, then the end.
//!
//! That it is complete stands in the log, under whose lock events are appended: so what is appended is in front of the end. And
//! each connection finishes: those that have begun by then are told by whoever completes the channel, the others find it out
//! when they begin. One that has begun has its feed installed, so being told to finish cannot cost it what it has to read.

use super::{Accepted, Roster};
use crate::end::EndReason;
use crate::position::Place;

impl<T: Clone + Send + 'static> Roster<T> {
    /// Takes no event any more from now on, and ends the streams behind the last one; says how many these are. The engine's log
    /// says so at this place, if it is one of that. See [`Log::complete`](super::Log).
    pub(crate) fn complete(&self, place: Option<Place>, last: Option<u64>) -> Accepted {
        let Some(log) = self.log() else {
            return Accepted::Elsewhere;
        };
        let accepted = log.complete(place, last);
        if !matches!(accepted, Accepted::Delivered(_)) {
            return accepted;
        }
        self.for_each(|connection, _| {
            if connection.has_begun() {
                connection.finish(EndReason::Completed);
            }
        });
        Accepted::Delivered(self.len())
    }

    /// Whether no event comes any more.
    pub(crate) fn is_complete(&self) -> bool {
        self.log().is_some_and(|log| log.is_complete())
    }
}
