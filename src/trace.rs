//! Which trace an event belongs to.

use std::fmt;
use std::str::FromStr;

/// The trace that an event was published in, as the header `traceparent` of [W3C Trace Context][w3c] has it: for example
/// `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`.
///
/// An event that has one ([`Meta::trace_parent`](crate::Meta::trace_parent),
/// [`broadcast_traced`](crate::GenericBroadcaster::broadcast_traced)) carries it to each of its streams. It is not sent to
/// clients. When a stream takes the event to write it, there is a `tracing` event of the level `DEBUG` with the field
/// `traceparent`, inside the span `connection` of the stream: a layer finds the publisher's trace there. With the level
/// off it costs nothing but its 55 bytes; events without one cost nothing at all.
///
/// With OpenTelemetry, the value is what its propagator writes (crates `opentelemetry_sdk`, `tracing-opentelemetry`):
///
/// ```ignore
/// let mut headers = HashMap::<String, String>::new();
/// TraceContextPropagator::new().inject_context(&tracing::Span::current().context(), &mut headers);
/// if let Some(parent) = headers.get("traceparent").and_then(|parent| parent.parse().ok()) {
///     hub.broadcast_traced("ann", &event, parent)?;
/// }
/// ```
///
/// Without it, it is the header of the request that the event came with:
///
/// ```
/// use tidings::{GenericBroadcaster, Text, TraceParent};
///
/// # let mut headers = http::HeaderMap::new();
/// # headers.insert("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?);
/// let hub = GenericBroadcaster::<Text>::new();
/// let header = headers.get("traceparent").and_then(|header| header.to_str().ok());
/// let event = Text::new("hello");
/// match header.and_then(|header| header.parse::<TraceParent>().ok()) {
///     Some(parent) => hub.broadcast_traced("ann", &event, parent)?,
///     None => hub.broadcast("ann", &event)?,
/// };
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [w3c]: https://www.w3.org/TR/trace-context/#traceparent-header
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent([u8; Self::LEN]);

impl TraceParent {
    /// Version, trace, span and flags, with a dash between each two.
    const LEN: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;

    /// The value of the header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("it was parsed from digits and dashes")
    }

    /// The id of the trace, 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        &self.as_str()[3..35]
    }

    /// The id of the span that published the event, 16 hexadecimal digits.
    #[must_use]
    pub fn span_id(&self) -> &str {
        &self.as_str()[36..52]
    }
}

/// The text is not a valid `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParseTraceParentError;

impl fmt::Display for ParseTraceParentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a traceparent is a version, a trace id, a span id and flags in lower-case hexadecimal digits")
    }
}

impl std::error::Error for ParseTraceParentError {}

/// As the standard has it: digits in lower case, no id of zeros only, not version `ff`. Of versions above `00`, what this one
/// knows is kept.
impl FromStr for TraceParent {
    type Err = ParseTraceParentError;

    fn from_str(text: &str) -> Result<Self, ParseTraceParentError> {
        let (known, rest) = text
            .as_bytes()
            .split_first_chunk()
            .ok_or(ParseTraceParentError)?;
        let parent = Self(*known);
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_whole = known.iter().enumerate().all(|(at, byte)| match at {
            2 | 35 | 52 => *byte == b'-',
            _ => is_digit(byte),
        });
        let version = &known[..2];
        let ends = rest.is_empty() || (version != b"00" && rest[0] == b'-');
        let is_some = |id: &[u8]| id.iter().any(|digit| *digit != b'0');
        let has_ids = is_some(&known[3..35]) && is_some(&known[36..52]);
        if is_whole && ends && version != b"ff" && has_ids {
            Ok(parent)
        } else {
            Err(ParseTraceParentError)
        }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TraceParent").field(&self.as_str()).finish()
    }
}
