//! Samples and traces of events, reported when a stream takes them to write them.

use std::time::Duration;

use crate::frame::Frame;
use crate::subscription::ConnectionGuard;
use crate::sync::contain;

/// Whether a frame needs no more than to [finish its sample](finish_sample) and to write its bytes.
#[cfg(feature = "serve")]
#[allow(dead_code, reason = "for the server, which loom leaves out")]
pub(crate) fn is_plain(frame: &Frame) -> bool {
    frame.is_event_alone()
        && (frame.trace_parent().is_none() || !tracing::enabled!(tracing::Level::DEBUG))
}

/// Finishes the sample of an event that a stream of this age takes to write it.
pub(crate) fn finish_sample(frame: &Frame, age: impl FnOnce() -> Duration) {
    if let Some(sample) = frame.aside().and_then(|aside| aside.sample.as_ref()) {
        // Calls the service's recorder. The event is no longer in the ring: it would be lost by a panic here.
        contain(|| sample.written(age()));
    }
}

/// Reports the trace of an event that a stream takes to write it, and finishes its sample. Few frames have either.
pub(super) fn on_dequeue(frame: &Frame, guard: &ConnectionGuard) {
    let Some(aside) = frame.aside() else {
        return;
    };
    if let Some(parent) = &aside.trace_parent {
        tracing::debug!(parent: guard.span(), traceparent = parent.as_str(), "event");
    }
    finish_sample(frame, || guard.age());
}
