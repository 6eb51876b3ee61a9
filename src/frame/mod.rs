//! One event in the form it has on the wire: the only place that knows the grammar of
//! [WHATWG HTML, section 9.2](https://html.spec.whatwg.org/multipage/server-sent-events.html).
//!
//! What holds for every frame:
//!
//! 1. It is one whole event: some lines, each `name: value` and LF, then an empty line. Never CR, never a BOM of its own.
//! 2. `event`, `id` and comments hold no CR, LF or NUL: CR and LF would begin another field, and NUL makes a client drop the
//!    id. They are refused, not repaired.
//! 3. In data each CRLF, CR or LF ends a line, and each line has its own `data: `. All other characters, NUL among them,
//!    arrive as they are.
//! 4. There is one space after each colon, so that a value's own leading space survives the one that clients strip.

mod draft;
mod encoded;
mod id_slot;

pub(crate) use draft::Draft;
pub use encoded::Frame;

#[cfg(test)]
mod tests;
