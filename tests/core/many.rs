//! One event for many users: encoded once, for each as a broadcast of its own.

use std::any::Any;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{FutureExt, StreamExt};
use proptest::prelude::*;
use tidings::{
    BroadcastError, Broadcaster, Data, EncodeError, EventId, GapReason, GenericBroadcaster,
    History, LagPolicy, LastEventId, Meta, Subscription, Text, ToSse, UserId,
};

type Hub = GenericBroadcaster<Text>;

fn text(text: impl ToString) -> Text {
    Text::new(text.to_string())
}

fn keeping(history: History) -> Hub {
    GenericBroadcaster::builder()
        .history(history)
        .build()
        .expect("valid settings")
}

/// What the stream has ready, as it is on the wire.
fn wire(stream: &mut Subscription) -> Vec<String> {
    let mut got = Vec::new();
    while let Some(Some(item)) = stream.next().now_or_never() {
        let frame = item.expect("no gap");
        got.push(String::from_utf8(frame.as_bytes().to_vec()).expect("text"));
    }
    got
}

fn data(stream: &mut Subscription) -> Vec<String> {
    let mut got = Vec::new();
    while let Some(Some(item)) = stream.next().now_or_never() {
        got.push(item.expect("no gap").data());
    }
    got
}

/// Counts how often its data is written. Cannot be shared by threads.
#[derive(Default)]
struct Counted {
    encoded: Cell<usize>,
    attachment: Option<Arc<u32>>,
}

impl ToSse for Counted {
    fn event(&self) -> Option<&str> {
        Some("counted")
    }

    fn id(&self) -> Option<EventId> {
        Some(EventId::from(17))
    }

    fn meta(&self) -> Meta<'_> {
        let mut meta = Meta::default();
        meta.attachment = self
            .attachment
            .clone()
            .map(|it| it as Arc<dyn Any + Send + Sync>);
        meta
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        self.encoded.set(self.encoded.get() + 1);
        data.text("one\ntwo");
        Ok(())
    }
}

#[test]
fn the_event_is_encoded_once_and_goes_to_each_stream_of_each_user_once() {
    for history in [None, Some(History::new(10))] {
        let hub = GenericBroadcaster::<Counted>::builder()
            .history(history)
            .build()
            .expect("valid settings");
        let mut streams: Vec<_> = ["ann", "ann", "bob", "cid"]
            .map(|user| hub.register(user).expect("room"))
            .into();
        let event = Counted::default();
        let reach = hub
            .broadcast_many(["ann", "bob", "nobody"], &event)
            .expect("text");
        assert_eq!((reach.users, reach.away, reach.streams), (2, 0, 3));
        let reach = hub.broadcast_all(&event).expect("text");
        assert_eq!((reach.users, reach.away, reach.streams), (3, 0, 4));
        assert_eq!(event.encoded.get(), 2, "once for each call");
        let counts: Vec<usize> = streams.iter_mut().map(|it| data(it).len()).collect();
        assert_eq!(counts, [2, 2, 2, 1]);
        let stats = hub.stats();
        assert_eq!((stats.broadcasts, stats.encoded), (2, 2));
        assert_eq!(stats.deliveries, 7);
    }
}

/// Users get the very bytes that a broadcast of their own would have brought, but for the history's epoch.
#[test]
fn what_a_user_gets_is_what_a_broadcast_sends() {
    for history in [None, Some(History::new(10))] {
        let hub = GenericBroadcaster::<Counted>::builder()
            .history(history)
            .build()
            .expect("valid settings");
        let event = Counted {
            attachment: Some(Arc::new(7)),
            ..Counted::default()
        };
        let mut ann = hub.register("ann").expect("room");
        hub.broadcast("ann", &event).expect("text");
        hub.broadcast_many(["ann"], &event).expect("text");
        hub.broadcast_all(&event).expect("text");
        hub.broadcast("ann", &event).expect("text");
        let mut got = Vec::new();
        for number in 1..=4 {
            let item = ann.next().now_or_never().expect("it is there");
            let frame = item.expect("it goes on").expect("no gap");
            assert_eq!(frame.attachment::<u32>(), Some(&7));
            let wire = String::from_utf8(frame.as_bytes().to_vec()).expect("text");
            let number = format!("-{number}\n");
            match history {
                Some(_) => got.push(wire.replacen(&number, "-n\n", 1)),
                None => got.push(wire),
            }
        }
        assert!(got.iter().all(|wire| *wire == got[0]), "{got:?}");
        assert_eq!(got[0].contains("id: 17\n"), history.is_none());
        assert_eq!(got[0].matches("id: ").count(), 1);
    }
}

