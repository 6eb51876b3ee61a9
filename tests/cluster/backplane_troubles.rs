//! Engines that refuse, forget, answer incompletely or not at all: every event in the log arrives or is reported, and one user's
//! trouble does not affect others.

use std::future::pending;
use std::panic::panic_any;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use async_trait::async_trait;
use tidings::backplane::{
    Backplane, BackplaneError, Event, Fetched, Head, Level, Message, Missing, Place, Position,
    Published, Received,
};
use tidings::{
    BroadcastError, GapReason, GenericBroadcaster, History, LastEventId, RegisterError, RelayError,
    Subscription, Text, UserId,
};
use tidings_testkit::backplane::{InProcess, InProcessNode};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt};

use crate::support::streams::{data, id, is_silent, item, text};

type Hub = GenericBroadcaster<Text>;

fn hub(node: impl Backplane) -> Hub {
    GenericBroadcaster::builder()
        .backplane(node)
        .connections_per_user(None)
        .build()
        .expect("valid settings")
}

fn reason(sent: Result<usize, BroadcastError>) -> RelayError {
    match sent {
        Err(BroadcastError::NotRelayed { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

type Failure = fn() -> BackplaneError;

/// A node whose answers a test changes.
struct Odd {
    node: InProcessNode,
    publish: fn(&Message) -> Option<Published>,
    /// Why every call to publish fails, if it does.
    fails: Arc<Mutex<Option<Failure>>>,
    /// Calls to publish.
    calls: Arc<AtomicUsize>,
    /// So many of the first reads panic, or find nothing, as on a server that is behind.
    panics: AtomicUsize,
    stale: AtomicUsize,
    /// So many of the first calls of this name never return.
    hanging: (&'static str, AtomicUsize),
    /// Whose log cannot be read, and whether such a read never returns.
    unread: Option<(UserId, bool)>,
    /// So many of the first changes of interest are not noted.
    unnoted: AtomicUsize,
    /// No change that adds this user is noted.
    unheard: Option<UserId>,
    published: Arc<Mutex<Vec<Instant>>>,
    /// Reads that go on at the same time, the most there were, and all.
    reads: Arc<[AtomicUsize; 3]>,
    /// It counts each user's messages, as far as it says: new channels begin at the start of the log.
    counts_users: bool,
    /// What it says besides.
    said: Mutex<Option<UnboundedReceiver<Event>>>,
}

impl Odd {
    fn new(node: InProcessNode) -> Self {
        Self {
            node,
            publish: |_| None,
            fails: Arc::default(),
            calls: Arc::default(),
            panics: AtomicUsize::new(0),
            stale: AtomicUsize::new(0),
            hanging: ("", AtomicUsize::new(0)),
            unread: None,
            unnoted: AtomicUsize::new(0),
            unheard: None,
            published: Arc::default(),
            reads: Arc::default(),
            counts_users: false,
            said: Mutex::default(),
        }
    }

    /// One that hangs in so many of the first calls of this name.
    fn hanging(node: InProcessNode, call: &'static str, count: usize) -> Self {
        Self {
            hanging: (call, AtomicUsize::new(count)),
            ..Self::new(node)
        }
    }

    async fn hang(&self, call: &str) {
        if self.hanging.0 == call && is_left(&self.hanging.1) {
            pending().await
        }
    }
}

fn is_left(count: &AtomicUsize) -> bool {
    let less = |left: usize| left.checked_sub(1);
    count
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
        .is_ok()
}

#[async_trait]
impl Backplane for Odd {
    fn level(&self) -> Level {
        self.node.level()
    }

    fn horizon(&self) -> Option<Position> {
        let horizon = self.node.horizon();
        horizon.map(|horizon| match self.counts_users {
            true => Position {
                offset: 0,
                ..horizon
            },
            false => horizon,
        })
    }

    fn max_body(&self) -> usize {
        self.node.max_body()
    }

    fn duplicate_window(&self) -> Duration {
        Duration::from_secs(20)
    }

    async fn publish(&self, messages: &[Message]) -> Result<Vec<Published>, BackplaneError> {
        assert!(!messages.is_empty(), "a call that publishes nothing");
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.hang("publish").await;
        if let Some(error) = *self.fails.lock().unwrap() {
            return Err(error());
        }
        let mut published = Vec::new();
        for message in messages {
            if let Some(outcome) = (self.publish)(message) {
                self.published.lock().unwrap().push(Instant::now());
                published.push(outcome);
            } else {
                let message = std::slice::from_ref(message);
                published.append(&mut self.node.publish(message).await?);
            }
        }
        Ok(published)
    }

    async fn set_interest(&self, add: &[UserId], remove: &[UserId]) -> Result<(), BackplaneError> {
        self.hang("set_interest").await;
        let is_unheard = |user| self.unheard.as_ref() == Some(user);
        if is_left(&self.unnoted) || add.iter().any(is_unheard) {
            return Err(BackplaneError::other("it is not noted"));
        }
        self.node.set_interest(add, remove).await
    }

    fn events(&self) -> Pin<Box<dyn Stream<Item = Event> + Send>> {
        match self.said.lock().unwrap().take() {
            Some(said) => {
                let said = UnboundedReceiverStream::new(said);
                Box::pin(self.node.events().merge(said))
            }
            None => self.node.events(),
        }
    }

    // Not `async`: it panics before there is a future.
    fn fetch<'life0, 'life1, 'async_trait>(
        &'life0 self,
        user: &'life1 UserId,
        after: Position,
        limit: usize,
    ) -> Pin<Box<dyn Future<Output = Result<Fetched, BackplaneError>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        assert!(!is_left(&self.panics), "a fault of the adapter");
        Box::pin(async move {
            self.hang("fetch").await;
            match &self.unread {
                Some((unread, true)) if unread == user => pending().await,
                Some((unread, false)) if unread == user => {
                    return Err(BackplaneError::other("it cannot be read"));
                }
                _ => {}
            }
            if is_left(&self.stale) {
                return Ok(Fetched {
                    messages: Vec::new(),
                    through: after,
                    head: after,
                    missing: Missing::Nothing,
                });
            }
            let [now, most, all] = &*self.reads;
            all.fetch_add(1, Ordering::Relaxed);
            most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            sleep(Duration::from_millis(20)).await;
            let fetched = self.node.fetch(user, after, limit).await;
            now.fetch_sub(1, Ordering::Relaxed);
            fetched
        })
    }

    async fn heads(&self, users: &[UserId]) -> Result<Vec<Head>, BackplaneError> {
        assert!(!is_left(&self.panics), "a fault of the adapter");
        self.hang("heads").await;
        self.node.heads(users).await
    }

    async fn close(&self, deadline: Instant) {
        self.hang("close").await;
        self.node.close(deadline).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_refused_is_lost_alone() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let mut ann = b.register_when_ready("ann").await.expect("room");
    let mut bob = b.register_when_ready("bob").await.expect("room");
    engine.refuse("ann", Some(true));
    for n in 0..3 {
        a.broadcast("ann", &text("refused")).expect("kept");
        a.broadcast("bob", &text(&n.to_string())).expect("kept");
    }
    let confirmed = a.broadcast_confirmed("ann", &text("refused")).await;
    assert_eq!(reason(confirmed), RelayError::Refused);
    for n in 0..3 {
        assert_eq!(data(&mut bob).await, n.to_string());
    }
    assert_eq!(a.stats().backplane.expect("there is one").refused, 4);
    engine.refuse("ann", None);
    let gap = item(&mut ann).await.expect_err("a gap");
    assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, Some(4)));
    a.broadcast("ann", &text("after")).expect("kept");
    assert_eq!(data(&mut ann).await, "after");
}

/// The first attempt is in the log, and its acknowledgement is lost.
#[tokio::test(start_paused = true)]
async fn an_event_that_is_refused_when_it_is_published_again_may_be_in_the_log() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let mut ann = b.register_when_ready("ann").await.expect("room");
    engine.lose_acknowledgements(1);
    let confirmed = async { a.broadcast_confirmed("ann", &text("here")).await };
    let refuse = async {
        assert_eq!(data(&mut ann).await, "here");
        engine.refuse("ann", Some(true));
    };
    let (confirmed, ()) = tokio::join!(confirmed, refuse);
    assert_eq!(reason(confirmed), RelayError::Unconfirmed);
    engine.refuse("ann", None);
    let gap = item(&mut ann).await.expect_err("a gap");
    assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, None));
}

