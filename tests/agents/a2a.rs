//! A2A events come back from JSON as they were, and say which task they belong to and whether it has ended.

use serde_json::{Value, json};
use tidings::Frame;
use tidings::protocol::a2a::{A2aEvent, InvalidA2a, StreamResponse, TaskState};

use crate::support::a2a_corpus as corpus;

fn parse(value: Value) -> Result<A2aEvent, serde_json::Error> {
    serde_json::from_str(&value.to_string())
}

fn json_of(event: &A2aEvent) -> Value {
    serde_json::to_value(event).expect("JSON")
}

#[test]
fn the_corpus_comes_back_as_it_was() {
    for event in corpus::events() {
        let json = json_of(&event);
        let back = parse(json.clone()).expect("an event");
        assert_eq!(back.response(), event.response());
        assert_eq!(json_of(&back), json);
    }
}

#[test]
fn a_frame_holds_the_event_on_one_line_under_its_name() {
    let mut names = Vec::new();
    for event in corpus::events() {
        let frame = Frame::encode(&event).expect("valid");
        let fields: Vec<_> = frame.fields().collect();
        assert_eq!(fields.len(), 2, "a name and one line of data");
        assert_eq!(fields[0], ("event", event.name()));
        assert!(!fields[1].1.contains(['\u{85}', '\u{2028}', '\u{2029}']));
        let data: Value = serde_json::from_str(fields[1].1).expect("JSON");
        assert_eq!(data, json_of(&event));
        assert!(data.get(event.name()).is_some(), "the name is the member");
        names.push(event.name().to_owned());
    }
    for name in ["task", "message", "statusUpdate", "artifactUpdate"] {
        assert!(names.iter().any(|found| found == name), "{name}");
    }
}

#[test]
fn times_are_utc_with_a_z() {
    for event in corpus::events() {
        let json = json_of(&event).to_string();
        for time in json.split("\"timestamp\":\"").skip(1) {
            let end = time.find('"').expect("a string ends");
            assert!(time[..end].ends_with('Z'), "{}", &time[..end]);
        }
    }
    let event = parse(
        json!({"statusUpdate": {"taskId": "t", "contextId": "c", "status": {
        "state": "TASK_STATE_WORKING", "timestamp": "2026-11-22T13:00:00+01:00"}}}),
    );
    let json = json_of(&event.expect("an event"));
    assert_eq!(
        json["statusUpdate"]["status"]["timestamp"],
        "2026-11-22T12:00:00Z"
    );
    let status = json_of(&A2aEvent::status("t", "c", TaskState::Working));
    let time = status["statusUpdate"]["status"]["timestamp"].as_str();
    let time = time.expect("a time");
    assert!(time.len() <= "2026-11-22T12:00:00.000Z".len(), "{time}");
}

#[test]
fn each_event_knows_its_task_and_context() {
    for event in corpus::events() {
        let is_short =
            matches!(event.response(), Some(StreamResponse::Message(m)) if m.task_id.is_none());
        let (task, context) = if is_short {
            (None, None)
        } else {
            (Some("t1"), Some("c1"))
        };
        assert_eq!((event.task_id(), event.context_id()), (task, context));
        assert_eq!(event.task().is_some(), event.name() == "task");
    }
    let old = A2aEvent::v03(json!({"kind": "status-update", "taskId": "t", "contextId": "c"}));
    let old = old.expect("a kind");
    assert_eq!((old.task_id(), old.context_id()), (Some("t"), Some("c")));
    let old = A2aEvent::v03(json!({"kind": "task", "id": "t"})).expect("a kind");
    assert_eq!((old.task_id(), old.context_id()), (Some("t"), None));
}

#[test]
fn the_last_event_is_known() {
    for (state, last) in [
        (TaskState::Submitted, false),
        (TaskState::Working, false),
        (TaskState::InputRequired, false),
        (TaskState::AuthRequired, false),
        (TaskState::Completed, true),
        (TaskState::Failed, true),
        (TaskState::Canceled, true),
        (TaskState::Rejected, true),
    ] {
        assert_eq!(A2aEvent::status("t", "c", state).is_terminal(), last);
    }
    for event in corpus::events() {
        match event.response() {
            Some(StreamResponse::Message(message)) => {
                assert_eq!(event.is_terminal(), message.task_id.is_none());
            }
            Some(StreamResponse::ArtifactUpdate(_)) => assert!(!event.is_terminal()),
            _ => {}
        }
    }
    let old = |body: Value| A2aEvent::v03(body).expect("a kind").is_terminal();
    assert!(old(
        json!({"kind": "status-update", "taskId": "t", "final": true})
    ));
    assert!(!old(
        json!({"kind": "status-update", "taskId": "t", "final": false})
    ));
    assert!(old(
        json!({"kind": "task", "id": "t", "status": {"state": "completed"}})
    ));
    assert!(!old(
        json!({"kind": "task", "id": "t", "status": {"state": "working"}})
    ));
    assert!(old(json!({"kind": "message", "parts": []})));
    assert!(!old(json!({"kind": "artifact-update", "taskId": "t"})));
}

#[test]
fn bodies_of_0_3_are_kept_as_they_are() {
    let body = json!({"kind": "status-update", "taskId": "t", "new": null, "final": false});
    let event = parse(body.clone()).expect("an event");
    assert_eq!(json_of(&event), body);
    assert_eq!(event.name(), "status-update");
    assert!(event.response().is_none());
}

#[test]
fn any_body_can_be_sent() {
    let event = A2aEvent::other("task", json!({"result": 1}));
    let frame = Frame::encode(&event).expect("JSON");
    assert_eq!(frame.as_bytes(), b"event: task\ndata: {\"result\":1}\n\n");
    assert_eq!((event.task_id(), event.is_terminal()), (None, false));
    assert_eq!(json_of(&event), json!({"result": 1}));
    Frame::encode(&A2aEvent::other("a\nb", 1)).expect_err("not a name");
}

#[test]
fn json_that_is_not_an_a2a_event_is_refused() {
    let task = json!({"id": "t", "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}});
    for (body, says) in [
        (json!({}), "exactly one"),
        (json!({"result": task}), "exactly one"),
        (json!({"task": task, "message": {}}), "exactly one"),
        (json!({"task": {"id": "t"}}), "missing field"),
        (json!({"kind": "other"}), "the kind is none of"),
        (json!({"kind": 1}), "no kind"),
        (json!([]), "map"),
    ] {
        let error = parse(body).expect_err("no event").to_string();
        assert!(error.contains(says), "{error}");
    }
    assert_eq!(A2aEvent::v03(task).err(), Some(InvalidA2a::NoKind));
}

#[test]
fn the_content_of_messages_stays_out_of_logs() {
    let event = A2aEvent::v03(json!({"kind": "message", "taskId": "t", "parts": "secret"}));
    let debug = format!("{:?}", event.expect("a kind"));
    assert!(
        !debug.contains("secret") && debug.contains("\"t\""),
        "{debug}"
    );
}
