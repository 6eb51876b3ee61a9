//! Events of every AG-UI type, each with nothing but what is required and with everything there is.

use serde_json::{Map, Value, json};
use tidings::protocol::agui::*;

/// What breaks encoders: line separators, characters outside the first plane, controls, quotes, what looks like SSE.
pub(crate) const TEXT: &str = "é\u{85}\u{2028}\u{2029} 🦀👩‍👩‍👧 \0\u{1}\u{1b}\u{7f} \"quoted\" \\ / \r\n\ndata: x\n\n\t\u{feff}\u{fffd}\u{10ffff}";

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => panic!("not an object"),
    }
}

fn metadata() -> Metadata {
    object(json!({"ag-ui": {"a": [1, 2.5, null]}, "null": null, "text": TEXT}))
}

fn anything() -> Value {
    json!({"null": null, "list": [1, -1, 0.1, 1e-7, 0.30000000000000004, 9007199254740991i64, true], "text": TEXT, "": {}})
}

fn sources() -> Vec<PartSource> {
    vec![
        DataSource::new("aGVsbG8=", "image/png").into(),
        UrlSource::new("https://example.org/a?b=c").into(),
        UrlSource::new("https://example.org/a")
            .mime_type("image/png")
            .into(),
        FileSource::new("file-1").into(),
        FileSource::new("file-1")
            .provider("p")
            .mime_type("video/mp4")
            .into(),
    ]
}

/// A part of each kind with each source, minimal and maximal.
pub(crate) fn parts() -> Vec<ContentPart> {
    let mut parts = vec![
        TextPart::new("").into(),
        TextPart::new(TEXT).id("part-1").metadata(anything()).into(),
    ];
    for source in sources() {
        parts.push(ImagePart::new(source.clone()).into());
        parts.push(AudioPart::new(source.clone()).into());
        parts.push(VideoPart::new(source.clone()).into());
        parts.push(DocumentPart::new(source).into());
    }
    let source = &sources()[0];
    parts.push(
        ImagePart::new(source.clone())
            .id("i")
            .metadata(anything())
            .into(),
    );
    parts.push(
        AudioPart::new(source.clone())
            .id("a")
            .metadata(json!(1))
            .into(),
    );
    parts.push(
        VideoPart::new(source.clone())
            .id("v")
            .metadata(json!("x"))
            .into(),
    );
    parts.push(
        DocumentPart::new(source.clone())
            .id("d")
            .metadata(json!([]))
            .into(),
    );
    parts
}

/// A message of each role, minimal and maximal.
pub(crate) fn messages() -> Vec<Message> {
    let call = FunctionToolCall::new("call-1", FunctionCall::new("search", "{\"q\":\"x\"}"));
    let full_call = call.clone().encrypted_value("secret").metadata(metadata());
    vec![
        DeveloperMessage::new("m1", "do").into(),
        DeveloperMessage::new("m2", TEXT)
            .name("dev")
            .encrypted_value("secret")
            .metadata(metadata())
            .subagent_run_id("sub-1")
            .into(),
        SystemMessage::new("m3", "be").into(),
        SystemMessage::new("m4", TEXT)
            .name("sys")
            .encrypted_value("secret")
            .metadata(metadata())
            .subagent_run_id("sub-1")
            .into(),
        AssistantMessage::new("m5").into(),
        AssistantMessage::new("m6")
            .content(TEXT)
            .tool_calls(vec![call.into(), full_call.into()])
            .name("agent")
            .encrypted_value("secret")
            .metadata(metadata())
            .subagent_run_id("sub-1")
            .into(),
        UserMessage::new("m7", "hello").into(),
        UserMessage::new("m8", parts())
            .name("ann")
            .encrypted_value("secret")
            .metadata(metadata())
            .subagent_run_id("sub-1")
            .into(),
        UserMessage::new("m9", Vec::new()).into(),
        ToolMessage::new("m10", "call-1", "found").into(),
        ToolMessage::new("m11", "call-1", parts())
            .error("half of it")
            .encrypted_value("secret")
            .metadata(metadata())
            .subagent_run_id("sub-1")
            .into(),
        ActivityMessage::new("m12", "PLAN", Map::new()).into(),
        ActivityMessage::new("m13", "PLAN", object(anything()))
            .metadata(metadata())
            .subagent_run_id("sub-1")
            .into(),
        ReasoningMessage::new("m14", "hm").into(),
        ReasoningMessage::new("m15", TEXT)
            .encrypted_value("secret")
            .metadata(metadata())
            .subagent_run_id("sub-1")
            .into(),
    ]
}