#[test]
fn a_user_who_is_away_gets_it_when_coming_back() {
    let hub = keeping(History::new(10));
    let mut ann = hub.register("ann").expect("room");
    let bob = hub.register("bob").expect("room");
    let seen = LastEventId::new(&bob.cursor().expect("there is a history"));
    drop(bob);
    let room = ["ann", "bob", "stranger"];
    let reach = hub.broadcast_many(room, &text(1)).expect("text");
    assert_eq!((reach.users, reach.away, reach.streams), (2, 1, 1));
    let reach = hub.broadcast_all(&text(2)).expect("text");
    assert_eq!((reach.users, reach.away, reach.streams), (2, 1, 1));
    assert_eq!(data(&mut ann), ["1", "2"]);
    let mut bob = hub.resume("bob", &seen).expect("room");
    assert_eq!(data(&mut bob), ["1", "2"]);
}

#[test]
fn it_is_kept_for_users_who_never_came_where_a_broadcast_is() {
    let hub = keeping(History::new(10).keep_for_unconnected());
    let reach = hub.broadcast_many(["ann", "bob"], &text(1)).expect("text");
    assert_eq!((reach.users, reach.away, reach.streams), (2, 2, 0));
    let reach = hub.broadcast_all(&text(2)).expect("text");
    assert_eq!((reach.users, reach.away), (2, 2));
    assert_eq!(data(&mut hub.register("bob").expect("room")), ["1", "2"]);
}

#[test]
fn without_a_stream_nothing_is_encoded() {
    let hub = GenericBroadcaster::<Counted>::new();
    let event = Counted::default();
    let reach = hub
        .broadcast_many(["ann", "bob"], &event)
        .expect("no error");
    assert_eq!(reach, hub.broadcast_all(&event).expect("no error"));
    assert_eq!((reach.users, reach.streams), (0, 0));
    assert_eq!(event.encoded.get(), 0);
    assert_eq!((hub.stats().broadcasts, hub.stats().encoded), (2, 0));
}

/// Fails to be encoded, or panics.
struct Bad {
    panics: bool,
}

impl ToSse for Bad {
    fn data(&self, _: &mut Data<'_>) -> Result<(), EncodeError> {
        assert!(!self.panics, "as it shall");
        Err(EncodeError::other("no"))
    }
}

#[test]
fn an_event_that_cannot_be_encoded_reaches_nobody() {
    let hub = GenericBroadcaster::<Bad>::new();
    let mut tabs = ["ann", "bob"].map(|user| hub.register(user).expect("room"));
    let error = hub.broadcast_many(["ann", "bob"], &Bad { panics: false });
    assert!(matches!(error, Err(BroadcastError::Encode(_))), "{error:?}");
    let error = hub.broadcast_all(&Bad { panics: false });
    assert!(matches!(error, Err(BroadcastError::Encode(_))), "{error:?}");
    assert_eq!(hub.stats().failed, 2);
    for tab in &mut tabs {
        assert!(data(tab).is_empty());
    }
}

#[test]
fn a_stream_that_falls_behind_loses_and_reports_as_with_single_broadcasts() {
    let hub: Hub = GenericBroadcaster::builder()
        .ring_capacity(2)
        .build()
        .expect("valid settings");
    let mut ann = hub.register("ann").expect("room");
    for number in 0..5 {
        hub.broadcast_all(&text(number)).expect("text");
    }
    let gap = ann.next().now_or_never().flatten().expect("an item");
    let gap = gap.expect_err("a gap");
    assert_eq!((gap.reason, gap.missed), (GapReason::Lagged, Some(3)));
    assert_eq!(data(&mut ann), ["3", "4"]);
    assert_eq!(hub.lagged("ann"), 3);
}

#[test]
fn keys_are_those_of_the_event() {
    let hub: Hub = GenericBroadcaster::builder()
        .ring_capacity(2)
        .lag_policy(LagPolicy::Coalesce)
        .build()
        .expect("valid settings");
    let mut ann = hub.register("ann").expect("room");
    for number in 0..6 {
        let event = text(number).key(["price", "stock"][number % 2]);
        hub.broadcast_many(["ann"], &event).expect("text");
    }
    assert_eq!(data(&mut ann), ["4", "5"]);
}

