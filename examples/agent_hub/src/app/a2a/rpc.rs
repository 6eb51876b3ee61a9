//! The binding over JSON-RPC. The id of a call is echoed byte for byte: clients compare it, some of them strictly.

use std::collections::HashMap;

use ::a2a::{
    A2AError, CancelTaskRequest, GetTaskRequest, SendMessageRequest, SubscribeToTaskRequest,
    methods,
};
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::super::Hub;
use super::super::limits::{self, Posted};
use super::{Binding, Client, Failure, check_version, v03};

/// The methods of 0.3 that there are. They have other names there.
mod old {
    pub(super) const SEND_STREAMING_MESSAGE: &str = "message/stream";
    pub(super) const SUBSCRIBE_TO_TASK: &str = "tasks/resubscribe";
    pub(super) const GET_TASK: &str = "tasks/get";
    pub(super) const CANCEL_TASK: &str = "tasks/cancel";
    pub(super) const ALL: [&str; 4] = [
        SEND_STREAMING_MESSAGE,
        SUBSCRIBE_TO_TASK,
        GET_TASK,
        CANCEL_TASK,
    ];
}

/// A call, as far as it could be read.
struct Call {
    id: Box<RawValue>,
    method: String,
    params: Option<Box<RawValue>>,
}

pub(super) async fn call(
    State(hub): State<Hub>,
    Path(user): Path<String>,
    headers: HeaderMap,
    Posted(body): Posted,
) -> Response {
    let call = match parse(&body) {
        Ok(call) => call,
        Err((id, error)) => return failed(&id, error.into()),
    };
    let is_old = old::ALL.contains(&&*call.method);
    let client = Client {
        hub: &hub,
        user: &user,
        binding: if is_old {
            Binding::JsonRpcV03(&call.id)
        } else {
            Binding::JsonRpc(&call.id)
        },
    };
    let result = if is_old {
        answer_v03(&client, &call)
    } else {
        let result = check_version(&headers).map_err(Failure::from);
        result.and_then(|()| answer(&client, &call))
    };
    match result {
        Ok(response) => response,
        Err(failure) => failed(&call.id, failure),
    }
}

fn answer(client: &Client<'_>, call: &Call) -> Result<Response, Failure> {
    match &*call.method {
        methods::SEND_STREAMING_MESSAGE => client.send(params::<SendMessageRequest>(call)?),
        methods::SUBSCRIBE_TO_TASK => {
            client.follow(&params::<SubscribeToTaskRequest>(call)?.id, None)
        }
        methods::GET_TASK => {
            let request = params::<GetTaskRequest>(call)?;
            let task = client.get(&request.id, request.history_length)?;
            Ok(returned(&call.id, &task))
        }
        methods::CANCEL_TASK => {
            let task = client.cancel(&params::<CancelTaskRequest>(call)?.id)?;
            Ok(returned(&call.id, &task))
        }
        // Also under the names of 0.3.
        other if other.contains("ushNotificationConfig") => {
            Err(A2AError::push_notification_not_supported().into())
        }
        other if methods::is_valid(other) => {
            Err(A2AError::unsupported_operation(format!("not supported here: {other}")).into())
        }
        other => Err(A2AError::method_not_found(other).into()),
    }
}

fn answer_v03(client: &Client<'_>, call: &Call) -> Result<Response, Failure> {
    match &*call.method {
        old::SEND_STREAMING_MESSAGE => client.send(v03::request(params(call)?)?),
        old::SUBSCRIBE_TO_TASK => client.follow(&params::<SubscribeToTaskRequest>(call)?.id, None),
        old::GET_TASK => {
            let request = params::<GetTaskRequest>(call)?;
            let task = client.get(&request.id, request.history_length)?;
            Ok(returned(&call.id, &v03::task(&task)))
        }
        _ => {
            let task = client.cancel(&params::<CancelTaskRequest>(call)?.id)?;
            Ok(returned(&call.id, &v03::task(&task)))
        }
    }
}

fn params<T: DeserializeOwned>(call: &Call) -> Result<T, A2AError> {
    let params = call.params.as_ref().map_or("null", |params| params.get());
    serde_json::from_str(params).map_err(|error| A2AError::invalid_params(error.to_string()))
}

/// Reads a call by hand: what is wrong has to be told apart, and the id has to be kept as it was written.
fn parse(body: &[u8]) -> Result<Call, (Box<RawValue>, A2AError)> {
    let body = std::str::from_utf8(body).map_err(|error| error.to_string());
    let body = body.and_then(|body| {
        let json = serde_json::from_str::<&RawValue>(body);
        json.map_err(|error| error.to_string())
    });
    let body = body.map_err(|error| (null(), A2AError::parse_error(error)))?;

    let invalid = |what: &str| A2AError::invalid_request(what);
    let fields = serde_json::from_str::<HashMap<String, Box<RawValue>>>(body.get());
    let mut fields = fields.map_err(|_| (null(), invalid("a call is one JSON object")))?;
    let id = match fields.remove("id") {
        Some(id) if is_id(&id) => id,
        Some(_) => {
            let sentence = format!(
                "the id is no string, number or null of at most {} bytes",
                limits::MOST_NAME
            );
            return Err((null(), invalid(&sentence)));
        }
        None => {
            return Err((
                null(),
                invalid("the id is missing, and no call is without answer"),
            ));
        }
    };
    let text = |name| {
        let value: Option<&Box<RawValue>> = fields.get(name);
        value.and_then(|value| serde_json::from_str::<String>(value.get()).ok())
    };
    if text("jsonrpc").as_deref() != Some("2.0") {
        return Err((id, invalid("jsonrpc is not \"2.0\"")));
    }
    let Some(method) = text("method") else {
        return Err((id, invalid("the method is no string")));
    };
    Ok(Call {
        id,
        method,
        params: fields.remove("params"),
    })
}

/// Each event of a stream repeats the id, so it has an end.
fn is_id(value: &RawValue) -> bool {
    let id = value.get().as_bytes();
    id.len() <= limits::MOST_NAME && matches!(id[0], b'"' | b'-' | b'0'..=b'9' | b'n')
}

fn null() -> Box<RawValue> {
    RawValue::from_string("null".into()).expect("null is JSON")
}

fn returned(id: &RawValue, result: &impl Serialize) -> Response {
    let result = serde_json::to_string(result).expect("a task that was read can be written");
    json(StatusCode::OK, id, "result", &result)
}

/// An error is a result like others, with the status 200, unless it is the server's own.
fn failed(id: &RawValue, failure: Failure) -> Response {
    let error = serde_json::to_string(&failure.error.to_jsonrpc_error());
    let error = error.expect("an error is a number and texts");
    json(
        failure.status.unwrap_or(StatusCode::OK),
        id,
        "error",
        &error,
    )
}

fn json(status: StatusCode, id: &RawValue, name: &str, value: &str) -> Response {
    let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"{name}":{value}}}"#);
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}
