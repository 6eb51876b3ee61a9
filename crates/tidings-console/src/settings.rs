//! The settings of a console.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::request::Parts;
use tokio::sync::Semaphore;

use super::feed::Feed;
use super::guard::host_of;
use super::routes;
use super::served::{MOST_WATCHES, Operator, Served};
use super::source::{Shown, Sources};
use tidings::GenericBroadcaster;
use tidings::ToSse;

/// A page for operators, over one or several broadcasters. See the [crate](crate) for how to guard it.
///
/// ```
/// use tidings_console::Console;
/// use tidings::{GenericBroadcaster, JsonEvent, Text};
///
/// let chat = GenericBroadcaster::<Text>::new();
/// let prices = GenericBroadcaster::<JsonEvent<u64>>::new();
/// let console = Console::new()
///     .broadcaster_with("chat", &chat, |text| Text::new(text).event("test"))
///     .broadcaster("prices", &prices);
/// let app: axum::Router = axum::Router::new().nest("/console", console.router());
/// # let _ = app;
/// ```
#[must_use]
pub struct Console {
    sources: Sources,
    interval: Duration,
    rows: usize,
    hosts: Vec<String>,
    read_only: bool,
    operator: Option<Arc<Operator>>,
    feed: Arc<Feed>,
    watches: Arc<Semaphore>,
}

impl Console {
    /// A console that shows no broadcaster yet.
    pub fn new() -> Self {
        Self {
            sources: Sources::default(),
            interval: Duration::from_secs(1),
            rows: 200,
            hosts: Vec::new(),
            read_only: false,
            operator: None,
            feed: Arc::default(),
            watches: Arc::new(Semaphore::new(MOST_WATCHES)),
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

    /// The same with a form to send a test event to a user: `make` makes the event from what the operator has typed, any text
    /// of up to 64 KiB. Its clients cannot tell it from an event of the service, except by what `make` puts in.
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

    /// Sets the host names and addresses under which operators reach the console, beside `localhost`, the names that end with
    /// `.localhost`, and the addresses of loopback. A request for any other (`Host`, or `:authority` in HTTP/2) is refused
    /// with 403. Otherwise a site could point its own name at this service (DNS rebinding), and its pages could act in an
    /// operator's browser. Ports are ignored.
    ///
    /// ```
    /// # use tidings_console::Console;
    /// let console = Console::new().hosts(["ops.example", "10.0.0.7"]);
    /// # let _ = console;
    /// ```
    pub fn hosts<H: AsRef<str>>(mut self, hosts: impl IntoIterator<Item = H>) -> Self {
        let spelled = |host: H| {
            let host = host.as_ref();
            host_of(host).unwrap_or_else(|| host.to_ascii_lowercase())
        };
        self.hosts = hosts.into_iter().map(spelled).collect();
        self
    }

    /// Sets whether operators may only look; off by default. Then nobody is disconnected and no test event is sent (403), and
    /// the page does not offer it. Streams can still be watched.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Sets how operators are named in the log: `name` is called with the head of each request that sends, watches or
    /// disconnects, and returns the field `operator` of the log line. The line also has `host` and `peer`, the client's address;
    /// `tidings::serve` provides that, `axum::serve` only with
    /// [`into_make_service_with_connect_info`](axum::Router::into_make_service_with_connect_info).
    ///
    /// ```
    /// # use tidings_console::Console;
    /// // A header that the proxy in front sets, after its login.
    /// let console = Console::new().operator(|request| {
    ///     let name = request.headers.get("x-forwarded-user")?;
    ///     Some(name.to_str().ok()?.to_owned())
    /// });
    /// # let _ = console;
    /// ```
    pub fn operator(
        mut self,
        name: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.operator = Some(Arc::new(name));
        self
    }

    /// The routes, to be nested at any path or served alone. **Guard them**: see the [crate](crate).
    ///
    /// The path that it is nested at leads to the page, which is at `page` below it. axum's `nest` does not match that path
    /// with a slash at its end; `nest_service` does.
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        routes::router(Served {
            sources: self.sources.clone(),
            feed: self.feed.clone(),
            interval: self.interval,
            rows: self.rows,
            hosts: self.hosts.clone(),
            read_only: self.read_only,
            operator: self.operator.clone(),
            watches: self.watches.clone(),
        })
    }

    /// Ends the pages' own streams, and refuses new ones: when the service stops. Streams by which users are watched end
    /// with those of their broadcaster.
    ///
    /// # Cancel safety
    ///
    /// The streams end with the first poll, even if the future is then dropped.
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
            .field("hosts", &self.hosts)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}
