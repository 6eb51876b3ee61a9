//! Whatever a client says that it saw last, it gets a stream: with what came after it, or with a gap.

use std::time::Duration;

use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use tidings::{GenericBroadcaster, History};
use tidings_testkit::{Message, SseClient, SseRequest};

use crate::support::hub::{Hub, within};
use crate::support::process::Process;

/// What a client says: values of the header `Last-Event-ID`, and a query.
#[derive(Debug, Clone, Default)]
struct Says {
    headers: Vec<Vec<u8>>,
    query: Option<String>,
}

fn header(id: impl AsRef<[u8]>) -> Says {
    Says::default().and_header(id)
}

fn query(query: impl Into<String>) -> Says {
    Says {
        headers: Vec::new(),
        query: Some(query.into()),
    }
}

impl Says {
    fn and_header(mut self, id: impl AsRef<[u8]>) -> Self {
        self.headers.push(id.as_ref().to_vec());
        self
    }
}

/// All that a stream has for a client who says this, up to now.
async fn stream(hub: &Hub, user: &str, says: &Says) -> String {
    let mut url = hub.url(&["users", user, "streams", "text"]);
    url.set_query(says.query.as_deref());
    let mut request = hub.client.get(url);
    for id in &says.headers {
        let value = HeaderValue::from_bytes(id).expect("bytes that may be in a header");
        request = request.header("last-event-id", value);
    }
    let response = within("a response", request.send()).await;
    let response = response.expect("a response");
    assert_eq!(response.status(), 200, "{says:?}");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    // Ends after what was before, the replay too.
    hub.post(&["users", user, "end"]).await;
    let text = within("the end", response.text()).await;
    text.expect("UTF-8")
}

/// A hub with three events of ann's and two of bob's in its history, and the epochs of their ids.
async fn hub_of_ann_and_bob() -> (Hub, String, String) {
    let hub = GenericBroadcaster::builder().history(History::new(10));
    let hub = Hub::serving(hub.build().expect("valid settings")).await;
    let mut epochs = Vec::new();
    for (user, count) in [("ann", 3), ("bob", 2)] {
        let cursor = stream(&hub, user, &Says::default()).await;
        let epoch = cursor.strip_prefix("id: ").expect("an id");
        let epoch = epoch.strip_suffix("-0\n\n").expect("and nothing else");
        epochs.push(epoch.to_owned());
        for number in 1..=count {
            hub.send(user, &format!("{user} {number}")).await;
        }
    }
    let [ann, bob] = epochs.try_into().expect("two");
    (hub, ann, bob)
}

/// Ann's events behind the one of this number, or the beginning of a stream that has none.
fn after(epoch: &str, number: u64) -> String {
    if number == 3 {
        return ":\n".to_owned();
    }
    (number + 1..=3)
        .map(|n| format!("id: {epoch}-{n}\nevent: text\ndata: ann {n}\n\n"))
        .collect()
}

fn gap(epoch: &str) -> String {
    format!("id: {epoch}-3\nevent: gap\ndata: {{\"reason\":\"epoch\",\"missed\":null}}\n\n")
}

#[tokio::test]
async fn the_header_or_the_query_names_the_event_to_continue_after() {
    let (hub, epoch, _) = hub_of_ann_and_bob().await;
    let id = |number: u64| format!("{epoch}-{number}");
    for number in 0..=3 {
        let id = id(number);
        let escaped = id.replace('-', "%2D");
        for says in [
            header(&id),
            // As a proxy may leave it.
            header(&id).and_header(&id),
            query(format!("last_event_id={id}")),
            query(format!("lastEventId={id}")),
            query(format!("lastEventID={id}")),
            query(format!("Last-Event-ID={id}")),
            query(format!("last-event-id={id}")),
            query(format!("LAST_EVENT_ID={id}")),
            // What has no value says nothing.
            query(format!("last_event_id={id}")).and_header(""),
            query(format!("last_event_id={id}&lastEventId=")),
            header("").and_header(&id),
            query(format!("a=b&lastEventId={id}&c")),
            query(format!("last_event_id={id}&lastEventId={id}")),
            query(format!("last_event_id={escaped}")),
            query(format!("last_event_id={}", escaped.to_lowercase())),
        ] {
            let found = stream(&hub, "ann", &says).await;
            assert_eq!(found, after(&epoch, number), "{says:?}");
        }
    }
    // The header is what the browser knows, the query what the page knew when it was made.
    for (says, expected) in [
        (
            query(format!("last_event_id={}", id(0))).and_header(id(2)),
            after(&epoch, 2),
        ),
        (query("last_event_id=x").and_header(id(1)), after(&epoch, 1)),
        (
            query(format!("last_event_id={}", id(1))).and_header("x"),
            gap(&epoch),
        ),
    ] {
        assert_eq!(stream(&hub, "ann", &says).await, expected, "{says:?}");
    }
}