/// The log has the notice of the first loss, although its acknowledgement is lost. A stream that begins after that notice gets
/// a gap for the second loss.
#[tokio::test(start_paused = true)]
async fn an_event_refused_after_a_loss_is_reported_by_itself() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let mut early = b.register_when_ready("ann").await.expect("room");
    engine.refuse("ann", Some(true));
    a.broadcast("ann", &text("first")).expect("kept");
    sleep(Duration::from_secs(1)).await;
    engine.lose_acknowledgements(1);
    engine.refuse("ann", None);
    item(&mut early).await.expect_err("a gap");
    engine.refuse("ann", Some(true));
    let mut late = b.register_when_ready("ann").await.expect("room");
    a.broadcast("ann", &text("second")).expect("kept");
    sleep(Duration::from_secs(2)).await;
    engine.refuse("ann", None);
    item(&mut late).await.expect_err("a gap");
}

/// The engine would not recognize it. The process was stopped, for example.
#[tokio::test(start_paused = true)]
async fn an_event_is_not_published_again_after_a_long_stop() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let mut ann = b.register_when_ready("ann").await.expect("room");
    engine.lose_acknowledgements(1);
    let confirmed = async { a.broadcast_confirmed("ann", &text("here")).await };
    let stop = async {
        assert_eq!(data(&mut ann).await, "here");
        sleep(Duration::from_millis(10)).await;
        tokio::time::advance(Duration::from_secs(300)).await;
    };
    let (confirmed, ()) = tokio::join!(confirmed, stop);
    assert_eq!(reason(confirmed), RelayError::Unconfirmed);
    let gap = item(&mut ann).await.expect_err("a gap");
    assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, None));
}

