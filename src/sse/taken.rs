//! What is to be noted when a stream takes an event to write it.

use crate::frame::Frame;
use crate::subscription::ConnectionGuard;

/// Tells a tracing layer of the event's trace, and finishes its sample. Few frames have either.
pub(super) fn taken(frame: &Frame, guard: &ConnectionGuard) {
    let Some(aside) = frame.aside() else {
        return;
    };
    if let Some(parent) = &aside.trace_parent {
        tracing::debug!(parent: guard.span(), traceparent = parent.as_str(), "event");
    }
    if let Some(sample) = &aside.sample {
        sample.written(guard.age());
    }
}
