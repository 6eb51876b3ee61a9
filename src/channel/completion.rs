//! The end of a channel's events: streams end after the last one, and a later stream gets what is kept, then the end.
//!
//! The log has the mark of completion, under the lock that events are appended under: so every appended event is before the
//! end. Then each connection finishes: `complete` asks those that have begun, and the others find the mark when they begin. A
//! connection that has begun has its feed installed, so finishing costs it nothing that it has to read.

use tokio::time::Instant;

use super::window::Completion;
use super::{Accepted, Log, Roster, Standing};
use crate::end::EndReason;
use crate::position::Place;

impl<T: Clone + Send + 'static> Log<T> {
    /// Refuses events from now on. If the end came from the engine's log, `place` is where it stands, and its turn must have
    /// come.
    pub(super) fn complete(&self, place: Option<Place>) -> Accepted {
        let since = Instant::now();
        self.with(|window, _| {
            if window.complete.is_some() {
                return Accepted::Complete;
            }
            let mut last = None;
            if let Some(place) = place {
                if let Err(refused) = window.progress.turn(place) {
                    return refused;
                }
                // Everything before the end has been appended. A place that was read from the log does not say what that is.
                let previous = Some(place.previous).filter(|previous| *previous > 0);
                last = previous.or(Some(window.progress.last));
                window.progress.last = place.position.offset;
            }
            window.complete = Some(Completion { since, last });
            Accepted::Delivered(0)
        })
    }

    /// Notes that a stream has read the end at this place of the engine's log. A channel before it is to be given first what
    /// comes before it. A channel that was opened past it is complete, but for one that is held, or has had events since: the name
    /// is used again.
    pub(super) fn find_end(&self, end: Place, is_held: bool) -> Standing {
        let since = Instant::now();
        self.with(|window, _| {
            let standing = match window.complete {
                Some(_) => Standing::Level,
                None => window.progress.compare(end.position, end.position.offset),
            };
            let is_new = window.next == 1;
            let is_meant = match window.complete {
                Some(_) => is_new,
                None if is_new => !is_held,
                // A repair has given up at the end.
                None => window.progress.last == end.position.offset,
            };
            if standing == Standing::Level && is_meant {
                let completion = window
                    .complete
                    .get_or_insert(Completion { since, last: None });
                // Streams that began at different places know differently well what is before the end.
                let last = completion.last.unwrap_or(end.previous);
                completion.last = Some(last.min(end.previous));
            }
            standing
        })
    }
}

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
        // A held channel is about to get new events under this name.
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
