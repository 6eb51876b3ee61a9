//! Chunks of the AI SDK's UI message stream are what its own schema accepts.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tidings::Frame;
use tidings::protocol::agui::Metadata;
use tidings_aisdk::*;

use crate::support::official::run;

fn minimal() -> Vec<Chunk> {
    vec![
        Start::new().into(),
        StartStep::new().into(),
        FinishStep::new().into(),
        ResetStep::new().into(),
        Finish::new().into(),
        Abort::new().into(),
        Failure::new("it failed").into(),
        MessageMetadata::new(json!({"a": 1})).into(),
        TextStart::new("t").into(),
        TextDelta::new("t", "a").into(),
        TextEnd::new("t").into(),
        ReasoningStart::new("r").into(),
        ReasoningDelta::new("r", "a").into(),
        ReasoningEnd::new("r").into(),
        ToolInputStart::new("c", "f").into(),
        ToolInputDelta::new("c", "{").into(),
        ToolInputAvailable::new("c", "f", json!({})).into(),
        ToolInputError::new("c", "f", json!("?"), "no object").into(),
        ToolApprovalRequest::new("a", "c").into(),
        ToolApprovalResponse::new("a", false).into(),
        ToolOutputAvailable::new("c", json!([1])).into(),
        ToolOutputError::new("c", "it failed").into(),
        ToolOutputDenied::new("c").into(),
        SourceUrl::new("s", "https://example.com").into(),
        SourceDocument::new("s", "text/plain", "A title").into(),
        FilePart::new("data:,a", "text/plain").into(),
        ReasoningFile::new("data:,a", "text/plain").into(),
        Custom::new("provider.kind").into(),
        SteeringMessage::new("m", []).into(),
        DataPart::new("weather", json!({"rain": true})).into(),
    ]
}

const FINISH_REASONS: [FinishReason; 7] = [
    FinishReason::Stop,
    FinishReason::Length,
    FinishReason::ContentFilter,
    FinishReason::ToolCalls,
    FinishReason::Error,
    FinishReason::Interrupted,
    FinishReason::Other,
];

/// Those that have optional fields, with all of these.
fn maximal() -> Vec<Chunk> {
    let by_provider = || match json!({"provider": {"key": "value"}}) {
        Value::Object(fields) => fields,
        _ => unreachable!("it is written as an object"),
    };
    let mut reference = Metadata::new();
    reference.insert("provider".into(), "file-1".into());
    let mut chunks: Vec<Chunk> = vec![
        Start::new()
            .message_id("m")
            .message_metadata(json!({"a": 1}))
            .into(),
        Abort::new().reason("the user").into(),
        TextStart::new("t").provider_metadata(by_provider()).into(),
        TextDelta::new("t", "a")
            .provider_metadata(by_provider())
            .into(),
        TextEnd::new("t")
            .citations([
                json!({
                    "source": {"type": "source", "sourceType": "url", "id": "s", "url": "https://example.com"},
                    "startIndex": 0,
                }),
            ])
            .provider_metadata(by_provider())
            .into(),
        ReasoningStart::new("r")
            .provider_metadata(by_provider())
            .into(),
        ReasoningDelta::new("r", "a")
            .provider_metadata(by_provider())
            .into(),
        ReasoningEnd::new("r")
            .provider_metadata(by_provider())
            .into(),
        ToolInputStart::new("c", "f")
            .input_encoding(InputEncoding::Text)
            .provider_executed(true)
            .provider_metadata(by_provider())
            .tool_metadata(by_provider())
            .dynamic(true)
            .title("F")
            .into(),
        ToolInputAvailable::new("c", "f", json!({}))
            .provider_executed(true)
            .provider_metadata(by_provider())
            .tool_metadata(by_provider())
            .dynamic(true)
            .title("F")
            .into(),
        ToolInputError::new("c", "f", json!("?"), "no object")
            .provider_executed(true)
            .provider_metadata(by_provider())
            .tool_metadata(by_provider())
            .dynamic(true)
            .title("F")
            .into(),
        ToolApprovalRequest::new("a", "c")
            .approval_descriptor(json!({"amount": 1}))
            .input_schema_input(json!({}))
            .reason("it costs money")
            .is_automatic(true)
            .signature("signed")
            .into(),
        ToolApprovalResponse::new("a", true)
            .reason("it is cheap")
            .provider_executed(true)
            .provider_metadata(by_provider())
            .into(),
        ToolOutputAvailable::new("c", json!(null))
            .provider_executed(true)
            .provider_metadata(by_provider())
            .tool_metadata(by_provider())
            .dynamic(true)
            .preliminary(true)
            .into(),
        ToolOutputError::new("c", "it failed")
            .provider_executed(true)
            .provider_metadata(by_provider())
            .tool_metadata(by_provider())
            .dynamic(true)
            .into(),
        SourceUrl::new("s", "https://example.com")
            .title("A title")
            .provider_metadata(by_provider())
            .into(),
        SourceDocument::new("s", "text/plain", "A title")
            .filename("a.txt")
            .provider_metadata(by_provider())
            .into(),
        FilePart::new("data:,a", "text/plain")
            .provider_metadata(by_provider())
            .into(),
        ReasoningFile::new("data:,a", "text/plain")
            .provider_metadata(by_provider())
            .into(),
        Custom::new("provider.kind")
            .provider_metadata(by_provider())
            .into(),
        SteeringMessage::new(
            "m",
            [
                SteeringText::new("shorter")
                    .provider_metadata(by_provider())
                    .into(),
                SteeringFile::new("text/plain", "data:,a")
                    .filename("a.txt")
                    .provider_reference(reference)
                    .provider_metadata(by_provider())
                    .into(),
            ],
        )
        .into(),
        DataPart::new("weather", json!(null))
            .id("d")
            .transient(true)
            .into(),
    ];
    for reason in FINISH_REASONS {
        let finish = Finish::new().finish_reason(reason);
        chunks.push(finish.message_metadata(json!({"a": 1})).into());
    }
    chunks
}