#[tokio::test(start_paused = true)]
async fn an_event_refused_after_it_was_accepted_is_reported_on_other_nodes() {
    let engine = InProcess::new(Level::AtMostOnce);
    let (say, said) = unbounded_channel();
    let odd = Odd {
        said: Mutex::new(Some(said)),
        ..Odd::new(engine.node())
    };
    let (a, b) = (hub(odd), hub(engine.node()));
    let mut here = a.register_when_ready("ann").await.expect("room");
    let mut there = b.register_when_ready("ann").await.expect("room");
    let lost = Event::Lost {
        users: vec!["ann".into()],
        detail: "not permitted".into(),
    };
    say.send(lost).expect("it listens");
    let gap = item(&mut there).await.expect_err("a gap");
    assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, None));
    a.broadcast("ann", &text("after")).expect("sent");
    for stream in [&mut here, &mut there] {
        assert_eq!(data(stream).await, "after", "nothing else is told");
    }
    assert_eq!(a.stats().backplane.expect("there is one").refused, 1);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_refused_for_now_holds_up_its_user_alone() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let mut ann = b.register_when_ready("ann").await.expect("room");
    let mut bob = b.register_when_ready("bob").await.expect("room");
    engine.refuse("ann", Some(false));
    for n in 0..3 {
        a.broadcast("ann", &text(&n.to_string())).expect("kept");
        a.broadcast("bob", &text(&n.to_string())).expect("kept");
    }
    for n in 0..3 {
        assert_eq!(data(&mut bob).await, n.to_string());
    }
    assert!(is_silent(&mut ann).await);
    engine.refuse("ann", None);
    for n in 0..3 {
        assert_eq!(data(&mut ann).await, n.to_string());
    }
}

/// However many events are broadcast meanwhile, and whatever the engine says.
#[tokio::test(start_paused = true)]
async fn an_engine_that_fails_immediately_is_asked_twice_a_second() {
    let errors: [Failure; 2] = [BackplaneError::unavailable, || {
        BackplaneError::other("it fails")
    }];
    for level in [Level::AtMostOnce, Level::Replayable] {
        for error in errors {
            let engine = InProcess::new(level);
            let odd = Odd::new(engine.node());
            let (fails, calls) = (odd.fails.clone(), odd.calls.clone());
            let (a, b) = (hub(odd), hub(engine.node()));
            let mut ann = b.register_when_ready("ann").await.expect("room");
            *fails.lock().unwrap() = Some(error);
            for n in 0..1_000 {
                for user in ["ann", "ann", &format!("{n}")] {
                    a.broadcast(user, &text(&n.to_string())).expect("kept");
                }
                sleep(Duration::from_millis(10)).await;
            }
            let calls = calls.load(Ordering::Relaxed);
            assert!(calls <= 40, "{calls} calls in ten seconds, {level:?}");
            *fails.lock().unwrap() = None;
            a.broadcast("ann", &text("after")).expect("kept");
            loop {
                match item(&mut ann).await {
                    Ok(frame) if frame.data() == "after" => break,
                    Ok(_) => {}
                    Err(gap) => assert_eq!(
                        (gap.reason, level),
                        (GapReason::Backplane, Level::AtMostOnce)
                    ),
                }
            }
            sleep(Duration::from_secs(1)).await;
            assert_eq!(a.stats().backplane.expect("there is one").queued, 0);
        }
    }
}

/// Later, the engine would take it for a new one.
#[tokio::test(start_paused = true)]
async fn an_event_without_an_answer_is_given_up_before_the_engine_forgets_it() {
    let engine = InProcess::new(Level::Replayable);
    let odd = Odd {
        publish: |message| {
            let is_odd = &*message.user == "ann" && message.body.ends_with(b"data: odd\n\n");
            is_odd.then(|| Published::Unknown(BackplaneError::other("no answer")))
        },
        ..Odd::new(engine.node())
    };
    let published = odd.published.clone();
    let (a, b) = (hub(odd), hub(engine.node()));
    let mut ann = b.register_when_ready("ann").await.expect("room");
    let mut bob = b.register_when_ready("bob").await.expect("room");
    let odd = text("odd");
    let (confirmed, heard) = tokio::join!(a.broadcast_confirmed("ann", &odd), async {
        a.broadcast("bob", &text("1")).expect("kept");
        data(&mut bob).await
    });
    assert_eq!(heard, "1");
    assert_eq!(reason(confirmed), RelayError::Unconfirmed);
    let times = published.lock().unwrap().clone();
    assert!(times.len() > 10, "it is tried again and again");
    let took = times[times.len() - 1] - times[0];
    assert!(took < Duration::from_secs(20), "the last after {took:?}");
    let gap = item(&mut ann).await.expect_err("a gap");
    assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, None));
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_panics_silences_nobody() {
    let engine = InProcess::new(Level::Replayable);
    let a = hub(engine.node());
    let (node, cut) = (engine.node(), engine.node());
    let b = hub(Odd {
        panics: AtomicUsize::new(4),
        ..Odd::new(cut.clone())
    });
    let mut tab = b.register_when_ready("ann").await.expect("room");
    engine.cut(&cut);
    for n in 0..3 {
        a.broadcast_confirmed("ann", &text(&n.to_string()))
            .await
            .expect("kept");
    }
    engine.mend(&cut);
    for n in 0..3 {
        assert_eq!(data(&mut tab).await, n.to_string());
    }
    // And a client that reads from the log.
    let c = hub(Odd {
        panics: AtomicUsize::new(4),
        ..Odd::new(node)
    });
    let seen = LastEventId::new(&format!("{:016x}-1", cut.horizon().expect("a log").epoch));
    let mut tab = c.resume("ann", &seen).expect("room");
    for n in 1..3 {
        assert_eq!(data(&mut tab).await, n.to_string());
    }
}

