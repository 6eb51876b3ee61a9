//! An event that is routed reaches all streams that it concerns, and no other, from JSON that is made once.
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{FutureExt, StreamExt};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use tidings::protocol::a2a::{A2aEvent, TaskState};
use tidings::protocol::agui::{Event, RunRef};
use tidings::protocol::analytics::{AnalyticsEvent, PageView, SessionEnded};
use tidings::protocol::context::ContextEvent;
use tidings::protocol::system::{Context, SystemEvent};
use tidings::{
    A2A_BROADCASTER, AGUI_BROADCASTER, ANALYTICS_BROADCASTER, CONTEXT_BROADCASTER, EventRouter,
    Frame, GapReason, GenericBroadcaster, HEARTBEAT_JSON, Routed, Subscription,
};

mod refused_by_one;

/// A stream of each broadcaster.
struct Streams {
    agui: Subscription,
    a2a: Subscription,
    context: Subscription,
    analytics: Subscription,
}

impl Streams {
    fn open(router: &EventRouter, user: &str) -> Self {
        let full = "no cap is reached";
        Self {
            agui: router.agui().register(user).expect(full),
            a2a: router.a2a().register(user).expect(full),
            context: router.context().register(user).expect(full),
            analytics: router.analytics().register(user).expect(full),
        }
    }

    /// What has come on each, as name and data.
    fn take(&mut self) -> [Vec<(String, Value)>; 4] {
        [
            &mut self.agui,
            &mut self.a2a,
            &mut self.context,
            &mut self.analytics,
        ]
        .map(take)
    }
}

fn take(stream: &mut Subscription) -> Vec<(String, Value)> {
    let mut events = Vec::new();
    while let Some(Some(item)) = stream.next().now_or_never() {
        let frame = item.expect("nothing is lost");
        let name = frame.fields().find(|(name, _)| *name == "event");
        let data = serde_json::from_str(&frame.data()).expect("JSON");
        events.push((name.expect("a name").1.to_owned(), data));
    }
    events
}

fn counts(routed: Routed) -> [usize; 4] {
    [routed.agui, routed.a2a, routed.context, routed.analytics]
}

#[test]
fn each_event_goes_where_it_belongs() {
    let router = EventRouter::new();
    let mut ann = Streams::open(&router, "ann");
    let mut bob = Streams::open(&router, "bob");

    let event = Event::step_started("search").timestamp(5);
    let json = json!({"type": "STEP_STARTED", "stepName": "search", "timestamp": 5});
    let routed = router.route_agui("ann", &RunRef::new("t", "r").event(event));
    assert_eq!(counts(routed.expect("valid")), [1, 0, 1, 0]);
    let wrapped = json!({"protocol": "agui", "event": json});
    assert_eq!(
        ann.take(),
        [
            vec![("STEP_STARTED".to_owned(), json)],
            vec![],
            vec![("agui".to_owned(), wrapped)],
            vec![]
        ]
    );

    let event = A2aEvent::status("t", "c", TaskState::Working);
    let json = serde_json::to_value(&event).expect("JSON");
    let routed = router.route_a2a("ann", &event).expect("valid");
    assert_eq!(counts(routed), [0, 1, 1, 0]);
    let wrapped = json!({"protocol": "a2a", "event": json});
    assert_eq!(
        ann.take(),
        [
            vec![],
            vec![("statusUpdate".to_owned(), json)],
            vec![("a2a".to_owned(), wrapped)],
            vec![]
        ]
    );

    let event = SystemEvent::context_deleted("c1");
    let json = serde_json::to_value(&event).expect("JSON");
    let routed = router.route_system("ann", &event).expect("valid");
    assert_eq!(counts(routed), [0, 0, 1, 0]);
    let wrapped = json!({"protocol": "system", "event": json});
    assert_eq!(
        ann.take(),
        [vec![], vec![], vec![("system".to_owned(), wrapped)], vec![]]
    );

    let event = AnalyticsEvent::page_view("s1", "/");
    let json = serde_json::to_value(&event).expect("JSON");
    let routed = router.route_analytics("ann", &event).expect("valid");
    assert_eq!(counts(routed), [0, 0, 0, 1]);
    assert_eq!(
        ann.take(),
        [vec![], vec![], vec![], vec![("pageView".to_owned(), json)]]
    );
    assert_eq!(bob.take(), [vec![], vec![], vec![], vec![]]);
}

