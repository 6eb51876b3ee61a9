//! What a service says of its console.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;

use super::feed::Feed;
use super::routes;
use super::source::{Shown, Sources};
use crate::broadcaster::GenericBroadcaster;
use crate::event::ToSse;

/// A page for operators, over one or several broadcasters. See the [module](crate::console) for how to guard it.
///
/// ```
/// use tidings::console::Console;
/// use tidings::{GenericBroadcaster, Json, Text};
///
/// let chat = GenericBroadcaster::<Text>::new();
/// let prices = GenericBroadcaster::<Json<u64>>::new();
/// let console = Console::new()
///     .broadcaster_with("chat", &chat, |text| Text::new(text.into()).event("test"))
///     .broadcaster("prices", &prices);
/// let app: axum::Router = axum::Router::new().nest("/console", console.router());
/// # let _ = app;
/// ```
#[must_use]
pub struct Console {
    sources: Sources,
    interval: Duration,
    rows: usize,
    feed: Arc<Feed>,
}

impl Console {
    /// A console that shows no broadcaster yet.
    pub fn new() -> Self {
        Self {
            sources: Sources::default(),
            interval: Duration::from_secs(1),
            rows: 200,
            feed: Arc::default(),
        }
    }

    /// Shows a broadcaster under a name of the service's choice. One that is shown under the same name is replaced.
    pub fn broadcaster<E: ?Sized + 'static>(
        mut self,
        name: impl Into<String>,
        broadcaster: &GenericBroadcaster<E>,
    ) -> Self {
        let shown = Shown::new(broadcaster);
        self.sources.put(name.into(), Arc::new(shown));
        self
    }

    /// The same with a form to send a test event to a user: `make` makes the event of what the operator has typed, any
    /// text of up to 64 KiB. Its clients cannot tell it from an event of the service, except by what `make` puts in.
    pub fn broadcaster_with<E: ToSse + 'static>(
        mut self,
        name: impl Into<String>,
        broadcaster: &GenericBroadcaster<E>,
        make: impl Fn(&str) -> E + Send + Sync + 'static,
    ) -> Self {
        let shown = Shown::sending(broadcaster, make);
        self.sources.put(name.into(), Arc::new(shown));
        self
    }

    /// Sets how often figures are read and sent to the pages; 1 second by default, and 10 milliseconds at the least. Each
    /// time costs a read of all counters, some microseconds for each broadcaster, and about 300 bytes for each page and
    /// broadcaster. The graphs hold 120 points, so that a longer interval shows a longer time.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(Duration::from_millis(10));
        self
    }

    /// Sets how many connections a list shows; 200 by default, and 1 at the least. The page says when there are more, and
    /// its search finds them. A row costs the page about a dozen elements, and 120 bytes each time
    /// that it is sent.
    pub fn rows(mut self, rows: usize) -> Self {
        self.rows = rows.max(1);
        self
    }

    /// The routes, to be nested at any path or served alone. **Guard them**: see the [module](crate::console).
    ///
    /// The path that it is nested at leads to the page, which is at `page` below it. axum's `nest` does not know that path
    /// with a slash at its end; `nest_service` does.
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let sources = Arc::new(self.sources.clone());
        routes::router(sources, self.feed.clone(), self.interval, self.rows)
    }

    /// Ends the pages' own streams, and refuses new ones: when the service stops. Streams by which users are watched end
    /// with those of their broadcaster.
    ///
    /// # Cancel safety
    ///
    /// The streams end with the first poll, also if this is given up on.
    pub async fn shutdown(&self) {
        self.feed.shutdown().await;
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.sources.iter().map(|(name, _)| name).collect();
        f.debug_struct("Console")
            .field("broadcasters", &names)
            .field("interval", &self.interval)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}