/// Of reads more than there may be at a time.
#[tokio::test(start_paused = true)]
async fn a_read_that_never_returns_is_made_again() {
    let engine = InProcess::new(Level::Replayable);
    let a = hub(engine.node());
    let users: Vec<String> = (0..100).map(|n| format!("user {n}")).collect();
    for user in &users {
        let kept = a.broadcast_confirmed(user, &text("missed")).await;
        kept.expect("it is in the log");
    }
    let epoch = engine.node().horizon().expect("a log").epoch;
    let seen = LastEventId::new(&format!("{epoch:016x}-0"));
    let b = hub(Odd::hanging(engine.node(), "fetch", users.len()));
    let resume = |user: &String| b.resume(user.as_str(), &seen).expect("room");
    let mut tabs: Vec<Subscription> = users.iter().map(resume).collect();
    for tab in &mut tabs {
        assert_eq!(data(tab).await, "missed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_comparison_that_never_returns_is_made_again() {
    let engine = InProcess::new(Level::Replayable);
    let a = hub(engine.node());
    // As many as there are at a time.
    let b = hub(Odd::hanging(engine.node(), "heads", 4));
    let mut tab = b.register_when_ready("ann").await.expect("room");
    engine.lose_sends(1);
    let kept = a.broadcast_confirmed("ann", &text("last")).await;
    kept.expect("it is in the log");
    assert_eq!(data(&mut tab).await, "last");
}

#[tokio::test(start_paused = true)]
async fn a_publication_that_never_returns_holds_nobody() {
    for level in [Level::AtMostOnce, Level::Replayable] {
        let engine = InProcess::new(level);
        let a = hub(Odd::hanging(engine.node(), "publish", 1));
        let b = hub(engine.node());
        let mut tab = b.register_when_ready("ann").await.expect("room");
        let first = text("first");
        let confirmed = timeout(
            Duration::from_secs(30),
            a.broadcast_confirmed("ann", &first),
        );
        let confirmed = confirmed.await.expect("in time");
        if level == Level::AtMostOnce {
            assert_eq!(reason(confirmed), RelayError::Unconfirmed);
            let gap = item(&mut tab).await.expect_err("a gap");
            assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, None));
        } else {
            confirmed.expect("it is published again");
            assert_eq!(data(&mut tab).await, "first");
        }
        a.broadcast("ann", &text("second")).expect("kept");
        assert_eq!(data(&mut tab).await, "second");
    }
}

