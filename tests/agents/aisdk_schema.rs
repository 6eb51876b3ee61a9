//! Chunks of the AI SDK's UI message stream are what its own schema accepts.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tidings::Frame;
use tidings::protocol::aisdk::*;

use crate::support::official::{INSTALL, installed, place};

fn minimal() -> Vec<Chunk> {
    vec![
        Start::new().into(),
        StartStep::new().into(),
        FinishStep::new().into(),
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
        ToolOutputAvailable::new("c", json!([1])).into(),
        ToolOutputError::new("c", "it failed").into(),
        ToolOutputDenied::new("c").into(),
        SourceUrl::new("s", "https://example.com").into(),
        SourceDocument::new("s", "text/plain", "A title").into(),
        FilePart::new("data:,a", "text/plain").into(),
        DataPart::new("weather", json!({"rain": true})).into(),
    ]
}

/// Those that have optional fields, with all of these.
fn maximal() -> Vec<Chunk> {
    let by_provider = || match json!({"provider": {"key": "value"}}) {
        Value::Object(fields) => fields,
        _ => unreachable!("it is written as an object"),
    };
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
        TextEnd::new("t").provider_metadata(by_provider()).into(),
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
            .provider_executed(true)
            .dynamic(true)
            .title("F")
            .into(),
        ToolInputAvailable::new("c", "f", json!({}))
            .provider_executed(true)
            .provider_metadata(by_provider())
            .dynamic(true)
            .title("F")
            .into(),
        ToolInputError::new("c", "f", json!("?"), "no object")
            .provider_executed(true)
            .provider_metadata(by_provider())
            .dynamic(true)
            .title("F")
            .into(),
        ToolOutputAvailable::new("c", json!(null))
            .provider_executed(true)
            .dynamic(true)
            .preliminary(true)
            .into(),
        ToolOutputError::new("c", "it failed")
            .provider_executed(true)
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
        DataPart::new("weather", json!(null))
            .id("d")
            .transient(true)
            .into(),
    ];
    for reason in [
        "stop",
        "length",
        "content-filter",
        "tool-calls",
        "error",
        "other",
    ] {
        let finish = Finish::new().finish_reason(reason);
        chunks.push(finish.message_metadata(json!({"a": 1})).into());
    }
    chunks
}

/// What the package's own schema makes of each line.
fn verdicts(name: &str, lines: &str) -> Vec<String> {
    let script = place("aisdk_chunks.mjs", name);
    let input = installed().join(format!("{name}.lines"));
    fs::write(&input, lines).expect("a file");
    let output = Command::new("node").arg(script).arg(input).output();
    let output = output.expect(INSTALL);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_ai_sdks_own_schema_accepts_every_chunk() {
    let chunks = [minimal(), maximal()].concat();
    let frames = chunks
        .iter()
        .map(|chunk| Frame::encode(chunk).expect("a chunk"));
    let lines: Vec<String> = frames.map(|frame| frame.data().to_string()).collect();
    let verdicts = verdicts("accepted", &lines.join("\n"));
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
    for verdict in verdicts("refused", &lines.join("\n")) {
        assert!(verdict.starts_with("refused"), "{verdict}");
    }
}

#[test]
fn chunks_of_the_minimal_corpus_have_different_types() {
    let types: BTreeSet<String> = minimal()
        .iter()
        .map(|chunk| json!(chunk)["type"].as_str().expect("a type").to_owned())
        .collect();
    assert_eq!(types.len(), minimal().len());
}
