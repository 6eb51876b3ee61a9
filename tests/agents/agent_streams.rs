//! One run, or one task, out of all that a user is sent, in the form that the official clients read.
use std::time::Duration;

use futures_util::FutureExt;
use http_body::Body;
use http_body_util::BodyExt;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tidings::protocol::a2a::{A2aEvent, Task, TaskState, TaskStatus, TaskView};
use tidings::protocol::agui::{
    Event, Outcome, Raw, RunError, RunFinished, RunRef, RunView, StepStarted, SubagentFinished,
    SubagentStarted, SuccessOutcome, TextMessageChunk,
};
use tidings::{
    A2ABroadcaster, AgUiBroadcaster, EventRouter, KeepAlive, LagPolicy, SseBody, Subscription,
    standard_keep_alive,
};

use crate::support::decoder::Decoder;

fn body(stream: Subscription) -> SseBody {
    SseBody::new(stream).keep_alive(&KeepAlive::off())
}

/// The events that the body has ready, and whether it has ended.
fn read(body: &mut SseBody) -> (Vec<Value>, bool) {
    let mut decoder = Decoder::default();
    let mut ended = false;
    while let Some(next) = body.frame().now_or_never() {
        let Some(chunk) = next else {
            ended = true;
            break;
        };
        decoder.push(&chunk.expect("no error").into_data().expect("data"));
    }
    assert_eq!(ended, body.is_end_stream());
    let json = |data: &str| serde_json::from_str(data).expect("JSON");
    let events = decoder.take();
    (
        events.iter().map(|event| json(&event.data)).collect(),
        ended,
    )
}

fn types(events: &[Value]) -> Vec<&str> {
    let name = |event| Value::as_str(event).expect("a type");
    events.iter().map(|event| name(&event["type"])).collect()
}

fn route(router: &EventRouter, run: &RunRef, event: Event) {
    router
        .route_agui("ann", &run.event(event))
        .expect("a valid event");
}

#[test]
fn a_run_is_shown_from_its_beginning_to_its_end_and_nothing_else_is() {
    let router = EventRouter::new();
    let (mine, other) = (RunRef::new("t", "r"), RunRef::new("t", "other"));
    let open = || {
        let stream = router.agui().register("ann").expect("no cap is reached");
        body(stream).view(RunView::new(mine.clone()))
    };
    let mut run = open();
    let mut bob =
        body(router.agui().register("bob").expect("no cap")).view(RunView::new(mine.clone()));
    for run in [&other, &mine] {
        route(&router, run, Event::run_started(run.thread(), run.run()));
    }
    // Two runs at once, under the same ids.
    for run in [&mine, &other] {
        route(&router, run, Event::text_message_start("m"));
        route(&router, run, Event::text_message_content("m", run.run()));
    }
    // Nobody knows what it belongs to.
    router
        .route_agui("ann", &Event::text_message_content("m", "nobody's").into())
        .expect("a valid event");
    route(&router, &other, Event::run_finished("t", "other"));
    let (events, ended) = read(&mut run);
    assert_eq!(
        types(&events),
        ["RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT"]
    );
    assert_eq!(events[2]["delta"], "r");
    assert!(!ended);

    route(&router, &mine, Event::text_message_end("m"));
    let finished = RunFinished::new("t", "r").outcome(Outcome::Success(SuccessOutcome::new()));
    route(&router, &mine, Event::new(finished));
    route(&router, &mine, Event::text_message_start("late"));
    let (events, ended) = read(&mut run);
    assert_eq!(types(&events), ["TEXT_MESSAGE_END", "RUN_FINISHED"]);
    assert!(ended);
    assert_eq!(router.agui().connection_count("ann"), 0);
    assert_eq!(read(&mut bob), (vec![], false), "another user's run");
}

#[test]
fn events_that_would_break_the_client_are_left_out_or_repaired() {
    let router = EventRouter::new();
    let run = RunRef::new("t", "r");
    let stream = router.agui().register("ann").expect("no cap is reached");
    let mut body = body(stream).view(RunView::new(run.clone()));
    for event in [
        Event::text_message_content("m", "too early"),
        Event::run_started("t", "r"),
        Event::run_started("t", "r"),
        Event::text_message_content("m", "never begun"),
        Event::new(StepStarted::new("s")),
        Event::text_message_start("m"),
        Event::run_finished("t", "r"),
    ] {
        route(&router, &run, event);
    }
    let (events, ended) = read(&mut body);
    assert_eq!(
        types(&events),
        [
            "RUN_STARTED",
            "STEP_STARTED",
            "TEXT_MESSAGE_START",
            "TEXT_MESSAGE_END",
            "STEP_FINISHED",
            "RUN_FINISHED"
        ]
    );
    assert!(ended);
}