#[tokio::test(start_paused = true)]
async fn an_interest_that_was_not_noted_is_sent_again() {
    for hangs in [true, false] {
        let engine = InProcess::new(Level::AtMostOnce);
        let a = hub(engine.node());
        let b = hub(match hangs {
            true => Odd::hanging(engine.node(), "set_interest", 1),
            false => Odd {
                unnoted: AtomicUsize::new(2),
                ..Odd::new(engine.node())
            },
        });
        let ready = timeout(Duration::from_secs(30), b.register_when_ready("ann"));
        let mut tab = ready.await.expect("in time").expect("room");
        a.broadcast("ann", &text("heard")).expect("sent");
        assert_eq!(data(&mut tab).await, "heard");
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_close_does_not_hold_up_a_shutdown() {
    let engine = InProcess::new(Level::Replayable);
    let hub = hub(Odd::hanging(engine.node(), "close", 1));
    let over = Duration::from_secs(5);
    let shut = timeout(over * 2, hub.shutdown(over)).await;
    assert_eq!(shut.expect("in time"), 0);
}

/// Neither live nor from the log: what it panics with may panic once more when it is dropped.
#[tokio::test(start_paused = true)]
async fn an_attachment_that_cannot_be_restored_takes_no_event_with_it() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    let engine = InProcess::new(Level::Replayable);
    let a = hub(engine.node());
    a.broadcast_confirmed("ann", &text("missed"))
        .await
        .expect("it is in the log");
    let node = engine.node();
    let epoch = node.horizon().expect("a log").epoch;
    let b: Hub = GenericBroadcaster::builder()
        .backplane(node)
        .attachments(|_, _| panic_any(Bomb))
        .build()
        .expect("valid settings");
    let seen = LastEventId::new(&format!("{epoch:016x}-0"));
    let mut back = b.resume("ann", &seen).expect("room");
    assert_eq!(data(&mut back).await, "missed");
    let mut tab = b.register_when_ready("bob").await.expect("room");
    a.broadcast("bob", &text("live")).expect("kept");
    assert_eq!(data(&mut tab).await, "live");
}

/// The server that leads appended it, and died before it was sent.
#[tokio::test(start_paused = true)]
async fn the_last_event_of_a_user_is_found_in_the_log() {
    for is_told in [true, false] {
        let engine = InProcess::new(Level::Replayable);
        let (a, b) = (hub(engine.node()), hub(engine.node()));
        let mut tabs = Vec::new();
        for hub in [&a, &b] {
            tabs.push(hub.register_when_ready("ann").await.expect("room"));
        }
        engine.lose_sends(1);
        a.broadcast_confirmed("ann", &text("last"))
            .await
            .expect("it is in the log");
        let began = Instant::now();
        if is_told {
            engine.change_leader();
        }
        for tab in &mut tabs {
            assert_eq!(data(tab).await, "last");
        }
        let bound = if is_told { 1 } else { 60 };
        assert!(began.elapsed() <= Duration::from_secs(bound));
    }
}

/// It is "not yet", and never "nothing missing".
#[tokio::test(start_paused = true)]
async fn a_server_that_lags_is_asked_again() {
    let engine = InProcess::new(Level::Replayable);
    let a = hub(engine.node());
    let mut tab = a.register_when_ready("ann").await.expect("room");
    a.broadcast("ann", &text("seen")).expect("kept");
    let seen = id(&item(&mut tab).await.expect("an event"));
    for n in 0..50 {
        a.broadcast_confirmed("ann", &text(&n.to_string()))
            .await
            .expect("kept");
    }
    let b = hub(Odd {
        stale: AtomicUsize::new(3),
        ..Odd::new(engine.node())
    });
    let mut tab = b.resume("ann", &seen).expect("room");
    for n in 0..50 {
        assert_eq!(data(&mut tab).await, n.to_string());
    }
    assert!(is_silent(&mut tab).await);
}

/// Its next offsets were used before.
#[tokio::test(start_paused = true)]
async fn a_log_that_comes_back_shorter_is_another_one() {
    let engine = InProcess::new(Level::Replayable);
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let mut tab = b.register_when_ready("ann").await.expect("room");
    let mut last = LastEventId::none();
    for n in 0..20 {
        a.broadcast("ann", &text(&n.to_string())).expect("kept");
        last = id(&item(&mut tab).await.expect("an event"));
    }
    engine.start_without(10);
    let gap = item(&mut tab).await.expect_err("a gap");
    assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, None));
    for n in 0..15 {
        a.broadcast("ann", &text(&format!("new {n}")))
            .expect("kept");
    }
    for n in 0..15 {
        assert_eq!(data(&mut tab).await, format!("new {n}"));
    }
    let mut back = a.resume("ann", &last).expect("room");
    let gap = item(&mut back).await.expect_err("a gap");
    assert_eq!((gap.reason, gap.missed), (GapReason::Epoch, None));
}

/// The end of the old log is no place in the new one.
#[tokio::test(start_paused = true)]
async fn a_repair_that_outlives_its_log_does_not_make_the_channel_deaf() {
    let engine = InProcess::new(Level::Replayable);
    let node = engine.node();
    let hub = hub(node.clone());
    let mut tab = hub.register_when_ready("ann").await.expect("room");
    hub.broadcast("ann", &text("old")).expect("kept");
    assert_eq!(data(&mut tab).await, "old");
    let end = node.horizon().expect("a log");
    let user = UserId::from("ann");
    let start = Position { offset: 0, ..end };
    let fetched = node.fetch(&user, start, 1).await.expect("it is there");
    let (_, body) = fetched.messages.into_iter().next().expect("an event");
    engine.stop();
    // The events before this one do not arrive, and cannot be read.
    let position = Position { offset: 30, ..end };
    let previous = 29;
    let place = Some(Place { position, previous });
    node.inject(Received { user, body, place });
    sleep(Duration::from_secs(10)).await;
    engine.start_empty();
    let gap = item(&mut tab).await.expect_err("the log is another one");
    assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, None));
    // Longer than a repair waits for what is missing.
    sleep(Duration::from_secs(35)).await;
    hub.broadcast("ann", &text("new")).expect("kept");
    assert_eq!(data(&mut tab).await, "new");
}

/// The channel is opened again behind the place after which the log is being read.
#[tokio::test(start_paused = true)]
async fn a_repair_that_outlives_its_channel_leaves_nothing_out() {
    let engine = InProcess::new(Level::Replayable);
    let node = Odd {
        counts_users: true,
        ..Odd::new(engine.node())
    };
    let hub: Hub = GenericBroadcaster::builder()
        .backplane(node)
        .history(History::new(100).linger(Duration::ZERO))
        .build()
        .expect("valid settings");
    let mut tab = hub.register_when_ready("ann").await.expect("room");
    let mut ids = Vec::new();
    for number in 1..=3 {
        hub.broadcast("ann", &text(&number.to_string()))
            .expect("kept");
        let event = item(&mut tab).await.expect("nothing is lost");
        ids.push(id(&event));
    }
    engine.lose_sends(1);
    for number in 4..=5 {
        hub.broadcast("ann", &text(&number.to_string()))
            .expect("kept");
    }
    // The last one shows that one is missing, and a read takes 20 ms.
    sleep(Duration::from_millis(15)).await;
    drop(tab);
    let mut tab = hub.resume("ann", &ids[0]).expect("room");
    for number in 2..=5 {
        assert_eq!(data(&mut tab).await, number.to_string());
    }
}

