//! The binding over HTTP alone, which A2A calls HTTP+JSON.

use ::a2a::errors::{error_code, error_reason};
use ::a2a::{A2AError, SendMessageRequest};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::super::limits::Posted;
use super::super::{Hub, body};
use super::{Binding, Client, Failure, check_version};

type Answer = Result<Response, Failure>;

impl IntoResponse for Failure {
    /// The form of errors of Google's APIs, as the protocol has it.
    fn into_response(self) -> Response {
        let status = self.status.unwrap_or_else(|| {
            let code = self.error.http_status_code();
            StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        });
        let name = match status.as_u16() {
            400 if is_about_state(self.error.code) => "FAILED_PRECONDITION",
            400 => "INVALID_ARGUMENT",
            404 => "NOT_FOUND",
            429 => "RESOURCE_EXHAUSTED",
            501 => "UNIMPLEMENTED",
            503 => "UNAVAILABLE",
            _ => "INTERNAL",
        };
        let body = json!({ "error": {
            "code": status.as_u16(),
            "status": name,
            "message": self.error.message,
            "details": [{
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": error_reason(self.error.code),
                "domain": "a2a-protocol.org",
            }],
        }});
        (status, Json(body)).into_response()
    }
}

/// Whether an error is not about what was asked, but about what the agent does or the state that the task is in.
fn is_about_state(code: i32) -> bool {
    use error_code::{
        EXTENDED_CARD_NOT_CONFIGURED, EXTENSION_SUPPORT_REQUIRED, PUSH_NOTIFICATION_NOT_SUPPORTED,
        TASK_NOT_CANCELABLE, UNSUPPORTED_OPERATION, VERSION_NOT_SUPPORTED,
    };
    matches!(
        code,
        TASK_NOT_CANCELABLE
            | PUSH_NOTIFICATION_NOT_SUPPORTED
            | UNSUPPORTED_OPERATION
            | EXTENDED_CARD_NOT_CONFIGURED
            | EXTENSION_SUPPORT_REQUIRED
            | VERSION_NOT_SUPPORTED
    )
}

fn client<'a>(hub: &'a Hub, user: &'a str, headers: &HeaderMap) -> Result<Client<'a>, A2AError> {
    check_version(headers)?;
    Ok(Client {
        hub,
        user,
        binding: Binding::Rest,
    })
}

/// `POST /message:stream`
pub(super) async fn send(
    State(hub): State<Hub>,
    Path(user): Path<String>,
    headers: HeaderMap,
    Posted(body): Posted,
) -> Answer {
    let client = client(&hub, &user, &headers)?;
    let request = body::json::<SendMessageRequest>(&headers, &body, "SendMessageRequest");
    client.send(request.map_err(|(_, sentence)| A2AError::invalid_params(sentence))?)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown {
    history_length: Option<i32>,
}

/// `GET /tasks/{id}` and `GET /tasks/{id}:subscribe`
pub(super) async fn read(
    State(hub): State<Hub>,
    Path((user, call)): Path<(String, String)>,
    Query(shown): Query<Shown>,
    headers: HeaderMap,
) -> Answer {
    let client = client(&hub, &user, &headers)?;
    match call.strip_suffix(":subscribe") {
        Some(id) => client.follow(id, None),
        None => Ok(Json(client.get(&call, shown.history_length)?).into_response()),
    }
}

/// `POST /tasks/{id}:subscribe`, which is what clients send, and `POST /tasks/{id}:cancel`
pub(super) async fn call(
    State(hub): State<Hub>,
    Path((user, call)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let client = client(&hub, &user, &headers)?;
    match call.rsplit_once(':') {
        Some((id, "subscribe")) => client.follow(id, None),
        Some((id, "cancel")) => Ok(Json(client.cancel(id)?).into_response()),
        _ => Err(A2AError::method_not_found(&call).into()),
    }
}

/// Everything under `/tasks/{id}/pushNotificationConfigs`
pub(super) async fn push_notifications() -> Answer {
    Err(A2AError::push_notification_not_supported().into())
}
