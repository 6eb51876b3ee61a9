//! The card that tells clients where the agent is and what it speaks.

use ::a2a::{
    AgentCapabilities, AgentCard, AgentInterface, AgentSkill, TRANSPORT_PROTOCOL_HTTP_JSON,
    TRANSPORT_PROTOCOL_JSONRPC,
};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};

use super::super::Hub;
use super::super::body::{Refusal, bad};

pub(super) async fn card(
    State(hub): State<Hub>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Json<AgentCard>, Refusal> {
    // The path as it was asked for, so that the user's name stays encoded.
    let path = uri.path().strip_suffix("/.well-known/agent-card.json");
    let base = hub.site.url(&uri, &headers, path.unwrap_or_default());
    let base = base.ok_or_else(|| bad("The request does not say which host it is for."))?;
    Ok(Json(AgentCard {
        name: "agent hub".into(),
        description: "Repeats what it is told, and forwards events posted for other tasks.".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        supported_interfaces: vec![
            AgentInterface::new(format!("{base}/rpc"), TRANSPORT_PROTOCOL_JSONRPC),
            AgentInterface::new(base, TRANSPORT_PROTOCOL_HTTP_JSON),
        ],
        capabilities: AgentCapabilities {
            streaming: Some(true),
            ..AgentCapabilities::default()
        },
        default_input_modes: vec!["text/plain".into()],
        default_output_modes: vec!["text/plain".into()],
        skills: vec![AgentSkill {
            id: "echo".into(),
            name: "Echo".into(),
            description: "Repeats what it is told, word by word.".into(),
            tags: vec!["example".into()],
            examples: None,
            input_modes: None,
            output_modes: None,
            security_requirements: None,
        }],
        provider: None,
        documentation_url: None,
        icon_url: None,
        security_schemes: None,
        security_requirements: None,
        signatures: None,
    }))
}