#[test]
fn counts_are_serialised_as_json() {
    let router = EventRouter::new();
    let _ann = Streams::open(&router, "ann");
    let _tab = router.agui().register("ann").expect("no cap is reached");
    let routed = router.route_agui("ann", &Event::run_error("x").into());
    let routed = routed.expect("valid");
    assert_eq!(routed.total(), 3);
    assert_eq!(
        serde_json::to_value(routed).expect("JSON"),
        json!({"agui": 2, "a2a": 0, "context": 1, "analytics": 0})
    );
}

#[test]
fn context_streams_get_what_a_context_event_would_be() {
    let router = EventRouter::new();
    let mut stream = router.context().register("ann").expect("no cap is reached");
    let agui = Event::text_message_content("m", "\u{2028}\n");
    let a2a = A2aEvent::status("t", "c", TaskState::Completed);
    let system = SystemEvent::context_created(Context::new("c1"));
    router
        .route_agui("ann", &agui.clone().into())
        .expect("valid");
    router.route_a2a("ann", &a2a).expect("valid");
    router.route_system("ann", &system).expect("valid");
    for event in [
        ContextEvent::from(agui),
        ContextEvent::from(a2a),
        ContextEvent::from(system),
    ] {
        let frame = stream.next().now_or_never().flatten();
        let frame = frame.expect("an event").expect("nothing is lost");
        assert_eq!(*frame, Frame::encode(&event).expect("valid"));
        let data = serde_json::to_string(&event).expect("JSON");
        let (back, data): (ContextEvent, Value) = (
            serde_json::from_str(&frame.data()).expect("a context event"),
            serde_json::from_str(&data).expect("JSON"),
        );
        assert_eq!(serde_json::to_value(&back).expect("JSON"), data);
        assert_eq!(back.protocol(), event.protocol());
    }
}

/// Counts how often it is serialised.
struct Counting(Arc<AtomicUsize>);

impl Serialize for Counting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.fetch_add(1, Ordering::Relaxed);
        serializer.serialize_str("counted")
    }
}

#[test]
fn an_event_is_serialised_once_for_all_streams_of_both_kinds() {
    let router = EventRouter::new();
    let count = Arc::new(AtomicUsize::new(0));
    let event = A2aEvent::other("task", Counting(count.clone()));
    let streams: Vec<_> = (0..10).map(|_| Streams::open(&router, "ann")).collect();

    let routed = router.route_a2a("ann", &event).expect("JSON");
    assert_eq!(counts(routed), [0, 10, 10, 0]);
    assert_eq!(count.load(Ordering::Relaxed), 1);
    // A frame for each broadcaster, of the same JSON.
    assert_eq!(router.a2a().stats().encoded, 1);
    assert_eq!(router.context().stats().encoded, 1);
    drop(streams);

    let _a2a = router.a2a().register("ann").expect("no cap is reached");
    let routed = router.route_a2a("ann", &event).expect("JSON");
    assert_eq!(counts(routed), [0, 1, 0, 0]);
    assert_eq!(count.load(Ordering::Relaxed), 2);
    assert_eq!(router.context().stats().encoded, 1);
}

#[test]
fn nothing_is_encoded_for_nobody() {
    let router = EventRouter::new();
    let count = Arc::new(AtomicUsize::new(0));
    let event = A2aEvent::other("task", Counting(count.clone()));
    let _others = Streams::open(&router, "bob");
    let routed = router.route_a2a("ann", &event).expect("nothing to do");
    assert_eq!(routed, Routed::default());
    assert_eq!(count.load(Ordering::Relaxed), 0);

    // Not even that it could not be: as with `broadcast`.
    let invalid = Event::step_started("s").timestamp(i64::MAX).into();
    let routed = router.route_agui("ann", &invalid).expect("nothing to do");
    assert_eq!(routed, Routed::default());
    assert_eq!(router.agui().stats().failed, 0);
}