/// What the package's own schema makes of each line.
fn verdicts(name: &str, lines: &[String]) -> Vec<String> {
    let verdicts = run(name, "aisdk_chunks.mjs", lines);
    verdicts.lines().map(str::to_owned).collect()
}

#[test]
fn the_ai_sdks_own_schema_accepts_every_chunk() {
    let chunks = [minimal(), maximal()].concat();
    let frames = chunks
        .iter()
        .map(|chunk| Frame::encode(chunk).expect("a chunk"));
    let lines: Vec<String> = frames.map(|frame| frame.data().to_string()).collect();
    let verdicts = verdicts("accepted", &lines);
    assert_eq!(verdicts.len(), lines.len());
    for (line, verdict) in lines.iter().zip(verdicts) {
        let parsed = verdict.strip_prefix("ok ");
        let parsed = parsed.unwrap_or_else(|| panic!("{line}: {verdict}"));
        let [sent, parsed]: [Value; 2] =
            [line, parsed].map(|json| serde_json::from_str(json).expect("JSON"));
        assert_eq!(sent, parsed);
    }
}

#[test]
fn the_ai_sdks_own_schema_refuses_what_is_no_chunk() {
    let wrong = [
        json!({"type": "gap", "missed": 1}),
        json!({"type": "text-delta", "id": "t"}),
        json!({"type": "finish", "finishReason": "tired"}),
    ];
    let lines = wrong.map(|chunk| chunk.to_string());
    for verdict in verdicts("refused", &lines) {
        assert!(verdict.starts_with("refused"), "{verdict}");
    }
}

#[test]
fn no_type_no_field_and_no_reason_of_the_ai_sdks_own_schema_is_missing() {
    let schema: Value =
        serde_json::from_str(&run("schema", "aisdk_schema.mjs", &[])).expect("JSON");

    let mut types: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for chunk in [minimal(), maximal()].concat() {
        let Value::Object(mut fields) = json!(chunk) else {
            panic!("{chunk:?}");
        };
        let kind = fields.remove("type").expect("a type");
        let kind = kind.as_str().expect("a string");
        let kind = match kind.strip_prefix("data-") {
            Some(_) => "data-*",
            None => kind,
        };
        let known = types.entry(kind.to_owned()).or_default();
        known.extend(fields.into_iter().map(|(name, _)| name));
    }
    assert_eq!(
        types,
        serde_json::from_value(schema["types"].clone()).expect("types")
    );

    let reasons: BTreeSet<String> = FINISH_REASONS
        .iter()
        .map(|reason| json!(reason).as_str().expect("a string").to_owned())
        .collect();
    let of_package = schema["finishReasons"].clone();
    assert_eq!(
        reasons,
        serde_json::from_value(of_package).expect("reasons")
    );
}

#[test]
fn chunks_come_back_from_json_as_they_were() {
    let finish = json!({"finishReason": "tool-calls"});
    let read: Finish = serde_json::from_value(finish).expect("a finish");
    assert_eq!(read, Finish::new().finish_reason(FinishReason::ToolCalls));
    let message = SteeringMessage::new("m", [SteeringText::new("shorter").into()]);
    let read: SteeringMessage = serde_json::from_value(json!(message)).expect("a message");
    assert_eq!(read, message);
    serde_json::from_value::<Finish>(json!({"finishReason": "tired"})).expect_err("no reason");
}

#[test]
fn chunks_of_the_minimal_corpus_have_different_types() {
    let types: BTreeSet<String> = minimal()
        .iter()
        .map(|chunk| json!(chunk)["type"].as_str().expect("a type").to_owned())
        .collect();
    assert_eq!(types.len(), minimal().len());
}
