//! What a stream yields on paused time, which goes on by itself when no task has anything to do.

use std::sync::Arc;
use std::time::Duration;

use tidings::{Frame, Gap, LastEventId, Subscription, Text};
use tokio::time::timeout;
use tokio_stream::StreamExt;

pub(crate) fn text(text: &str) -> Text {
    Text::new(text)
}

/// The next item.
pub(crate) async fn item(stream: &mut Subscription) -> Result<Arc<Frame>, Gap> {
    timeout(Duration::from_secs(120), stream.next())
        .await
        .expect("something comes")
        .expect("the stream goes on")
}

/// The data of the next item, which is an event.
pub(crate) async fn data(stream: &mut Subscription) -> String {
    item(stream).await.expect("an event").data()
}

/// Whether nothing comes any more.
pub(crate) async fn is_silent(stream: &mut Subscription) -> bool {
    timeout(Duration::from_secs(5), stream.next())
        .await
        .is_err()
}

/// The id of an event, as a client sends it when it comes back.
pub(crate) fn id(frame: &Frame) -> LastEventId {
    let id = frame.fields().find(|(name, _)| *name == "id");
    LastEventId::new(id.expect("it has an id").1)
}