#[test]
fn a_run_that_cannot_be_shown_to_its_end_ends_with_an_error() {
    let router = EventRouter::new();
    let run = RunRef::new("t", "r");
    let open = || {
        let stream = router.agui().register("ann").expect("no cap is reached");
        body(stream).view(RunView::new(run.clone()))
    };
    let last = |body: &mut SseBody| {
        let (events, ended) = read(body);
        assert!(ended);
        let last = events.last().expect("an event").clone();
        (events.len(), last["type"].clone(), last["code"].clone())
    };
    let cut_off = |events| (events, json!("RUN_ERROR"), json!(RunView::CUT_OFF));

    let mut ended = open();
    route(&router, &run, Event::run_started("t", "r"));
    router.agui().drain_user("ann");
    assert_eq!(last(&mut ended), cut_off(2));

    let mut late = open();
    route(&router, &run, Event::run_finished("t", "r"));
    assert_eq!(last(&mut late), cut_off(1));

    let mut lagged = open();
    route(&router, &run, Event::run_started("t", "r"));
    for _ in 0..100 {
        route(&router, &run, Event::text_message_start("m"));
    }
    assert_eq!(last(&mut lagged), cut_off(1));

    // One that the agent ends with an error, before it has begun, is shown as it is.
    let mut failed = open();
    route(&router, &run, Event::new(RunError::new("no model")));
    let (events, ended) = read(&mut failed);
    assert_eq!(events[0]["message"], "no model");
    assert!(ended);
}

/// What the client of a run sees of these events, and whether its stream has ended.
fn seen(events: impl IntoIterator<Item = Event>) -> (Vec<Value>, bool) {
    let router = EventRouter::new();
    let run = RunRef::new("t", "r");
    let stream = router.agui().register("ann").expect("no cap is reached");
    let mut body = body(stream).view(RunView::new(run.clone()));
    let (mut seen, mut ended) = (Vec::new(), false);
    for event in events {
        route(&router, &run, event);
        let (events, end) = read(&mut body);
        seen.extend(events);
        ended |= end;
        if ended {
            break;
        }
    }
    (seen, ended)
}

#[test]
fn subagents_have_steps_of_their_own() {
    let of_subagent = |event: Event| event.subagent_run_id("s");
    let events = [
        Event::run_started("t", "r"),
        Event::step_started("x"),
        Event::new(SubagentStarted::new("s", "helper")),
        of_subagent(Event::step_started("x")),
        of_subagent(Event::step_finished("x")),
        Event::new(SubagentFinished::new("s")),
        Event::step_finished("x"),
        Event::run_finished("t", "r"),
    ];
    let expected: Vec<_> = events.iter().map(|event| json!(event)).collect();
    assert_eq!(seen(events), (expected, true));
}

#[test]
fn a_subagent_begins_once_and_has_ended_before_its_run() {
    let of_subagent = |event: Event| event.subagent_run_id("s");
    let start = |id: &str| Event::new(SubagentStarted::new(id, "helper"));
    let end = |id: &str| Event::new(SubagentFinished::new(id));
    let child = SubagentStarted::new("c", "helper").parent_subagent_run_id("s");
    let orphan = SubagentStarted::new("o", "helper").parent_subagent_run_id("none");
    let (events, ended) = seen([
        Event::run_started("t", "r"),
        end("s"),
        start("s"),
        start("s"),
        Event::new(child),
        Event::new(orphan),
        of_subagent(Event::step_started("x")),
        Event::step_finished("x"),
        end("c"),
        start("c"),
        Event::run_finished("t", "r"),
    ]);
    assert!(ended);
    let names: Vec<_> = events
        .iter()
        .map(|event| (event["type"].as_str(), event["subagentRunId"].as_str()))
        .collect();
    assert_eq!(
        names,
        [
            (Some("RUN_STARTED"), None),
            (Some("SUBAGENT_STARTED"), Some("s")),
            (Some("SUBAGENT_STARTED"), Some("c")),
            (Some("STEP_STARTED"), Some("s")),
            (Some("SUBAGENT_FINISHED"), Some("c")),
            (Some("STEP_FINISHED"), Some("s")),
            (Some("SUBAGENT_FINISHED"), Some("s")),
            (Some("RUN_FINISHED"), None),
        ]
    );
}

#[test]
fn text_in_chunks_goes_on_after_events_that_say_nothing_about_messages() {
    let chunk = |delta: &str| TextMessageChunk::new().delta(delta);
    let events = [
        Event::run_started("t", "r"),
        Event::new(chunk("Hel").message_id("m")),
        Event::new(Raw::new(json!(1))),
        Event::new(chunk("lo")),
    ];
    let expected: Vec<_> = events.iter().map(|event| json!(event)).collect();
    assert_eq!(seen(events), (expected, false));
}