/// So many that a round of comparisons takes its time.
fn many(hub: &Hub) -> Vec<Subscription> {
    let other = |n| hub.register(format!("{n}")).expect("room");
    (0..1_000).map(other).collect()
}

/// The user's events arrive already when the channel is opened again, and it is opened at the start of the log.
#[tokio::test(start_paused = true)]
async fn a_client_that_comes_back_to_a_new_channel_does_not_wait_for_a_round() {
    let engine = InProcess::new(Level::Replayable);
    let a = hub(engine.node());
    let b: Hub = GenericBroadcaster::builder()
        .backplane(Odd {
            counts_users: true,
            ..Odd::new(engine.node())
        })
        .history(History::new(100).linger(Duration::ZERO))
        .build()
        .expect("valid settings");
    let _others = many(&b);
    let mut seen = LastEventId::none();
    for number in 1..=4 {
        a.broadcast_confirmed("ann", &text(&number.to_string()))
            .await
            .expect("kept");
        // It registers when its events arrive, and then without waiting.
        let mut tab = match number {
            1 => b.register_when_ready("ann").await.expect("room"),
            3 => b.resume_when_ready("ann", &seen).await.expect("room"),
            _ => b.resume("ann", &seen).expect("room"),
        };
        let event = timeout(Duration::from_secs(2), item(&mut tab)).await;
        let event = event.expect("no round of comparisons was waited for");
        let event = event.expect("nothing is lost");
        assert_eq!(event.data(), number.to_string());
        seen = id(&event);
    }
}

/// The channel is opened at the start of the log, which has more than the ring and the history hold.
#[tokio::test(start_paused = true)]
async fn a_client_that_comes_to_a_new_node_gets_what_the_log_has_however_much_it_is() {
    let engine = InProcess::new(Level::Replayable);
    let a = hub(engine.node());
    let b = hub(Odd {
        counts_users: true,
        ..Odd::new(engine.node())
    });
    let mut tab = a.register_when_ready("ann").await.expect("room");
    let mut first = LastEventId::none();
    for number in 0..700 {
        let event = text(&number.to_string());
        a.broadcast_confirmed("ann", &event).await.expect("kept");
        let event = item(&mut tab).await.expect("nothing is lost");
        if number == 0 {
            first = id(&event);
        }
    }
    let mut back = b.resume("ann", &first).expect("room");
    let mut fresh = b.register("ann").expect("room");
    for number in 1..700 {
        assert_eq!(data(&mut back).await, number.to_string());
    }
    // It begins where its channel was opened.
    for number in 0..700 {
        assert_eq!(data(&mut fresh).await, number.to_string());
    }
    assert!(is_silent(&mut back).await && is_silent(&mut fresh).await);
}

/// What the node has heard of the log is behind it, and its user's events do not arrive.
#[tokio::test(start_paused = true)]
async fn a_client_whose_events_do_not_arrive_gets_what_the_log_has_when_it_comes() {
    let engine = InProcess::new(Level::Replayable);
    let node = engine.node();
    let (a, b) = (hub(engine.node()), hub(node.clone()));
    let _others = many(&b);
    let mut there = a.register_when_ready("ann").await.expect("room");
    let mut stays = b.register_when_ready("ann").await.expect("room");
    a.broadcast("ann", &text("1")).expect("kept");
    let seen = id(&item(&mut there).await.expect("nothing is lost"));
    assert_eq!(data(&mut stays).await, "1");
    engine.deny(&node);
    a.broadcast_confirmed("ann", &text("2"))
        .await
        .expect("kept");
    let mut back = b.resume("ann", &seen).expect("room");
    for tab in [&mut back, &mut stays] {
        let event = timeout(Duration::from_secs(2), data(tab)).await;
        assert_eq!(event.expect("no round was waited for"), "2");
    }
}

/// The engine answers others meanwhile.
#[tokio::test(start_paused = true)]
async fn a_user_whose_log_cannot_be_read_gets_a_gap() {
    for hangs in [false, true] {
        told_without_log(hangs).await;
    }
}

async fn told_without_log(hangs: bool) {
    let engine = InProcess::new(Level::Replayable);
    let a = hub(engine.node());
    let mut tab = a.register_when_ready("ann").await.expect("room");
    a.broadcast("ann", &text("seen")).expect("kept");
    let seen = id(&item(&mut tab).await.expect("an event"));
    a.broadcast_confirmed("ann", &text("unseen"))
        .await
        .expect("kept");
    let b = hub(Odd {
        unread: Some(("ann".into(), hangs)),
        ..Odd::new(engine.node())
    });
    let mut fresh = b.register_when_ready("ann").await.expect("room");
    let mut back = b.resume("ann", &seen).expect("room");
    let began = Instant::now();
    let gap = item(&mut back).await.expect_err("a gap");
    assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, None));
    assert!(began.elapsed() >= Duration::from_secs(30), "not earlier");
    // Of these, the second arrives, and the first does not.
    engine.lose_sends(1);
    for event in ["lost", "early"] {
        a.broadcast_confirmed("ann", &text(event))
            .await
            .expect("kept");
    }
    for tab in [&mut fresh, &mut back] {
        let gap = item(tab).await.expect_err("a gap");
        assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, None));
    }
    a.broadcast("ann", &text("next")).expect("kept");
    for tab in [&mut fresh, &mut back] {
        assert_eq!(data(tab).await, "next");
    }
}

