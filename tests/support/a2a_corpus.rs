//! A2A events of every shape.

use std::collections::HashMap;

use serde_json::{Value, json};
use tidings::protocol::a2a::{
    A2aEvent, Artifact, Message, Part, Role, StreamResponse, Task, TaskArtifactUpdateEvent,
    TaskState, TaskStatus, TaskStatusUpdateEvent,
};

/// What breaks encoders. Without the controls that ProtoJSON has in common with all JSON.
pub(crate) const TEXT: &str = "é\u{85}\u{2028}\u{2029} 🦀👩‍👩‍👧 \0\u{1}\u{1b}\u{7f} \"quoted\" \\ / \r\n\ndata: x\n\n\t\u{feff}\u{fffd}\u{10ffff}";

fn metadata() -> Option<HashMap<String, Value>> {
    let value = json!({"text": TEXT, "list": [1, 2.5, null, true], "object": {"a": {}}});
    Some(serde_json::from_value(value).expect("an object"))
}

fn parts() -> Vec<Part> {
    let mut all = Part::text(TEXT)
        .with_media_type("text/plain")
        .with_filename("a.txt");
    all.metadata = metadata();
    vec![
        Part::text(""),
        Part::text("x".repeat(1 << 20)),
        all,
        Part::raw(vec![0, 1, 254, 255]).with_filename("a.bin"),
        Part::url("https://example.org/a?b=c").with_media_type("image/png"),
        Part::data(json!({"nested": [null, 1.5, "x"], "text": TEXT})),
        Part::data(json!([1, 2])),
        Part::data(json!("text")),
    ]
}

fn message(role: Role) -> Message {
    let mut message = Message::new(role, vec![Part::text("hello")]);
    message.message_id = "m1".to_owned();
    message
}

fn full_message() -> Message {
    Message {
        message_id: "m2".to_owned(),
        context_id: Some("c1".to_owned()),
        task_id: Some("t1".to_owned()),
        role: Role::Agent,
        parts: parts(),
        metadata: metadata(),
        extensions: Some(vec!["https://example.org/ext".to_owned()]),
        reference_task_ids: Some(vec!["t0".to_owned()]),
    }
}

fn time(millis: u64) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + std::time::Duration::from_millis(millis)
}

fn status(state: TaskState) -> TaskStatus {
    TaskStatus {
        state,
        message: None,
        timestamp: None,
    }
}

fn full_status() -> TaskStatus {
    TaskStatus {
        state: TaskState::Completed,
        message: Some(full_message()),
        timestamp: Some(time(1_763_812_800_123).into()),
    }
}

fn artifact() -> Artifact {
    Artifact {
        artifact_id: "a1".to_owned(),
        name: None,
        description: None,
        parts: vec![Part::text("x")],
        metadata: None,
        extensions: None,
    }
}

fn full_artifact() -> Artifact {
    Artifact {
        name: Some(TEXT.to_owned()),
        description: Some("it".to_owned()),
        parts: parts(),
        metadata: metadata(),
        extensions: Some(vec!["https://example.org/ext".to_owned()]),
        ..artifact()
    }
}

fn task(state: TaskState) -> Task {
    Task {
        id: "t1".to_owned(),
        context_id: "c1".to_owned(),
        status: status(state),
        artifacts: None,
        history: None,
        metadata: None,
    }
}

/// Each member of 1.0, minimal and maximal, and each state.
pub(crate) fn events() -> Vec<A2aEvent> {
    let mut events: Vec<StreamResponse> = vec![
        StreamResponse::Message(message(Role::User)),
        StreamResponse::Message(message(Role::Agent)),
        StreamResponse::Message(full_message()),
        StreamResponse::Task(Task {
            status: full_status(),
            artifacts: Some(vec![artifact(), full_artifact()]),
            history: Some(vec![message(Role::User), full_message()]),
            metadata: metadata(),
            ..task(TaskState::Completed)
        }),
        StreamResponse::StatusUpdate(TaskStatusUpdateEvent {
            task_id: "t1".to_owned(),
            context_id: "c1".to_owned(),
            status: full_status(),
            metadata: metadata(),
        }),
        StreamResponse::StatusUpdate(TaskStatusUpdateEvent {
            task_id: "t1".to_owned(),
            context_id: "c1".to_owned(),
            status: TaskStatus {
                timestamp: Some(time(1_763_812_800_000).into()),
                ..status(TaskState::Working)
            },
            metadata: None,
        }),
        StreamResponse::ArtifactUpdate(TaskArtifactUpdateEvent {
            task_id: "t1".to_owned(),
            context_id: "c1".to_owned(),
            artifact: artifact(),
            append: None,
            last_chunk: None,
            metadata: None,
        }),
        StreamResponse::ArtifactUpdate(TaskArtifactUpdateEvent {
            task_id: "t1".to_owned(),
            context_id: "c1".to_owned(),
            artifact: full_artifact(),
            append: Some(true),
            last_chunk: Some(true),
            metadata: metadata(),
        }),
    ];
    for state in [
        TaskState::Submitted,
        TaskState::Working,
        TaskState::Completed,
        TaskState::Failed,
        TaskState::Canceled,
        TaskState::InputRequired,
        TaskState::Rejected,
        TaskState::AuthRequired,
    ] {
        events.push(StreamResponse::Task(task(state)));
    }
    events.into_iter().map(A2aEvent::from).collect()
}