#[test]
fn events_that_break_agui_clients_reach_no_stream() {
    let router = EventRouter::new();
    let invalid = Event::step_started("s").timestamp(i64::MAX).into();
    let mut context = router.context().register("ann").expect("no cap is reached");
    router.route_agui("ann", &invalid).expect_err("not valid");
    let mut both = Streams::open(&router, "ann");
    router.route_agui("ann", &invalid).expect_err("not valid");
    assert_eq!(both.take(), [vec![], vec![], vec![], vec![]]);
    assert!(take(&mut context).is_empty());
}

#[test]
fn streams_of_strict_clients_end_when_they_lag() {
    let router = EventRouter::new();
    let mut streams = Streams::open(&router, "ann");
    for _ in 0..1000 {
        router
            .route_agui("ann", &Event::run_error("x").into())
            .expect("valid");
        let event = A2aEvent::status("t", "c", TaskState::Working);
        router.route_a2a("ann", &event).expect("valid");
    }
    let next = |stream: &mut Subscription| stream.next().now_or_never().expect("there is one");
    assert!(next(&mut streams.agui).is_none());
    assert!(next(&mut streams.a2a).is_none());
    assert!(matches!(
        next(&mut streams.context),
        Some(Err(gap)) if gap.reason == GapReason::Lagged
    ));
}

#[test]
fn the_global_router_feeds_the_global_broadcasters() {
    // Names of this test's own: the globals are the whole process's.
    let user = "the_global_router";
    let _agui = AGUI_BROADCASTER.register(user).expect("no cap is reached");
    let _a2a = A2A_BROADCASTER.register(user).expect("no cap is reached");
    let _context = CONTEXT_BROADCASTER
        .register(user)
        .expect("no cap is reached");
    let _analytics = ANALYTICS_BROADCASTER
        .register(user)
        .expect("no cap is reached");
    let router = EventRouter::global();
    let routed = router.route_agui(user, &Event::run_error("x").into());
    assert_eq!(counts(routed.expect("valid")), [1, 0, 1, 0]);
    let routed = router.route_a2a(user, &A2aEvent::status("t", "c", TaskState::Working));
    assert_eq!(counts(routed.expect("valid")), [0, 1, 1, 0]);
    let routed = router.route_system(user, &SystemEvent::Heartbeat);
    assert_eq!(counts(routed.expect("valid")), [0, 0, 1, 0]);
    let routed = router.route_analytics(user, &AnalyticsEvent::Heartbeat);
    assert_eq!(counts(routed.expect("valid")), [0, 0, 0, 1]);
}

#[test]
fn a_router_works_over_broadcasters_of_ones_own() {
    let agui = GenericBroadcaster::builder().ring_capacity(256).build();
    let agui = agui.expect("valid settings");
    let router = EventRouter::builder().agui(agui.clone()).build();
    let names = [router.a2a().name(), router.context().name()];
    assert_eq!(names, ["a2a", "context"], "the others are its own");
    let _tab = agui.register("ann").expect("no cap is reached");
    let routed = router
        .clone()
        .route_agui("ann", &Event::run_error("x").into());
    assert_eq!(counts(routed.expect("valid")), [1, 0, 0, 0]);
}

#[test]
fn heartbeats_are_the_heartbeat() {
    let system = Frame::encode(&SystemEvent::Heartbeat).expect("JSON");
    let analytics = Frame::encode(&AnalyticsEvent::Heartbeat).expect("JSON");
    assert_eq!(system.data(), HEARTBEAT_JSON);
    assert_eq!(analytics.data(), HEARTBEAT_JSON);
    assert_eq!(
        serde_json::from_str::<SystemEvent>(HEARTBEAT_JSON).expect("one"),
        SystemEvent::Heartbeat
    );
}