#[tokio::test]
async fn the_trait_has_both() {
    let hub: Arc<dyn Broadcaster<Event = Text>> = Arc::new(Hub::new());
    let ann = UserId::from("ann");
    let _tab = hub.register(&ann, "tab".into()).await.expect("room");
    let many = hub.broadcast_many(&[ann], &text(1)).await.expect("text");
    let all = hub.broadcast_all(&text(2)).await.expect("text");
    assert_eq!((many, all.streams), (all, 1));
}

#[tokio::test]
async fn a_publisher_sends_to_many_in_order_and_lets_others_run() {
    let hub = Hub::new();
    let users: Vec<String> = (0..1000).map(|user| format!("user-{user}")).collect();
    let mut streams: Vec<_> = users
        .iter()
        .map(|user| hub.register(user.as_str()).expect("room"))
        .collect();
    let publisher = hub.publisher(10).expect("a runtime");
    publisher.try_publish("user-7", text(0)).expect("room");
    let many = users.iter().map(String::as_str);
    publisher.try_publish_many(many, text(1)).expect("room");
    publisher.publish_all(text(2)).await.expect("it runs");
    let some = ["user-7", "user-8"];
    publisher
        .publish_many(some, text(3))
        .await
        .expect("it runs");
    publisher.try_publish_all(text(4)).expect("room");
    // Each turn of another task comes between two parts.
    let turns = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let other = tokio::spawn({
        let turns = turns.clone();
        async move {
            loop {
                turns.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    assert!(publisher.flush().await);
    other.abort();
    // Four parts and three times 64.
    assert!(turns.load(Ordering::Relaxed) > 100);
    for (number, stream) in streams.iter_mut().enumerate() {
        let expected = match number {
            7 => vec!["0", "1", "2", "3", "4"],
            8 => vec!["1", "2", "3", "4"],
            _ => vec!["1", "2", "4"],
        };
        // Waits, where a task that has had its turn finds nothing.
        for text in expected {
            let frame = stream.next().await.expect("it goes on").expect("no gap");
            assert_eq!(frame.data(), text, "user-{number}");
        }
        assert!(data(stream).is_empty(), "user-{number}");
    }
    assert_eq!(hub.stats().broadcasts, 5);
}

#[tokio::test]
async fn an_event_that_panics_harms_no_other_of_its_publisher() {
    let hub = GenericBroadcaster::<Bad>::new();
    let _tab = hub.register("ann").expect("room");
    let publisher = hub.publisher(10).expect("a runtime");
    for panics in [true, false] {
        publisher.try_publish_all(Bad { panics }).expect("room");
        publisher
            .try_publish_many(["ann"], Bad { panics })
            .expect("room");
    }
    assert!(publisher.flush().await);
    assert_eq!(hub.stats().failed, 2);
}

/// A stream registered before a call gets its event, whatever streams come and go meanwhile, and no stream gets one twice.
#[test]
fn streams_open_before_the_call_are_reached_while_others_come_and_go() {
    let hub: Hub = GenericBroadcaster::builder()
        .ring_capacity(4096)
        .build()
        .expect("valid settings");
    let is_over = AtomicBool::new(false);
    let mut steady: Vec<_> = (0..50)
        .map(|user| hub.register(format!("steady-{user}")).expect("room"))
        .collect();
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let (hub, is_over) = (&hub, &is_over);
            scope.spawn(move || {
                let mut round = 0;
                while !is_over.load(Ordering::Relaxed) {
                    round += 1;
                    let user = format!("steady-{}", round % 50);
                    let mut tab = hub.register(user).expect("room");
                    let guest = hub.register(format!("guest-{thread}-{}", round % 7));
                    // None twice, none before another that was sent before it.
                    let got: Vec<u32> = data(&mut tab)
                        .iter()
                        .map(|text| text.parse().expect("a number"))
                        .collect();
                    assert!(got.is_sorted_by(|one, next| one < next), "{got:?}");
                    drop((guest, tab));
                }
            });
        }
        for number in 0..200 {
            let reach = hub.broadcast_all(&text(number)).expect("text");
            assert!(reach.users >= 50 && reach.streams >= 50, "{reach:?}");
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let all: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    for stream in &mut steady {
        assert_eq!(data(stream), all);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Open(usize),
    Cut(usize),
    Read(usize),
    One(usize),
    Many(BTreeSet<usize>),
    All,
}

const USERS: [&str; 4] = ["ann", "bob", "cid", "dot"];

fn step() -> impl Strategy<Value = Step> {
    let user = 0..USERS.len();
    prop_oneof![
        user.clone().prop_map(Step::Open),
        user.clone().prop_map(Step::Cut),
        user.clone().prop_map(Step::Read),
        user.clone().prop_map(Step::One),
        proptest::collection::btree_set(user, 0..4).prop_map(Step::Many),
        Just(Step::All),
    ]
}

/// One client of a user, which names the last id that it has seen when it comes back.
#[derive(Default)]
struct Client {
    stream: Option<Subscription>,
    last: LastEventId,
    got: Vec<u32>,
}

impl Client {
    fn open(&mut self, hub: &Hub, user: &str) {
        if self.stream.is_some() {
            return;
        }
        let stream = hub.resume(user, &self.last).expect("room");
        if let Some(cursor) = stream.cursor() {
            self.last = LastEventId::new(&cursor);
        }
        self.stream = Some(stream);
    }

    fn read(&mut self) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        while let Some(Some(item)) = stream.next().now_or_never() {
            let frame = item.expect("no gap: everything is kept");
            let id = frame.fields().find(|(name, _)| *name == "id");
            self.last = LastEventId::new(id.expect("each event has one").1);
            self.got.push(frame.data().parse().expect("a number"));
        }
    }
}

proptest! {
    /// Each user gets what was sent to them alone, to them among others and to all, in this order, once, however often the
    /// client is cut: from when the user is known, which is the first stream or the first event that is kept.
    #[test]
    fn each_user_gets_their_own_events_in_order(steps in proptest::collection::vec(step(), 1..60)) {
        let hub = keeping(History::new(1000).keep_for_unconnected());
        let mut clients: BTreeMap<usize, Client> = BTreeMap::new();
        let mut sent: [Vec<u32>; USERS.len()] = Default::default();
        let mut known: BTreeSet<usize> = BTreeSet::new();
        for (number, step) in steps.into_iter().enumerate() {
            let number = number as u32;
            let reached = match step {
                Step::Open(user) => {
                    known.insert(user);
                    clients.entry(user).or_default().open(&hub, USERS[user]);
                    continue;
                }
                Step::Cut(user) => {
                    clients.entry(user).or_default().stream = None;
                    continue;
                }
                Step::Read(user) => {
                    clients.entry(user).or_default().read();
                    continue;
                }
                Step::One(user) => {
                    hub.broadcast(USERS[user], &text(number)).expect("text");
                    sent[user].push(number);
                    known.insert(user);
                    continue;
                }
                Step::Many(users) => {
                    let names = users.iter().map(|user| USERS[*user]);
                    (users.clone(), hub.broadcast_many(names, &text(number)).expect("text"))
                }
                Step::All => (known.clone(), hub.broadcast_all(&text(number)).expect("text")),
            };
            let (users, reach) = reached;
            known.extend(&users);
            users.iter().for_each(|user| sent[*user].push(number));
            let is_open = |user: &&usize| clients.get(user).is_some_and(|it| it.stream.is_some());
            let open = users.iter().filter(is_open).count();
            prop_assert_eq!(reach.users, users.len());
            prop_assert_eq!((reach.streams, reach.away), (open, users.len() - open));
        }
        for (user, name) in USERS.into_iter().enumerate() {
            let client = clients.entry(user).or_default();
            client.open(&hub, name);
            client.read();
            prop_assert_eq!(&client.got, &sent[user], "{}", name);
        }
    }
}

/// The bytes of a room's event, as each of its members gets it, differ in their ids only.
#[test]
fn users_share_the_encoding_and_not_the_ids() {
    let hub = keeping(History::new(10));
    let mut tabs = ["ann", "bob"].map(|user| hub.register(user).expect("room"));
    hub.broadcast("bob", &text("before")).expect("text");
    hub.broadcast_all(&text("all")).expect("text");
    let ids: Vec<String> = tabs
        .iter_mut()
        .map(|tab| {
            let last = wire(tab).pop().expect("an event");
            let (id, rest) = last.split_once('\n').expect("several lines");
            assert_eq!(rest, "data: all\n\n");
            id.to_owned()
        })
        .collect();
    assert!(ids[0].ends_with("-1") && ids[1].ends_with("-2"), "{ids:?}");
}
