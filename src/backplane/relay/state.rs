//! What the tasks of a broadcaster and its callers have in common.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::calls::{caught, guarded_until};
use super::interest::{self, Interests};
use super::outbox::{Confirm, Outbox};
use super::reads::{Happened, Item};
use super::signals::Input;
use super::stretch::{Request, Stretch};
use super::wanted::is_behind;
use super::{inbox, publish};
use crate::backplane::{self, Backplane, BackplaneError, Cause, Level, Outbound};
use crate::error::{RelayError, with_causes};
use crate::event::Attachment;
use crate::frame::{Draft, Frame};
use crate::id::UserId;
use crate::metrics::{BackplaneStats, StripedCounter};
use crate::position::Position;
use crate::registry::Registry;
use crate::sync::lock;

/// Restores an event's attachment from its data and its relay data.
pub(crate) type Attach = fn(&str, Option<&str>) -> Option<Attachment>;

pub(crate) struct Settings {
    /// How much may wait to be published.
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    /// For how long a stream that comes from another node waits for the engine.
    pub(crate) patience: Duration,
    /// For how long a user who has gone is still of interest.
    pub(crate) linger: Duration,
    pub(crate) attach: Option<Attach>,
    /// After how long without the engine streams here get events before the log has them.
    pub(crate) local_after: Option<Duration>,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) published: StripedCounter,
    pub(super) unconfirmed: StripedCounter,
    pub(super) refused: StripedCounter,
    pub(super) received: StripedCounter,
    pub(super) echoes: StripedCounter,
    pub(super) again: StripedCounter,
    pub(super) foreign: StripedCounter,
    pub(super) unwanted: StripedCounter,
    pub(super) holes: StripedCounter,
    pub(super) fetched: StripedCounter,
}

pub(crate) struct Relay {
    /// The broadcaster's.
    pub(super) name: &'static str,
    pub(super) backplane: Arc<dyn Backplane>,
    pub(super) level: Level,
    /// Drawn at random for this broadcaster.
    pub(super) node: u64,
    pub(super) outbox: Outbox,
    pub(super) interests: Interests,
    pub(super) counters: Counters,
    attach: Option<Attach>,
    /// At [`Level::Replayable`] only: otherwise they always get them before.
    pub(super) local_after: Option<Duration>,
    pub(super) patience: Duration,
    pub(super) runtime: Handle,
    /// The engine can be reached again.
    pub(super) restored: Notify,
    /// Users of whom something was lost that had been accepted.
    lost: Mutex<HashSet<UserId>>,
    pub(super) has_lost: Notify,
    /// Asked for again after each reconnect.
    max_body: AtomicUsize,
    is_connected: watch::Sender<bool>,
    /// What was warned of: once for each cause.
    warned: Mutex<HashSet<&'static str>>,
    /// Streams that lack what the log has, or may lack it. Of each stream there is at most one request.
    requests: mpsc::UnboundedSender<Happened>,
    /// What the times of the [`Reader`](super::reader::Reader) count from.
    pub(super) begun: Instant,
    messages: AtomicU64,
    /// Since when something has been waiting without an answer of the engine, about.
    behind: Mutex<Option<Instant>>,
    stop: watch::Sender<Option<Instant>>,
    /// Until it has been waited for. It stays here meanwhile, for whoever waits next if one gives up.
    publishing: AsyncMutex<Option<JoinHandle<()>>>,
}

impl Relay {
    /// Starts the tasks.
    pub(crate) fn start(
        name: &'static str,
        backplane: Arc<dyn Backplane>,
        settings: &Settings,
        registry: &Arc<Registry<Arc<Frame>>>,
        runtime: Handle,
    ) -> Arc<Self> {
        let (stop, stopped) = watch::channel(None);
        let (requests, incoming) = mpsc::unbounded_channel();
        let relay = Arc::new(Self {
            name,
            level: backplane.level(),
            max_body: AtomicUsize::new(backplane.max_body()),
            node: Position::new_epoch(),
            outbox: Outbox::new(settings.events, settings.bytes),
            interests: Interests::new(),
            counters: Counters::default(),
            attach: settings.attach,
            local_after: settings
                .local_after
                .filter(|_| backplane.level() == Level::Replayable),
            patience: settings.patience,
            runtime: runtime.clone(),
            restored: Notify::new(),
            lost: Mutex::default(),
            has_lost: Notify::new(),
            is_connected: watch::Sender::new(true),
            warned: Mutex::default(),
            requests,
            begun: Instant::now(),
            messages: AtomicU64::new(0),
            behind: Mutex::new(None),
            stop,
            publishing: AsyncMutex::new(None),
            backplane,
        });
        let registry: Weak<_> = Arc::downgrade(registry);
        let events = relay.backplane.events();
        let inbox = inbox::run(relay.clone(), registry.clone(), events, incoming);
        runtime.spawn(inbox);
        let publish = publish::run(relay.clone(), registry.clone(), stopped.clone());
        let mut publishing = relay.publishing.try_lock().expect("nobody closes it yet");
        *publishing = Some(runtime.spawn(publish));
        drop(publishing);
        let interest = interest::run(relay.clone(), registry, settings.linger, stopped.clone());
        runtime.spawn(interest);
        relay
    }