/// Those whose logs are being read, and those who wait for their turn behind them.
#[tokio::test(start_paused = true)]
async fn a_client_gets_a_gap_after_the_patience_however_long_a_read_takes() {
    const CLIENTS: usize = 100;
    let engine = InProcess::new(Level::Replayable);
    let a = hub(engine.node());
    for n in 0..CLIENTS {
        a.broadcast_confirmed(&n.to_string(), &text("unseen"))
            .await
            .expect("kept");
    }
    let patience = Duration::from_secs(2);
    let b: Hub = GenericBroadcaster::builder()
        .backplane(Odd::hanging(engine.node(), "fetch", usize::MAX))
        .backplane_patience(patience)
        .build()
        .expect("valid settings");
    let epoch = engine.node().horizon().expect("a log").epoch;
    let seen = LastEventId::new(&format!("{epoch:016x}-0"));
    let began = Instant::now();
    let resume = |n: usize| b.resume(n.to_string(), &seen).expect("room");
    let mut back: Vec<_> = (0..CLIENTS).map(resume).collect();
    // Each asks when it is first polled.
    let first = futures_util::future::join_all(back.iter_mut().map(item)).await;
    for item in first {
        let gap = item.expect_err("a gap");
        assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, None));
    }
    let took = began.elapsed();
    assert!(took >= patience, "{took:?}");
    assert!(took <= patience + Duration::from_secs(2), "{took:?}");
}

/// Waking calls code of the service, or of another runtime.
#[test]
fn a_waker_may_ask_for_figures() {
    struct Asks(Hub, Arc<Notify>);
    impl Wake for Asks {
        fn wake(self: Arc<Self>) {
            self.0.stats().backplane.expect("there is one");
            self.1.notify_one();
        }
    }
    let (done, is_done) = mpsc::channel();
    // A deadlock is to fail the test, not to hang it.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let engine = InProcess::new(Level::AtMostOnce);
            let hub = hub(engine.node());
            let woken = Arc::new(Notify::new());
            let waker = Waker::from(Arc::new(Asks(hub.clone(), woken.clone())));
            let mut ready = Box::pin(hub.register_when_ready("ann"));
            let polled = ready.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending(), "the engine has not been told yet");
            woken.notified().await;
            drop(ready.await.expect("room"));
            done.send(()).expect("it is waited for");
        });
    });
    let done = is_done.recv_timeout(Duration::from_secs(20));
    done.expect("woken, and not stuck in the waker");
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_clients_that_come_back_together_get_everything() {
    const CLIENTS: usize = 10_000;
    const MISSED: usize = 10;
    let engine = InProcess::new(Level::Replayable);
    let a = hub(engine.node());
    let user = |n: usize| format!("user {n}");
    let seen = LastEventId::new(&format!(
        "{:016x}-0",
        engine.node().horizon().expect("a log").epoch
    ));
    for event in 0..MISSED {
        for n in 0..CLIENTS {
            a.broadcast(&user(n), &text(&event.to_string()))
                .expect("kept");
        }
        while a.stats().backplane.expect("there is one").queued > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    }
    let odd = Odd::new(engine.node());
    let reads = odd.reads.clone();
    let b = hub(odd);
    let mut tabs: Vec<Subscription> = (0..CLIENTS)
        .map(|n| b.resume(user(n), &seen).expect("room"))
        .collect();
    for tab in &mut tabs {
        for event in 0..MISSED {
            assert_eq!(data(tab).await, event.to_string());
        }
    }
    let most = reads[1].load(Ordering::Relaxed);
    assert!(most <= 128, "{most} reads at once");
}