/// What a client posts, with everything there is.
pub(crate) fn input() -> RunAgentInput {
    RunAgentInput::new("thread-1", "run-1", messages())
        .protocol_version("1.0")
        .parent_run_id("run-0")
        .state(anything())
        .tools(vec![
            Tool::new("search", "finds things"),
            Tool::new("write", TEXT)
                .parameters(json!({"type": "object"}))
                .metadata(metadata()),
        ])
        .context(vec![Context::new("time", "noon")])
        .forwarded_props(anything())
        .resume(vec![
            ResumeEntry::new("int-1", ResumeStatus::Resolved)
                .payload(anything())
                .metadata(metadata()),
            ResumeEntry::new("int-2", ResumeStatus::Cancelled),
        ])
}

/// An operation of each kind.
pub(crate) fn patch() -> Vec<PatchOperation> {
    vec![
        AddOperation::new("/a/0", anything()).into(),
        AddOperation::new("", Value::Null).into(),
        RemoveOperation::new("/a~0b/c~1d").into(),
        ReplaceOperation::new("/", Value::Null).into(),
        MoveOperation::new("/a", "/b").into(),
        CopyOperation::new("/a", "/b").into(),
        TestOperation::new("/a", json!(1)).into(),
    ]
}

fn usage() -> Vec<TokenUsage> {
    let all = TokenUsage::new()
        .provider("p")
        .model("m")
        .input_tokens(0u64)
        .output_tokens(1u64)
        .total_tokens(9007199254740991u64)
        .reasoning_tokens(3u64)
        .cached_input_tokens(4u64)
        .cache_write_input_tokens(5u64);
    vec![TokenUsage::new(), all]
}

fn outcomes() -> Vec<Outcome> {
    let interrupt = Interrupt::new("int-1", "approval");
    let full = interrupt
        .clone()
        .message(TEXT)
        .tool_call_id("call-1")
        .response_schema(object(json!({"type": "boolean"})))
        .expires_at("2026-11-22T12:00:00Z")
        .metadata(metadata())
        .subagent_run_id("sub-1");
    vec![
        SuccessOutcome::new().into(),
        SuccessOutcome::new()
            .pending_tool_call_ids(vec!["call-1".to_owned()])
            .into(),
        InterruptOutcome::new(vec![interrupt, full]).into(),
        CancelledOutcome::new().into(),
    ]
}

/// The body of each type with nothing but what is required.
pub(crate) fn minimal() -> Vec<Body> {
    vec![
        RunStarted::new("thread-1", "run-1").into(),
        RunFinished::new("thread-1", "run-1").into(),
        RunError::new("failed").into(),
        StepStarted::new("step").into(),
        StepFinished::new("step").into(),
        TextMessageStart::new("m").into(),
        TextMessageContent::new("m", "").into(),
        TextMessageEnd::new("m").into(),
        TextMessageChunk::new().into(),
        ToolCallStart::new("c", "search").into(),
        ToolCallArgs::new("c", "").into(),
        ToolCallEnd::new("c").into(),
        ToolCallChunk::new().into(),
        ToolCallResult::new("m", "c", "").into(),
        StateSnapshot::new(Value::Null).into(),
        StateDelta::new(Vec::new()).into(),
        MessagesSnapshot::new(Vec::new()).into(),
        ActivitySnapshot::new("m", "PLAN", Map::new()).into(),
        ActivityDelta::new("m", "PLAN", Vec::new()).into(),
        Raw::new(Value::Null).into(),
        Custom::new("name", Value::Null).into(),
        ReasoningStart::new("r").into(),
        ReasoningMessageStart::new("r", ReasoningRole::Reasoning).into(),
        ReasoningMessageContent::new("r", "").into(),
        ReasoningMessageEnd::new("r").into(),
        ReasoningMessageChunk::new().into(),
        ReasoningEnd::new("r").into(),
        ReasoningEncryptedValue::new(EncryptedSubtype::ToolCall, "c", "x").into(),
        SubagentStarted::new("sub-1", "helper").into(),
        SubagentFinished::new("sub-1").into(),
        SubagentError::new("sub-1", "failed").into(),
    ]
}