#[tokio::test]
async fn a_client_without_an_id_begins_with_live_events() {
    let (hub, epoch, _) = hub_of_ann_and_bob().await;
    for says in [
        Says::default(),
        header(""),
        header("").and_header(""),
        header("~"),
        query(""),
        query("last_event_id"),
        query("last_event_id="),
        query("lastEventId=~"),
        query("lastEventId=%7E"),
        query("LAST_EVENT=x&xlast_event_id=x&last_event_id%00=x&last+event+id=x"),
    ] {
        let cursor = format!("id: {epoch}-3\n\n");
        assert_eq!(stream(&hub, "ann", &says).await, cursor, "{says:?}");
    }
}

/// NUL cannot be in a header: HTTP libraries refuse to send it, and hyper to take it.
#[tokio::test]
async fn ids_that_nobody_sent_give_a_gap_and_nobody_elses_events() {
    let (hub, epoch, of_bob) = hub_of_ann_and_bob().await;
    let id = |offset: &str| format!("{epoch}-{offset}");
    let kib8 = "x".repeat(8192);
    let ids = [
        format!("{of_bob}-1"),
        id("4"),
        id("18446744073709551615"),
        id("18446744073709551616"),
        id("-1"),
        id("01"),
        id(""),
        format!("{epoch}-1-1"),
        epoch.clone(),
        "0".into(),
        kib8.clone(),
        id("1") + &kib8,
    ];
    let mut cases = Vec::new();
    for id in &ids {
        cases.push(header(id));
        cases.push(query(format!("last_event_id={id}")));
        cases.push(query(format!("lastEventId={id}")));
    }
    for bytes in [&b"\xff\xfe"[..], "ß".as_bytes(), b"\x80-1"] {
        cases.push(header(bytes));
        cases.push(header([id("1").as_bytes(), bytes].concat()));
    }
    for escaped in ["%00", "%FF", "%C3%9F", "%", "%2", "+"] {
        cases.push(query(format!("last_event_id={escaped}")));
        cases.push(query(format!("last_event_id={}{escaped}", id("1"))));
    }
    // Several that differ: the client may have seen either.
    cases.push(header(id("1")).and_header(id("2")));
    cases.push(header(id("1")).and_header(id("1")).and_header(&kib8));
    cases.push(header(format!("{0}, {0}", id("1"))));
    cases.push(query(format!(
        "last_event_id={}&lastEventId={}",
        id("1"),
        id("2")
    )));
    cases.push(query(format!("last_event_id={}&last_event_id=x", id("1"))));
    for says in cases {
        assert_eq!(stream(&hub, "ann", &says).await, gap(&epoch), "{says:?}");
    }
    // An id of ann's in the hands of somebody who has no history.
    let found = stream(&hub, "eve", &header(id("1"))).await;
    let (_, rest) = found.split_once("-0\n").expect("an epoch of eve's own");
    assert_eq!(rest, gap("").split_once('\n').expect("two lines").1);
    assert!(!found.contains(&epoch));
}

// The program

async fn stats(hub: &Hub) -> Value {
    let response = hub.client.get(hub.url(&["stats"])).send().await;
    let stats = response.expect("a response").json().await;
    stats.expect("JSON")
}

#[tokio::test]
async fn without_a_history_the_hub_sends_no_ids() {
    for args in [
        &["--history", "0"][..],
        &["--history", "0", "--linger-ms", "1"],
    ] {
        let process = Process::start(args).await;
        let hub = &process.hub;
        let open = hub
            .client
            .get(hub.url(&["users", "ann", "streams", "text"]));
        let open = open.send().await.expect("a response");
        hub.send("ann", "hello").await;
        hub.post(&["users", "ann", "end"]).await;
        let text = within("the end", open.text()).await.expect("UTF-8");
        let text = text.strip_prefix(":\n").unwrap_or(&text);
        assert_eq!(text, "event: text\ndata: hello\n\n", "{args:?}");
        assert_eq!(stats(hub).await["away"], 0);
    }
}

/// The program's streams begin with how long to wait.
fn without_retry(text: &str) -> &str {
    let (retry, rest) = text.split_once('\n').expect("a line");
    assert!(retry.starts_with("retry: 1"), "{text}");
    rest
}

