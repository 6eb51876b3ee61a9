//! Errors as responses: what a client, and the page in a browser, can learn from them.

use axum::http::StatusCode;
use axum::response::IntoResponse;
use http_body_util::BodyExt;
use tidings::{
    BroadcastError, EncodeError, EventId, GenericBroadcaster, JsonEvent, RefusalForm,
    RegisterError, RelayError, Text,
};

use crate::support::decoder::Decoder;

async fn body(error: impl IntoResponse) -> (StatusCode, String) {
    let response = error.into_response();
    let status = response.status();
    let body = response.into_body().collect().await.expect("an end");
    let text = String::from_utf8(body.to_bytes().to_vec()).expect("text");
    (status, text)
}

#[tokio::test]
async fn a_refusal_that_browsers_survive_tells_the_page_why() {
    let form = RefusalForm::ComeBack;
    for (error, reason, cap, data) in [
        (
            RegisterError::UserFull { cap: 10, form },
            "user_full",
            Some(10),
            r#"{"reason":"user_full","cap":10}"#,
        ),
        (
            RegisterError::TotalFull { cap: 500, form },
            "total_full",
            Some(500),
            r#"{"reason":"total_full","cap":500}"#,
        ),
        (
            RegisterError::ShuttingDown { form },
            "shutting_down",
            None,
            r#"{"reason":"shutting_down","cap":null}"#,
        ),
    ] {
        assert_eq!((error.reason(), error.cap()), (reason, cap));
        let (status, text) = body(error).await;
        assert_eq!(status, 200);
        let mut decoder = Decoder::default();
        decoder.push(text.as_bytes());
        let events = decoder.take();
        assert_eq!(events.len(), 1, "{text}");
        assert_eq!((&*events[0].event, &*events[0].data), ("refused", data));
        // The client keeps the id that it has, and the wait precedes the event.
        assert!(!text.contains("id:"), "{text}");
        let retry = text.strip_prefix("retry: ").expect("a wait");
        let (millis, _) = retry.split_once('\n').expect("a line");
        let millis: u64 = millis.parse().expect("a number");
        assert!((1_000..=11_000).contains(&millis), "{millis}");
    }
}

/// What the metrics call a refusal is what the page sees.
#[cfg(feature = "metrics")]
#[test]
fn a_refusal_has_one_name() {
    let hub: GenericBroadcaster<Text> = GenericBroadcaster::builder()
        .connections_per_user(1)
        .build()
        .expect("valid settings");
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let page = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let _tab = hub.register("ann").expect("room");
    let refused = hub.register("ann").expect_err("no room");
    hub.report_metrics();
    let line = format!(
        "tidings_refused_total{{broadcaster=\"default\",reason=\"{}\"}} 1",
        refused.reason()
    );
    assert!(page.render().contains(&line), "{}", page.render());
}

#[tokio::test]
async fn a_broadcast_that_failed_is_a_response() {
    let not_relayed = |reason| BroadcastError::NotRelayed { reached: 2, reason };
    let data = EncodeError::other("secret of the service");
    for (error, expected) in [
        (BroadcastError::Encode(data), 500),
        (
            not_relayed(RelayError::TooLarge {
                len: 2_000_000,
                max: 1_000_000,
            }),
            413,
        ),
        (not_relayed(RelayError::Refused), 502),
        (not_relayed(RelayError::QueueFull), 503),
        (not_relayed(RelayError::Closed), 503),
        (not_relayed(RelayError::Unconfirmed), 504),
    ] {
        let sentence = error.to_string();
        let (status, text) = body(error).await;
        assert_eq!((status.as_u16(), &text), (expected, &sentence));
        assert!(!text.contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn a_field_that_cannot_be_sent_is_a_client_error() {
    let hub = GenericBroadcaster::<JsonEvent<u32>>::new();
    let _tab = hub.register("ann").expect("room");
    let event = JsonEvent::new(7).event("two\nlines");
    let error = hub.broadcast("ann", &event).expect_err("no name");
    assert_eq!(body(error).await.0, 422);
    let error = BroadcastError::from(EventId::new("").expect_err("empty"));
    assert_eq!(body(error).await.0, 422);
}

/// As a handler has it.
#[tokio::test]
async fn text_is_an_event_whatever_it_is_made_of() {
    async fn send(hub: GenericBroadcaster<Text>) -> Result<String, BroadcastError> {
        let mut reached = hub.broadcast("ann", &Text::new("literal"))?;
        reached += hub.broadcast("ann", &Text::new(String::from("owned")))?;
        let borrowed = String::from("borrowed");
        reached += hub.broadcast("ann", &Text::new(&borrowed))?;
        reached += hub.broadcast("ann", &Text::new(&borrowed[..6]).event("name"))?;
        Ok(reached.to_string())
    }

    let hub = GenericBroadcaster::<Text>::new();
    let _tab = hub.register("ann").expect("room");
    assert_eq!(body(send(hub).await).await, (StatusCode::OK, "4".into()));
}