/// The body of each type with everything there is, and each value that a field can have.
pub(crate) fn maximal() -> Vec<Body> {
    let mut bodies: Vec<Body> = vec![
        RunStarted::new("thread-1", "run-1")
            .protocol_version("1.0")
            .parent_run_id("run-0")
            .input(input())
            .into(),
        // The schemas put empty lists in the place of absent ones, so these are there.
        RunStarted::new("thread-1", "run-1")
            .input(
                RunAgentInput::new("thread-1", "run-1", Vec::new())
                    .tools(Vec::new())
                    .context(Vec::new()),
            )
            .into(),
        RunError::new(TEXT).code("E1").usage(usage()).into(),
        StepStarted::new(TEXT).into(),
        StepFinished::new(TEXT).into(),
        TextMessageContent::new("m", TEXT).into(),
        TextMessageContent::new("m", "x".repeat(1 << 20)).into(),
        TextMessageEnd::new("").into(),
        ToolCallStart::new("c", "search")
            .parent_message_id("m")
            .into(),
        ToolCallArgs::new("c", "{\"q\": \"\\u2028\"").into(),
        ToolCallEnd::new("c").into(),
        ToolCallChunk::new()
            .tool_call_id("c")
            .tool_call_name("search")
            .parent_message_id("m")
            .delta(TEXT)
            .into(),
        ToolCallResult::new("m", "c", TEXT)
            .role(ToolRole::Tool)
            .into(),
        ToolCallResult::new("m", "c", parts()).into(),
        StateSnapshot::new(anything()).into(),
        StateDelta::new(patch()).into(),
        MessagesSnapshot::new(messages()).into(),
        ActivitySnapshot::new("m", "PLAN", object(anything()))
            .replace(false)
            .into(),
        ActivityDelta::new("m", "PLAN", patch()).into(),
        Raw::new(anything()).source("elsewhere").into(),
        Custom::new("name", anything()).into(),
        ReasoningStart::new(TEXT).into(),
        ReasoningMessageStart::new(TEXT, ReasoningRole::Reasoning).into(),
        ReasoningMessageContent::new("r", TEXT).into(),
        ReasoningMessageEnd::new(TEXT).into(),
        ReasoningMessageChunk::new()
            .message_id("r")
            .delta(TEXT)
            .into(),
        ReasoningEnd::new(TEXT).into(),
        ReasoningEncryptedValue::new(EncryptedSubtype::Message, "m", TEXT).into(),
        SubagentStarted::new("sub-1", TEXT)
            .description("helps")
            .parent_subagent_run_id("sub-0")
            .parent_tool_call_id("c")
            .parent_message_id("m")
            .into(),
        SubagentFinished::new("sub-1")
            .result(anything())
            .outcome(SubagentSuccess::new())
            .into(),
        SubagentFinished::new("sub-1")
            .outcome(SubagentSuspended::new())
            .into(),
        SubagentFinished::new("sub-1")
            .outcome(SubagentSuspended::new().interrupt_ids(vec!["int-1".to_owned()]))
            .into(),
        SubagentError::new("sub-1", TEXT).code("E1").into(),
    ];
    bodies.extend(outcomes().into_iter().map(|outcome| {
        let finished = RunFinished::new("thread-1", "run-1").result(anything());
        finished.outcome(outcome).usage(usage()).into()
    }));
    for role in [
        TextMessageRole::Developer,
        TextMessageRole::System,
        TextMessageRole::Assistant,
        TextMessageRole::User,
    ] {
        bodies.push(TextMessageStart::new("m").role(role).name("ann").into());
        let chunk = TextMessageChunk::new().message_id("m").role(role);
        bodies.push(chunk.delta(TEXT).name("ann").into());
    }
    bodies
}

/// The whole corpus. Every event of it passes the check.
pub(crate) fn events() -> Vec<Event> {
    let bare = minimal()
        .into_iter()
        .map(|body| Event::new(body).without_timestamp());
    let bodies = [minimal(), maximal()].concat();
    let full = bodies.into_iter().enumerate().map(|(index, body)| {
        let about_run = body.type_name().starts_with("RUN_");
        let about_subagent = body.type_name().starts_with("SUBAGENT_");
        let has_owner = !about_run && !about_subagent && body.type_name() != "MESSAGES_SNAPSHOT";
        let mut event = Event::new(body)
            .timestamp([0, -1, 1763812800000, 9007199254740991, -9007199254740991][index % 5])
            .raw_event(anything())
            .metadata(metadata());
        if has_owner {
            event = event.subagent_run_id("sub-1");
        }
        event
    });
    bare.chain(full).collect()
}