    pub(crate) fn level(&self) -> Level {
        self.level
    }

    /// A place in the current log, if there is one.
    pub(crate) fn horizon(&self) -> Option<Position> {
        self.backplane.horizon()
    }

    /// Hands an event over to be published.
    pub(crate) fn push(
        &self,
        user: (u64, &str),
        event: &Outbound<'_>,
        confirm: Option<Confirm>,
    ) -> Result<(), RelayError> {
        let longer = self.local_after.map_or(0, |_| backplane::SHOWN);
        let len = event.len() + longer;
        let max = self.max_body.load(Ordering::Relaxed);
        let pushed = if len > max {
            self.outbox.lose(user);
            Err(RelayError::TooLarge { len, max })
        } else {
            let write = |bytes: &mut Vec<u8>| event.write(self.node, bytes);
            self.outbox.push(user, confirm, len, write)
        };
        if pushed.is_err() {
            self.counters.refused.add(1);
        }
        pushed
    }

    /// Hands over that no event of this user comes any more.
    pub(crate) fn complete(&self, user: (u64, &str)) -> Result<(), RelayError> {
        let write = |bytes: &mut Vec<u8>| backplane::complete(self.node, bytes);
        let pushed = self.outbox.push(user, None, backplane::HEAD, write);
        if pushed.is_err() {
            self.counters.refused.add(1);
        }
        pushed
    }

    /// A stream of this user has begun, or a channel. `is_untouched`: nothing was appended to its channel since it was opened, so
    /// no earlier comparison covers it.
    pub(crate) fn begin(&self, user: &UserId, is_untouched: bool) {
        let answer = self.interests.begin(user);
        if self.level == Level::Replayable && is_behind(answer, is_untouched) {
            drop(self.requests.send(Input::Behind(vec![user.clone()])));
        }
    }

    /// Runs `f` when the user's events arrive, or at once while the engine cannot be reached and after the end.
    pub(crate) async fn when_ready<R>(&self, user: &UserId, f: impl FnOnce() -> R) -> R {
        let mut is_connected = self.is_connected.subscribe();
        let mut stop = self.stop.subscribe();
        tokio::select! {
            () = self.interests.wait(user) => {}
            _ = is_connected.wait_for(|is_connected| !is_connected) => {}
            _ = stop.wait_for(Option::is_some) => {}
        }
        f()
    }

    /// A stream of this user was refused.
    pub(crate) fn withdraw(&self, user: &UserId, registry: &Registry<Arc<Frame>>) {
        self.interests.withdraw(user, registry);
    }

    /// Which log there is.
    pub(super) fn epoch(&self) -> Option<u64> {
        self.backplane.horizon().map(|horizon| horizon.epoch)
    }

    /// Asks for what the log has of a user after a place.
    pub(super) fn ask(
        &self,
        user: &UserId,
        after: Position,
    ) -> oneshot::Receiver<Option<Arc<Stretch<Item>>>> {
        let (answer, answered) = oneshot::channel();
        // If nobody takes it, nobody answers.
        let request = Request {
            after,
            since: self.begun.elapsed(),
            ticket: answer,
        };
        drop(self.requests.send(Input::Request(user.clone(), request)));
        answered
    }

    pub(super) fn warn_refused(&self, user: &UserId, reason: &BackplaneError) {
        let (user, error) = (user.as_str(), with_causes(reason));
        match lock(&self.warned).insert("refused") {
            true => tracing::warn!(
                user,
                error,
                "the engine refuses an event; further ones are logged at debug"
            ),
            false => tracing::debug!(user, error, "the engine refuses an event"),
        }
    }

    /// The engine has taken back that it accepted messages of these users.
    pub(super) fn note_lost(&self, users: Vec<UserId>, detail: &str) {
        for user in &users {
            self.counters.refused.add(1);
            self.warn_refused(user, &BackplaneError::other(detail));
        }
        lock(&self.lost).extend(users);
        self.has_lost.notify_one();
    }