#[test]
fn a_run_that_leaves_too_much_open_is_cut_off() {
    let starts = (0..100_000).map(|n| Event::text_message_start(n.to_string()));
    let run = std::iter::once(Event::run_started("t", "r")).chain(starts);
    let (events, ended) = seen(run);
    assert!(ended, "{} events", events.len());
    assert_eq!(events.len(), 1 + 4_096 + 1);
    assert_eq!(events[events.len() - 1]["code"], RunView::CUT_OFF);

    let starts = (0..300).map(|n| Event::text_message_start(format!("{n:01000}")));
    let run = std::iter::once(Event::run_started("t", "r")).chain(starts);
    let (events, ended) = seen(run);
    assert!(ended);
    assert_eq!(events.len(), 1 + 262 + 1);
}

fn task(id: &str, state: TaskState) -> Task {
    Task {
        id: id.into(),
        context_id: "c".into(),
        status: TaskStatus {
            state,
            message: None,
            timestamp: None,
        },
        artifacts: None,
        history: None,
        metadata: None,
    }
}

#[test]
fn a_task_is_shown_as_it_is_and_to_its_end_in_both_bindings() {
    let router = EventRouter::new();
    let open = || router.a2a().register("ann").expect("no cap is reached");
    let id: Box<RawValue> = serde_json::from_str(r#" 1.50e1 "#).expect("a number");
    let task = task("t", TaskState::Submitted);
    let mut rest = body(open()).view(TaskView::rest("t").starting_with(task.clone()));
    let mut rpc = body(open()).view(TaskView::json_rpc("t", &id).starting_with(task));
    let mut fresh = body(open()).view(TaskView::rest("t"));
    for event in [
        A2aEvent::status("other", "c", TaskState::Completed),
        A2aEvent::status("t", "c", TaskState::Working),
        A2aEvent::status("t", "c", TaskState::Completed),
        A2aEvent::status("t", "c", TaskState::Failed),
    ] {
        router.route_a2a("ann", &event).expect("JSON");
    }
    let (rest, ended) = read(&mut rest);
    assert!(ended);
    let states: Vec<_> = rest
        .iter()
        .map(|event| {
            &event[if event["task"].is_null() {
                "statusUpdate"
            } else {
                "task"
            }]
        })
        .map(|body| body["status"]["state"].as_str().expect("a state"))
        .collect();
    let working_to_completed = ["TASK_STATE_WORKING", "TASK_STATE_COMPLETED"];
    assert_eq!(states[0], "TASK_STATE_SUBMITTED");
    assert_eq!(states[1..], working_to_completed);
    assert_eq!(read(&mut fresh), (rest[1..].to_vec(), true));

    let mut text = String::new();
    while let Some(Some(chunk)) = rpc.frame().now_or_never() {
        let chunk = chunk.expect("no error").into_data().expect("data");
        text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
    }
    for (line, event) in text.split_terminator("\n\n").zip(&rest) {
        let json = line
            .strip_prefix(r#"data: {"jsonrpc":"2.0","id":1.50e1,"result":"#)
            .expect("the id as it was sent");
        let json = json.strip_suffix('}').expect("the end of the response");
        assert_eq!(serde_json::from_str::<Value>(json).expect("JSON"), *event);
    }
    assert_eq!(text.matches("\n\n").count(), 3);
    assert_eq!(router.a2a().connection_count("ann"), 0);
}

#[test]
fn a_task_that_has_ended_already_is_all_that_is_shown() {
    let router = EventRouter::new();
    let stream = router.a2a().register("ann").expect("no cap is reached");
    let task = task("t", TaskState::Completed);
    let mut ended = body(stream).view(TaskView::rest("t").starting_with(task));
    let late = A2aEvent::status("t", "c", TaskState::Working);
    router.route_a2a("ann", &late).expect("JSON");
    let (events, has_ended) = read(&mut ended);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["task"]["status"]["state"], "TASK_STATE_COMPLETED");
    assert!(has_ended);
    assert_eq!(router.a2a().connection_count("ann"), 0);
}

#[test]
fn a_task_that_cannot_be_shown_to_its_end_ends_with_an_error_in_both_bindings() {
    // A name that needs care in a frame, and in JSON.
    const TASK: &str = "t\u{2028}\"";
    let id: Box<RawValue> = serde_json::from_str("\"call\"").expect("a string");
    let working = || A2aEvent::status(TASK, "c", TaskState::Working);
    let open = |view: TaskView, policy: LagPolicy, is_read: bool| {
        let hub = A2ABroadcaster::new();
        let stream = hub.register("ann").expect("no cap").lag_policy(policy);
        let mut body = body(stream).view(view);
        for _ in 0..if is_read { 1 } else { 100 } {
            hub.broadcast("ann", &working()).expect("JSON");
        }
        if is_read {
            hub.drain_user("ann");
        }
        let mut text = String::new();
        while let Some(Some(chunk)) = body.frame().now_or_never() {
            let chunk = chunk.expect("no error").into_data().expect("data");
            text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
        }
        assert!(body.is_end_stream());
        assert!(!text.contains('\u{2028}'), "{text:?}");
        text
    };
    for (policy, is_read, sentence) in [
        (LagPolicy::Gap, true, "the stream was ended before the task"),
        (LagPolicy::End, true, "the stream was ended before the task"),
        (LagPolicy::Gap, false, "events were lost"),
        (LagPolicy::Disconnect, false, "events were lost"),
        (
            LagPolicy::End,
            false,
            "the stream was ended before the task",
        ),
    ] {
        let message = format!("{sentence}; subscribe to the task for the rest");
        let details = json!([{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "STREAM_CUT_OFF",
            "domain": "tidings",
            "metadata": { "taskId": TASK },
        }]);
        let last = |text: &str, before: &str| {
            let events: Vec<_> = text.split_terminator("\n\n").collect();
            assert_eq!(events.len(), 1 + usize::from(is_read), "{text}");
            let last = events.last().expect("an event").strip_prefix(before);
            let json = last.unwrap_or_else(|| panic!("{text}"));
            serde_json::from_str::<Value>(json).expect("JSON")
        };

        let rpc = open(TaskView::json_rpc(TASK, &id), policy, is_read);
        let error = json!({ "code": -32603, "message": message, "data": details });
        assert_eq!(
            last(&rpc, "data: "),
            json!({ "jsonrpc": "2.0", "id": "call", "error": error })
        );

        let rest = open(TaskView::rest(TASK), policy, is_read);
        let error =
            json!({ "code": 503, "status": "UNAVAILABLE", "message": message, "details": details });
        assert_eq!(
            last(&rest, "event: error\ndata: "),
            json!({ "error": error })
        );
    }
}

/// After how many seconds of silence there is a keep-alive.
async fn silence(body: SseBody) -> u64 {
    let start = tokio::time::Instant::now();
    let mut body = body;
    // The beginning, and the keep-alive.
    for _ in 0..2 {
        let chunk = body.frame().await.expect("not ended").expect("no error");
        assert!(chunk.is_data());
    }
    start.elapsed().as_secs()
}

#[tokio::test(start_paused = true)]
async fn streams_of_agents_are_silent_for_four_seconds_at_most() {
    let router = EventRouter::new();
    let id: Box<RawValue> = serde_json::from_str("1").expect("a number");
    // Broadcasters that are not strict.
    let (agui, a2a) = (AgUiBroadcaster::new(), A2ABroadcaster::new());
    let run = || SseBody::new(agui.register("ann").expect("no cap"));
    let task = || SseBody::new(a2a.register("ann").expect("no cap"));
    let view = || RunView::new(RunRef::new("t", "r"));
    for body in [
        run().view(view()),
        run().keep_alive(&KeepAlive::comment()).view(view()),
        run().view(view()).keep_alive(&standard_keep_alive()),
        task().view(TaskView::rest("t")),
        task().view(TaskView::json_rpc("t", &id)),
        SseBody::new(router.agui().register("ann").expect("no cap")),
        SseBody::new(router.a2a().register("ann").expect("no cap")),
        SseBody::new(router.a2a().register("ann").expect("no cap"))
            .keep_alive(&standard_keep_alive()),
    ] {
        assert_eq!(silence(body).await, 4);
    }

    let context = || SseBody::new(router.context().register("ann").expect("no cap"));
    assert_eq!(silence(context()).await, 15);
    assert_eq!(
        silence(context().keep_alive(&standard_keep_alive())).await,
        15
    );
    let asked = KeepAlive::comment().interval(Duration::from_secs(20));
    assert_eq!(silence(run().view(view()).keep_alive(&asked)).await, 20);
    assert_eq!(silence(run().keep_alive(&asked).view(view())).await, 20);
}

#[tokio::test(start_paused = true)]
async fn strict_streams_are_kept_alive_by_comments_only() {
    let router = EventRouter::new();
    let heartbeat = standard_keep_alive();
    let strict =
        SseBody::new(router.agui().register("ann").expect("no cap")).keep_alive(&heartbeat);
    let own =
        SseBody::new(router.context().register("ann").expect("no cap")).keep_alive(&heartbeat);
    for (mut body, expected) in [
        (strict, ":\n"),
        (own, "event: heartbeat\ndata: {\"type\":\"heartbeat\"}\n\n"),
    ] {
        let begun = body.frame().await.expect("not ended").expect("no error");
        assert_eq!(begun.into_data().expect("data"), ":\n");
        let chunk = body.frame().await.expect("not ended").expect("no error");
        assert_eq!(chunk.into_data().expect("data"), expected);
    }
}