#[tokio::test]
async fn the_hub_keeps_a_history_for_the_time_it_is_given() {
    let kept = Process::start(&["--history", "2"]).await;
    let forgotten = Process::start(&["--history", "2", "--linger-ms", "100"]).await;
    let mut ids = Vec::new();
    for hub in [&kept.hub, &forgotten.hub] {
        let cursor = stream(hub, "ann", &Says::default()).await;
        let id = without_retry(&cursor).strip_prefix("id: ").expect("an id");
        ids.push(id.trim_end().to_owned());
    }
    let epoch = ids[0].strip_suffix("-0").expect("nothing was sent");
    for number in 1..=3 {
        kept.hub.send("ann", &format!("ann {number}")).await;
    }
    let found = stream(&kept.hub, "ann", &header(&ids[0])).await;
    let evicted = "event: gap\ndata: {\"reason\":\"evicted\",\"missed\":1}\n\n";
    let expected = format!("id: {epoch}-1\n{evicted}{}", after(epoch, 1));
    assert_eq!(without_retry(&found), expected);

    // Sweeps find it. A check by a new connection would keep the user.
    let gone = async {
        while stats(&forgotten.hub).await["away"] != 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("the end of the linger", gone).await;
    forgotten.hub.send("ann", "to nobody").await;
    let found = stream(&forgotten.hub, "ann", &header(&ids[1])).await;
    assert!(
        found.contains(r#"{"reason":"epoch","missed":null}"#),
        "{found}"
    );
    assert!(!found.contains("nobody"), "{found}");
    assert!(!found.contains(&*ids[1]), "an epoch of its own: {found}");
    assert_eq!(stats(&kept.hub).await["away"], 1);
}

/// A client of the stream of this kind, of a user of that name.
async fn reader(hub: &Hub, kind: &str) -> SseClient {
    let url = hub.url(&["users", kind, "streams", kind]);
    let addrs = url.socket_addrs(|| None).expect("an address");
    let opened = SseRequest::get(url.path()).connect(addrs[0]).await;
    opened.expect("a stream")
}

/// Sends events with these numbers.
async fn publish(hub: &Hub, kind: &str, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        let event = match kind {
            "agui" => json!({ "type": "CUSTOM", "name": "n", "value": number }),
            _ => {
                json!({ "message": { "messageId": number.to_string(), "role": "ROLE_AGENT", "parts": [] } })
            }
        };
        let request = hub.client.post(hub.url(&["users", kind, "events", kind]));
        let response = request.json(&event).send().await.expect("a response");
        assert_eq!(response.status(), 200, "{kind}");
    }
}

/// The numbers of the next events.
async fn numbers(client: &mut SseClient, count: usize) -> Vec<u64> {
    let events = client.collect(count).await;
    let number = |event: &Message| {
        let event: Value = event.json();
        let of_agui = event["value"].as_u64();
        let of_a2a = || event["message"]["messageId"].as_str()?.parse().ok();
        of_agui.or_else(of_a2a).expect("a number")
    };
    events.iter().map(number).collect()
}

#[tokio::test]
async fn streams_of_agui_and_a2a_resume_or_tell_of_a_gap() {
    let process = Process::start(&["--history", "3"]).await;
    let hub = &process.hub;
    for kind in ["agui", "a2a"] {
        let cut = async || assert_eq!(hub.post(&["users", kind, "drop"]).await["dropped"], 1);
        let mut client = reader(hub, kind).await;
        // Before its first event.
        let has_id = async {
            while client.last_event_id().is_empty() {
                client.next_item().await;
            }
        };
        within("an id", has_id).await;
        cut().await;
        publish(hub, kind, 1..=2).await;
        client.reconnect().await.expect("a stream");
        assert_eq!(numbers(&mut client, 2).await, [1, 2], "{kind}");

        cut().await;
        publish(hub, kind, 3..=5).await;
        client.reconnect().await.expect("a stream");
        assert_eq!(numbers(&mut client, 3).await, [3, 4, 5], "{kind}");
        client.assert_no_gap();

        // One more than is kept.
        cut().await;
        publish(hub, kind, 6..=9).await;
        client.reconnect().await.expect("a stream");
        let gap = client.next().await.gap().expect("a gap");
        assert_eq!((&*gap.reason, gap.missed), ("evicted", Some(1)), "{kind}");
        assert_eq!(numbers(&mut client, 3).await, [7, 8, 9], "{kind}");
    }
}