/// They are at different places, and some need more than one read has.
#[tokio::test(start_paused = true)]
async fn ten_thousand_screens_of_one_user_that_come_back_share_their_reads() {
    const EVENTS: usize = 300;
    let engine = InProcess::new(Level::Replayable);
    let a = hub(engine.node());
    for event in 0..EVENTS {
        a.broadcast("wall", &text(&event.to_string()))
            .expect("kept");
    }
    while a.stats().backplane.expect("there is one").queued > 0 {
        sleep(Duration::from_millis(10)).await;
    }
    let odd = Odd::new(engine.node());
    let (reads, epoch) = (odd.reads.clone(), odd.horizon().expect("a log").epoch);
    let b = hub(odd);
    let mut screens = Vec::new();
    for n in 0..10_000 {
        let seen = if n % 5_000 == 17 {
            0
        } else {
            EVENTS - 1 - n % 20
        };
        let id = LastEventId::new(&format!("{epoch:016x}-{seen}"));
        screens.push((seen, b.resume("wall", &id).expect("room")));
    }
    for (seen, screen) in &mut screens {
        for event in *seen..EVENTS {
            assert_eq!(data(screen).await, event.to_string());
        }
    }
    let reads = reads[2].load(Ordering::Relaxed);
    assert!(reads <= 5, "{reads} reads");
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_is_refused_adds_no_interest() {
    let engine = InProcess::new(Level::AtMostOnce);
    let hub: Hub = GenericBroadcaster::builder()
        .backplane(engine.node())
        .total_connections(1)
        .build()
        .expect("valid settings");
    let _tab = hub.register_when_ready("ann").await.expect("room");
    for n in 0..100 {
        hub.register(format!("{n}")).expect_err("no room");
        hub.register_when_ready(format!("{n}"))
            .await
            .expect_err("no room");
    }
    assert_eq!(hub.stats().backplane.expect("there is one").users, 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_events_of_a_hub_that_is_shut_down() {
    let engine = InProcess::new(Level::AtMostOnce);
    let hub = hub(Odd {
        unheard: Some("ann".into()),
        ..Odd::new(engine.node())
    });
    let waiting = timeout(Duration::from_secs(60), hub.register_when_ready("ann"));
    let (waiting, ()) = tokio::join!(waiting, async {
        sleep(Duration::from_secs(1)).await;
        hub.shutdown(Duration::ZERO).await;
    });
    let later = timeout(Duration::from_secs(60), hub.register_when_ready("bob"));
    for refused in [waiting, later.await] {
        let refused = refused.expect("it does not wait");
        assert!(
            matches!(refused, Err(RegisterError::ShuttingDown { .. })),
            "{refused:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_interest_that_is_never_noted_is_given_up_with_its_user() {
    let engine = InProcess::new(Level::AtMostOnce);
    let a = hub(engine.node());
    let b = hub(Odd {
        unheard: Some("bob".into()),
        ..Odd::new(engine.node())
    });
    let bob = b.register("bob").expect("room");
    sleep(Duration::from_secs(5)).await;
    let ready = b.register_when_ready("ann");
    drop(bob);
    // Nobody has wanted him at two looks in a row.
    let ready = timeout(Duration::from_secs(60), ready).await;
    let mut ann = ready.expect("hers is noted").expect("room");
    a.broadcast("ann", &text("for ann")).expect("sent");
    assert_eq!(data(&mut ann).await, "for ann");
}

#[tokio::test(start_paused = true)]
async fn one_user_cannot_fill_the_queue_of_others() {
    let engine = InProcess::new(Level::AtMostOnce);
    let hub: Hub = GenericBroadcaster::builder()
        .backplane(engine.node())
        .backplane_queue(8_000, 64 << 20)
        .build()
        .expect("valid settings");
    engine.stop();
    let taken = (0..3_000).filter(|_| hub.broadcast("hot", &text("x")).is_ok());
    assert_eq!(taken.count(), 500, "half of a part");
    let others = (0..400).map(|n| hub.broadcast(&format!("{n}"), &text("x")));
    // Some 50 are in the same part. One in 64 of them shares an account with the hot one.
    let refused = others.filter(Result::is_err).count();
    assert!(refused < 10, "{refused} of 400 were refused");
}

#[tokio::test(start_paused = true)]
async fn a_permission_that_is_withdrawn_is_said_and_heals() {
    for level in [Level::AtMostOnce, Level::Replayable] {
        let engine = InProcess::new(level);
        let node = engine.node();
        let (a, b) = (hub(engine.node()), hub(node.clone()));
        let mut tab = b.register_when_ready("ann").await.expect("room");
        let unheard = || b.stats().backplane.expect("there is one").unheard;
        assert_eq!(unheard(), 0);
        engine.deny(&node);
        if level == Level::AtMostOnce {
            let gap = item(&mut tab).await.expect_err("a gap");
            assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, None));
        }
        sleep(Duration::from_millis(10)).await;
        assert_eq!(unheard(), 1);
        // It is let in, and served as far as that goes.
        let late = timeout(Duration::from_secs(1), b.register_when_ready("ann")).await;
        drop(late.expect("it does not wait for ever").expect("room"));
        a.broadcast_confirmed("ann", &text("1"))
            .await
            .expect("kept");
        if level == Level::Replayable {
            assert_eq!(data(&mut tab).await, "1", "read from the log");
        }
        engine.allow(&node);
        if level == Level::AtMostOnce {
            let gap = item(&mut tab).await.expect_err("a gap");
            assert_eq!((gap.reason, gap.missed), (GapReason::Backplane, None));
        }
        a.broadcast("ann", &text("2")).expect("kept");
        assert_eq!(data(&mut tab).await, "2");
        assert_eq!(unheard(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn events_of_other_nodes_take_as_much_of_a_history_as_ones_own() {
    let engine = InProcess::new(Level::AtMostOnce);
    let hub = |node| -> Hub {
        GenericBroadcaster::builder()
            .backplane(node)
            .history(History::new(10))
            .build()
            .expect("valid settings")
    };
    let (a, b) = (hub(engine.node()), hub(engine.node()));
    let _here = a.register_when_ready("ann").await.expect("room");
    let mut there = b.register_when_ready("ann").await.expect("room");
    a.broadcast("ann", &text("1")).expect("sent");
    data(&mut there).await;
    assert_eq!(a.stats().history_bytes, b.stats().history_bytes);
}
