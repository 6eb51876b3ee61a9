//! A frame as it is sent.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::Draft;
use crate::error::EncodeError;
use crate::event::{Attachment, Text, ToSse};
use crate::gap::Gap;
use crate::id::EventId;
use crate::metrics::Sample;
use crate::position::Position;
use crate::sync::contain;
use crate::trace::TraceParent;

pub(super) const DATA: &[u8] = b"data: ";

/// What a frame in a history costs besides its bytes: its entry, its reference counts and the allocator's share.
pub(super) const FRAME_OVERHEAD: usize = 192;

/// Ends the last line, and the frame.
pub(super) const END: &[u8] = b"\n\n";

/// The longest wait that a `retry:` may ask for. Browsers and the npm clients set a timer of 32 bits with it, and take
/// anything longer for one millisecond.
pub(super) const MAX_RETRY_MILLIS: u64 = i32::MAX as u64;

/// The value of a `retry:` line. Every one that is written goes through here.
pub(super) fn retry_millis(after: Duration) -> u64 {
    u64::try_from(after.as_millis()).map_or(MAX_RETRY_MILLIS, |millis| millis.min(MAX_RETRY_MILLIS))
}

/// A server-sent event as it is sent: encoded once, shared by every stream that it goes to.
///
/// Cloning costs a reference count.
#[derive(Clone)]
pub struct Frame {
    pub(super) wire: Bytes,
    /// Where the data begins, counted from the end.
    pub(super) data_len: usize,
    pub(super) attachment: Attached,
    /// The end of the id that a history gave it.
    pub(super) body_start: usize,
    /// Its position in its user's history, which its id spells.
    pub(super) place: Option<Position>,
    pub(super) aside: Option<Arc<Aside>>,
}

/// A frame's attachment. Its drop runs code of the service: frames are dropped in calls and tasks that must go on even if it
/// panics.
#[derive(Clone, Default)]
pub(super) struct Attached(pub(super) Option<Attachment>);

impl Drop for Attached {
    fn drop(&mut self) {
        if let Some(attachment) = self.0.take() {
            contain(|| drop(attachment));
        }
    }
}

/// What only few frames have.
#[derive(Clone, Default)]
pub(crate) struct Aside {
    pub(crate) trace_parent: Option<TraceParent>,
    pub(crate) sample: Option<Sample>,
    /// `Some` for a gap notice, which is not an event.
    pub(super) gap: Option<Gap>,
    /// Streams may get the event twice: when its node shows it, and when the engine's log returns it. It has this number both
    /// times.
    pub(super) shown: Option<u64>,
}

impl Frame {
    /// How many bytes a gap notice counts as in a history.
    pub(crate) const NOTICE_WEIGHT: usize = FRAME_OVERHEAD;

    /// Encodes an event.
    ///
    /// # Errors
    ///
    /// When a field cannot be put on the wire: a name that is empty, a name or comment that holds CR, LF or NUL, or
    /// whatever [`ToSse::data`] reports.
    pub fn encode<E: ToSse + ?Sized>(event: &E) -> Result<Self, EncodeError> {
        Ok(Draft::encode(event, false)?.0.finish(None))
    }

    /// Reads what another node has [sent](Self::body): `None` unless it is exactly one whole event.
    pub(crate) fn parse(body: Bytes) -> Option<Draft> {
        Draft::parse(body)
    }

    /// The event as it goes to other nodes: without the id that the history here has given it.
    pub(crate) fn body(&self) -> &[u8] {
        &self.wire[self.body_start..]
    }

    /// Its position in its user's history, if there is one.
    pub(crate) fn place(&self) -> Option<Position> {
        self.place
    }

    /// The gap, if this is a gap notice.
    pub(crate) fn told(&self) -> Option<Gap> {
        self.aside.as_ref()?.gap
    }

    /// Whether it is an event that streams cannot get twice.
    #[allow(dead_code, reason = "for the server, which loom leaves out")]
    pub(crate) fn is_event_alone(&self) -> bool {
        let alone = |aside: &Arc<Aside>| aside.gap.is_none() && aside.shown.is_none();
        self.aside.as_ref().is_none_or(alone)
    }

    /// The number that it has both when it is shown and when the engine's log returns it.
    pub(crate) fn shown(&self) -> Option<u64> {
        self.aside.as_ref()?.shown
    }

    /// A notice in a user's channel, for a gap that all streams have.
    pub(crate) fn notice(gap: Gap) -> Self {
        let mut frame = Self::gap(&gap);
        frame.aside = Some(Arc::new(Aside {
            gap: Some(gap),
            ..Aside::default()
        }));
        frame
    }

