//! Closures that decide what a stream leaves out or changes, and where it ends.

use std::fmt;
use std::sync::Arc;

use super::{Cursor, SseBody};
use crate::end::EndReason;
use crate::frame::Frame;
use crate::gap::Gap;
use crate::id::EventId;
use crate::position::Position;
use crate::subscription::Subscription;

type Map = Box<dyn FnMut(Arc<Frame>) -> Option<Arc<Frame>> + Send + Sync>;
type Test = Box<dyn FnMut(&Frame) -> bool + Send + Sync>;

/// The closures of one stream.
#[derive(Default)]
pub(super) struct Shape {
    map: Option<Map>,
    is_last: Option<Test>,
    /// The position of the last event, if the client did not get it.
    left_out: Option<Position>,
}

impl Shape {
    /// What the client gets in place of this event, if anything, and whether the stream ends after it.
    pub(super) fn apply(&mut self, frame: &Arc<Frame>) -> (Option<Arc<Frame>>, bool) {
        let is_last = self.is_last.as_mut().is_some_and(|is_last| is_last(frame));
        let shown = match &mut self.map {
            None => Some(frame.clone()),
            Some(map) => map(frame.clone()).map(|shown| shown.in_place_of(frame)),
        };
        // One without a place changes nothing of the id that the client has.
        if let Some(place) = frame.place() {
            self.left_out = shown.is_none().then_some(place);
        }
        (shown, is_last)
    }

    /// Notes that the client gets a gap, whose id, if it has one, is after every event left out.
    pub(super) fn pass(&mut self, gap: &Gap) {
        self.left_out = self.left_out.filter(|_| gap.position.is_none());
    }

    /// The id of the last event of a complete stream, if the client did not get that event: so that it does not come back for
    /// it.
    pub(super) fn left_out(&self, cursor: Cursor, ended: &Subscription) -> Option<EventId> {
        let is_complete = ended.end_reason() == Some(EndReason::Completed);
        let left_out = self
            .left_out
            .filter(|_| is_complete && cursor != Cursor::Off);
        left_out.map(EventId::from)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shape").finish_non_exhaustive()
    }
}

impl SseBody {
    /// Decides for each event what the client gets: the event, another in its place, or nothing. Another one has the id of the
    /// event that it replaces, unless it brings its own. A second call replaces the closure of the first. A [`view`](Self::view)
    /// sees what this lets pass.
    ///
    /// Gaps, keep-alives and the end stay as they are. For a part of the events, and for small changes; a stream that needs a
    /// beginning or an end of its own takes a [`View`](super::View).
    ///
    /// An event that is left out has no effect on the id that the client has. When the client comes back, the closure of the new
    /// stream is called for such events again. Keep-alives carry [newer ids](crate::KeepAlive#ids), and so does
    /// [the end](SseBody#the-end) of a stream that is complete, unless the [cursor](Self::cursor) is off: then a client whose last
    /// event was left out reconnects for ever.
    ///
    /// Called for each event of each stream, while the stream is polled: it must not block. An event that passes is not
    /// copied.
    ///
    /// ```
    /// use tidings::sse::SseBody;
    /// # use tidings::{GenericBroadcaster, Text};
    /// # let hub = GenericBroadcaster::<Text>::new();
    ///
    /// let body = SseBody::new(hub.register("ann")?)
    ///     .filter_map(|frame| (frame.event() == Some("price")).then_some(frame));
    /// # drop(body);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn filter_map(
        mut self,
        map: impl FnMut(Arc<Frame>) -> Option<Arc<Frame>> + Send + Sync + 'static,
    ) -> Self {
        self.shape_mut().map = Some(Box::new(map));
        self
    }

    /// Ends the stream after the first event for which this is `true`: for example the last event of a run. It is called for
    /// each event as it was broadcast, also for those that [`filter_map`](Self::filter_map) leaves out. The connection then
    /// has ended as [`Completed`](crate::EndReason::Completed).
    ///
    /// A browser's `EventSource` reconnects after a clean end. Let the page close it at that event, or answer its next request
    /// with 204, on which it stays closed.
    ///
    /// ```
    /// use tidings::sse::SseBody;
    /// # use tidings::{GenericBroadcaster, Text};
    /// # let hub = GenericBroadcaster::<Text>::new();
    ///
    /// let body = SseBody::new(hub.register("run:123")?).until(|frame| frame.event() == Some("done"));
    /// # drop(body);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn until(mut self, is_last: impl FnMut(&Frame) -> bool + Send + Sync + 'static) -> Self {
        self.shape_mut().is_last = Some(Box::new(is_last));
        self
    }
}