#[test]
fn names_are_the_types_in_the_json() {
    let system = [
        SystemEvent::connected(),
        SystemEvent::context_created(Context::new("c")),
        SystemEvent::context_updated(Context::new("c")),
        SystemEvent::context_deleted("c"),
        SystemEvent::contexts_snapshot([Context::new("c")]),
        SystemEvent::Heartbeat,
    ];
    for event in system {
        let json = serde_json::to_value(&event).expect("JSON");
        assert_eq!(json["type"], event.name());
        assert_eq!(
            json.get("timestamp").is_some(),
            event != SystemEvent::Heartbeat
        );
        assert_eq!(
            serde_json::from_value::<SystemEvent>(json).expect("one"),
            event
        );
    }
    let analytics = [
        AnalyticsEvent::session_started("s"),
        AnalyticsEvent::session_ended("s"),
        AnalyticsEvent::page_view("s", "/"),
        AnalyticsEvent::engagement_update("s", 1),
        AnalyticsEvent::real_time_stats(1),
        AnalyticsEvent::Heartbeat,
    ];
    for event in analytics {
        let json = serde_json::to_value(&event).expect("JSON");
        assert_eq!(json["type"], event.name());
        assert_eq!(
            json.get("timestamp").is_some(),
            event != AnalyticsEvent::Heartbeat
        );
        assert_eq!(
            serde_json::from_value::<AnalyticsEvent>(json).expect("one"),
            event
        );
    }
}

#[test]
fn events_keep_the_time_they_say() {
    let event = AnalyticsEvent::from(PageView::new("s", "/").timestamp(5));
    assert!(matches!(event, AnalyticsEvent::PageView(view) if view.timestamp == Some(5)));
    let event = AnalyticsEvent::from(SessionEnded::new("s").duration_ms(5u64));
    assert!(matches!(event, AnalyticsEvent::SessionEnded(end) if end.timestamp.is_some()));
}

/// On another node, views show what they would show here.
#[tokio::test(start_paused = true)]
async fn views_show_events_of_other_nodes() {
    use tidings::backplane::Level;
    use tidings::protocol::a2a::{TaskState, TaskView};
    use tidings::protocol::agui::{AgUiEvent, RunView};
    use tidings::{A2ABroadcaster, AgUiBroadcaster, SseBody};
    use tidings_testkit::backplane::InProcess;

    let engine = InProcess::new(Level::Replayable);
    let agui = || -> AgUiBroadcaster {
        let builder = GenericBroadcaster::builder().backplane(engine.node());
        builder
            .attachments(AgUiEvent::attachment_of)
            .build()
            .expect("valid")
    };
    let (here, there) = (agui(), agui());
    let run = RunRef::new("thread", "run");
    let tab = there.register_when_ready("ann").await.expect("room");
    let mut body = SseBody::new(tab).view(RunView::new(run.clone()));
    let other = RunRef::new("thread", "other");
    for event in [
        run.event(Event::run_started("thread", "run")),
        other.event(Event::step_started("another's")),
        run.event(Event::step_started("search")),
        run.event(Event::step_finished("search")),
        run.event(Event::run_finished("thread", "run")),
    ] {
        here.broadcast("ann", &event).expect("sent");
    }
    let text = body_text(&mut body).await;
    assert_eq!(text.matches("data: ").count(), 4, "{text}");
    assert!(!text.contains("another's") && text.contains("RUN_FINISHED"));

    let engine = InProcess::new(Level::AtMostOnce);
    let a2a = || -> A2ABroadcaster {
        let builder = GenericBroadcaster::builder().backplane(engine.node());
        builder
            .attachments(A2aEvent::attachment_of)
            .build()
            .expect("valid")
    };
    let (here, there) = (a2a(), a2a());
    let tab = there.register_when_ready("ann").await.expect("room");
    let mut body = SseBody::new(tab).view(TaskView::rest("task"));
    for (task, state) in [
        ("task", TaskState::Working),
        ("another", TaskState::Working),
        ("task", TaskState::Completed),
    ] {
        here.broadcast("ann", &A2aEvent::status(task, "context", state))
            .expect("sent");
    }
    let text = body_text(&mut body).await;
    assert_eq!(text.matches("data: ").count(), 2, "{text}");
}

async fn body_text(body: &mut tidings::SseBody) -> String {
    use http_body_util::BodyExt;
    let bytes = body
        .collect()
        .await
        .expect("a body does not fail")
        .to_bytes();
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}