    /// The event `gap`, as [`SseBody`](crate::SseBody) sends it: it reports missing events, and the id from which the
    /// stream continues. For services that write their own streams.
    ///
    /// ```
    /// # use tidings::{Frame, GenericBroadcaster, LastEventId, Text};
    /// # use tokio_stream::StreamExt;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let hub = GenericBroadcaster::<Text>::new();
    /// let mut stream = hub.resume("ann", &LastEventId::new("before-a-restart"))?;
    /// let frame = match stream.next().await.expect("it goes on") {
    ///     Ok(frame) => (*frame).clone(),
    ///     Err(gap) => Frame::gap(&gap),
    /// };
    /// assert_eq!(frame.event(), Some("gap"));
    /// assert_eq!(frame.data(), r#"{"reason":"epoch","missed":null}"#);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn gap(gap: &Gap) -> Self {
        let id = gap.id().map_or(String::new(), |id| format!("id: {id}\n"));
        let reason = gap.reason.as_str();
        let missed = gap
            .missed
            .map_or("null".into(), |missed| missed.to_string());
        let data = format!("{{\"reason\":\"{reason}\",\"missed\":{missed}}}");
        Self {
            body_start: id.len(),
            wire: format!("{id}event: gap\ndata: {data}\n\n").into(),
            data_len: data.len() + END.len(),
            attachment: Attached::default(),
            place: gap.position,
            aside: None,
        }
    }

    /// The frame with the id of the event that it replaces on a stream, unless it has its own.
    pub(crate) fn in_place_of(self: Arc<Self>, event: &Arc<Self>) -> Arc<Self> {
        let place = event.place.filter(|_| !Arc::ptr_eq(&self, event));
        let Some(place) = place.filter(|_| self.id().is_none()) else {
            return self;
        };
        let id = Self::id_line(&place.into());
        Arc::new(Self {
            body_start: id.len(),
            wire: [&id[..], &self.wire].concat().into(),
            place: Some(place),
            ..(*self).clone()
        })
    }

    /// The event `refused`: why the client is refused, and which cap is reached. Without an id, so that the client keeps its
    /// own.
    #[cfg_attr(not(feature = "axum"), allow(dead_code, reason = "for responses"))]
    pub(crate) fn refused(reason: &str, cap: Option<usize>) -> Self {
        let cap = cap.map_or("null".into(), |cap| cap.to_string());
        let data = format!("{{\"reason\":\"{reason}\",\"cap\":{cap}}}");
        let event = Text::new(data).event("refused");
        Self::encode(&event).expect("a name and a line of text can be encoded")
    }

    /// The line that gives the client an id to resume from.
    pub(crate) fn id_line(id: &EventId) -> Bytes {
        format!("id: {id}\n").into()
    }

    /// Tells the client how long to wait before it reconnects. Without an empty line: at the beginning of a stream it is the
    /// first line of the first event, at the end clients obey the line as it comes, and some would take an empty line for
    /// an event.
    pub(crate) fn retry_line(after: Duration) -> Bytes {
        format!("retry: {}\n", retry_millis(after)).into()
    }

    /// The frame's bytes, shared.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        self.wire.clone()
    }

    /// The frame's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.wire
    }

    /// The frame's data as on the wire, shared, if it is one line, as JSON always is.
    #[must_use]
    pub fn data_line(&self) -> Option<Bytes> {
        let end = self.wire.len() - END.len();
        let line = self.wire.len() - self.data_len..end;
        let is_one = memchr::memchr(b'\n', &self.wire[line.clone()]).is_none();
        is_one.then(|| self.wire.slice(line))
    }

    /// The [attachment](crate::Meta::attachment) of the event, if it is of this type.
    #[must_use]
    pub fn attachment<T: 'static>(&self) -> Option<&T> {
        self.attachment.0.as_deref()?.downcast_ref()
    }

    /// The trace that the event was published in, if it [has one](crate::Meta::trace_parent). Code that writes frames
    /// without [`SseBody`](crate::SseBody) should report it to a tracing layer.
    #[must_use]
    pub fn trace_parent(&self) -> Option<TraceParent> {
        self.aside()?.trace_parent
    }

    pub(crate) fn aside(&self) -> Option<&Aside> {
        self.aside.as_deref()
    }

    /// The fields in the order they are sent, each line of the data on its own; a comment has an empty name.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        // Every byte is from a `str`, and the encoder cuts only at line breaks.
        let text = std::str::from_utf8(&self.wire).expect("a frame is made of strings");
        text.split('\n').filter_map(|line| line.split_once(": "))
    }

    /// The event's id: the one that a [history](crate::History) gave it or, without, [its own](ToSse::id). A client sends it
    /// back as `Last-Event-ID`.
    ///
    /// ```
    /// use tidings::{EventId, Frame, Text};
    ///
    /// let frame = Frame::encode(&Text::new("hello").event("greeting").id(EventId::from(17)))?;
    /// assert_eq!((frame.id(), frame.event()), (Some("17"), Some("greeting")));
    /// # Ok::<(), tidings::EncodeError>(())
    /// ```
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.head_field("id")
    }

    /// The event's name; `None` if browsers dispatch it as `message`.
    #[must_use]
    pub fn event(&self) -> Option<&str> {
        self.head_field("event")
    }

    /// A field before the data.
    fn head_field(&self, wanted: &str) -> Option<&str> {
        let head = self.wire.len() - self.data_len - DATA.len();
        let head = std::str::from_utf8(&self.wire[..head]).expect("a frame is made of strings");
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find_map(|(name, value)| (name == wanted).then_some(value))
    }

    /// The event's data, its lines joined by LF, as a client gets it.
    #[must_use]
    pub fn data(&self) -> String {
        let lines: Vec<&str> = self
            .fields()
            .filter(|(name, _)| *name == "data")
            .map(|(_, line)| line)
            .collect();
        lines.join("\n")
    }
}

/// Equal if they are the same on the wire.
impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        self.wire == other.wire
    }
}

impl Eq for Frame {}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The payload stays out of logs.
        f.debug_struct("Frame")
            .field("len", &self.wire.len())
            .finish_non_exhaustive()
    }
}