    pub(super) fn take_lost(&self) -> HashSet<UserId> {
        std::mem::take(&mut lock(&self.lost))
    }

    pub(super) fn warn_unheard(&self, users: usize, cause: Cause, detail: &str) {
        let name = cause.as_str();
        match lock(&self.warned).insert(name) {
            true => tracing::warn!(users, cause = name, detail, "events do not arrive"),
            false => tracing::debug!(users, cause = name, detail, "events do not arrive"),
        }
    }

    pub(super) fn message_id(&self) -> u128 {
        // Relaxed: it orders nothing, it only never repeats.
        let number = self.messages.fetch_add(1, Ordering::Relaxed);
        u128::from(self.node) << 64 | u128::from(number)
    }

    pub(super) fn set_connected(&self, is_connected: bool) {
        self.is_connected.send_replace(is_connected);
        if is_connected {
            let max_body = self.backplane.max_body();
            self.max_body.store(max_body, Ordering::Relaxed);
            lock(&self.warned).clear();
            self.restored.notify_one();
        }
    }

    /// Restores the attachment of an event of another node. The service's own code does that, in a task that others' events
    /// come through as well: if it panics, this event has none.
    pub(super) fn attach(&self, draft: Draft, relay_data: Option<String>) -> Draft {
        let Some(attach) = self.attach else {
            return draft;
        };
        let data = draft.data();
        let attachment = caught(|| attach(&data, relay_data.as_deref())).unwrap_or_else(|| {
            tracing::error!("restoring the attachment of an event of another node panicked");
            None
        });
        draft.with_attachment(attachment)
    }

    /// Something waits since then, or for longer.
    pub(super) fn waits_since(&self, since: Instant) {
        lock(&self.behind).get_or_insert(since);
    }

    /// Since when something has been waiting, if something is.
    fn waiting_since(&self) -> Option<Instant> {
        *lock(&self.behind)
    }

    /// From when on streams here get events without the engine, if it does not answer until then.
    pub(super) fn apart_at(&self) -> Option<Instant> {
        Some(self.waiting_since()? + self.local_after?)
    }

    /// Nothing waits any more, or the engine has answered.
    pub(super) fn waits_not(&self) {
        *lock(&self.behind) = None;
    }

    pub(crate) fn stats(&self) -> BackplaneStats {
        let behind = self.waiting_since();
        let (users, unheard) = self.interests.count();
        let counters = &self.counters;
        BackplaneStats {
            connected: *self.is_connected.borrow(),
            queued: self.outbox.len(),
            lag_ms: behind.map_or(0, |since| {
                u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
            }),
            users,
            unheard,
            published: counters.published.get(),
            refused: counters.refused.get(),
            unconfirmed: counters.unconfirmed.get(),
            received: counters.received.get(),
            echoes: counters.echoes.get(),
            duplicates: counters.again.get(),
            dropped: counters.foreign.get(),
            unwanted: counters.unwanted.get(),
            holes: counters.holes.get(),
            fetched: counters.fetched.get(),
        }
    }

    /// Publishes what waits, until the deadline, and ends the backplane. Of several that do so each waits, and whoever gives
    /// up takes nothing away from the others.
    pub(crate) async fn close(&self, deadline: Instant) {
        self.outbox.close();
        self.stop.send_replace(Some(deadline));
        let published = async {
            let mut publishing = self.publishing.lock().await;
            if let Some(task) = publishing.as_mut() {
                // However it ended, there is nothing more to wait for.
                let _ = task.await;
                *publishing = None;
            }
        };
        if timeout_at(deadline, published).await.is_err() {
            tracing::warn!(
                events = self.outbox.len(),
                "events were not published in time"
            );
        }
        let close = || async {
            self.backplane.close(deadline).await;
            Ok(())
        };
        if let Err(error) = guarded_until(deadline, close).await {
            tracing::warn!(error = with_causes(&error), "the backplane does not close");
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// For how long what waits is published when the last clone of a broadcaster goes.
const FAREWELL: Duration = Duration::from_secs(5);

/// Ends the tasks with the last clone of the broadcaster.
pub(crate) struct Running(pub(crate) Arc<Relay>);

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.stop.borrow().is_some() {
            return;
        }
        let relay = self.0.clone();
        self.0.runtime.spawn(async move {
            relay.close(Instant::now() + FAREWELL).await;
        });
    }
}
