//! Whatever a client says that it has seen, it gets its user's events, or a gap, and never another's.
//!
//! Each line of the input is a header, one that begins with `?` a query. `$A` stands for the epoch of the user's history, `$B` for that of another's.
#![no_main]

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use axum::extract::FromRequestParts;
use http::{HeaderValue, Request};
use libfuzzer_sys::fuzz_target;
use tidings::fuzzing::rewrite_id;
use tidings::{GapReason, GenericBroadcaster, History, LastEventId, Text};
use tokio_stream::Stream;

/// How many events each user was sent.
const EVENTS: u64 = 4;

struct Hub {
    hub: GenericBroadcaster<Text>,
    own: String,
    other: String,
}

thread_local! {
    static HUB: Hub = Hub::new();
}

impl Hub {
    fn new() -> Self {
        let hub = GenericBroadcaster::builder()
            .history(History::new(10))
            .build();
        let hub = hub.expect("the settings are valid");
        let epoch = |user: &str| {
            let cursor = hub
                .register(user)
                .expect("no cap")
                .cursor()
                .expect("there is a history");
            for number in 1..=EVENTS {
                let sent = hub.broadcast(user, &Text::new(format!("{user} {number}")));
                sent.expect("text can be encoded");
            }
            cursor.split('-').next().expect("an epoch").to_owned()
        };
        let (own, other) = (epoch("ann"), epoch("bob"));
        Self { hub, own, other }
    }

    /// What a client with this id gets.
    fn resume(&self, id: &LastEventId) -> Vec<Result<String, (GapReason, Option<u64>)>> {
        let mut stream = self.hub.resume("ann", id).expect("no cap");
        let mut items = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(item) = Pin::new(&mut stream).poll_next(&mut cx) {
            let item = item.expect("nobody ends it");
            items.push(
                item.map(|frame| frame.data())
                    .map_err(|gap| (gap.reason, gap.missed)),
            );
        }
        items
    }

    fn check(&self, id: &LastEventId, text: Option<&str>) {
        let got = self.resume(id);
        if id.is_none() {
            return assert_eq!(got, []);
        }
        let after = |seen: u64| -> Vec<_> {
            (seen + 1..=EVENTS)
                .map(|number| Ok(format!("ann {number}")))
                .collect()
        };
        let unknown = vec![Err((GapReason::Epoch, None))];
        match text.and_then(|text| self.seen(text)) {
            Some(seen) => assert_eq!(got, after(seen), "{text:?}"),
            // Who was told of a gap behind an id is not told again.
            None if text.is_some_and(is_told) => assert_eq!(got, [], "{text:?}"),
            None => assert_eq!(got, unknown, "{text:?}"),
        }
    }

    /// How many of the user's events are behind this id, if it is one of theirs.
    fn seen(&self, text: &str) -> Option<u64> {
        // What a client has that was told of a gap there.
        let text = text.strip_suffix('~').unwrap_or(text);
        let offset = text.strip_prefix(&self.own)?.strip_prefix('-')?;
        (0..=EVENTS).find(|seen| seen.to_string() == offset)
    }
}

fn is_told(text: &str) -> bool {
    text.ends_with('~') && rewrite_id(text).is_some()
}

fuzz_target!(|input: &[u8]| HUB.with(|hub| {
    let lines = input.split(|byte| *byte == b'\n');
    let lines = lines.map(|line| replace(line, b"$A", &hub.own));
    let lines: Vec<_> = lines
        .map(|line| replace(&line, b"$B", &hub.other))
        .collect();
    for line in &lines {
        if let Ok(text) = str::from_utf8(line) {
            let id = LastEventId::new(text);
            assert_eq!(id.is_none(), matches!(text, "" | "~"));
            hub.check(&id, Some(text));
            if let Some(again) = rewrite_id(text) {
                assert_eq!(again, text, "there are two ways to write an id");
            }
        }
    }
    request(hub, &lines);
}));

/// The same out of a request.
fn request(hub: &Hub, lines: &[Vec<u8>]) {
    let mut request = Request::builder();
    let mut headers = Vec::new();
    let mut query = None;
    for line in lines {
        match line.strip_prefix(b"?") {
            Some(rest) => query = Some(String::from_utf8_lossy(rest).into_owned()),
            None => headers.extend(HeaderValue::from_bytes(line)),
        }
    }
    for header in &headers {
        request = request.header("last-event-id", header);
    }
    let uri = query
        .as_ref()
        .map_or("/".to_owned(), |query| format!("/?{query}"));
    let Ok(request) = request.uri(uri).body(()) else {
        return;
    };
    let (mut parts, ()) = request.into_parts();
    let id = {
        let extract = pin!(LastEventId::from_request_parts(&mut parts, &()));
        let Poll::Ready(Ok(id)) = extract.poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("it never refuses and never waits");
        };
        id
    };
    let mut headers = headers.iter().filter(|value| !value.is_empty());
    let Some(first) = headers.next() else {
        // Whatever a query says, it is read as an id or as none.
        return drop(hub.resume(&id));
    };
    let text = first
        .to_str()
        .ok()
        .filter(|_| headers.all(|other| other == first));
    assert_eq!(id, text.map_or(LastEventId::unknown(), LastEventId::new));
    hub.check(&id, text);
}

fn replace(line: &[u8], name: &[u8; 2], with: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.windows(2).position(|two| two == name) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(with.as_bytes());
        rest = &rest[at + 2..];
    }
    out.extend_from_slice(rest);
    out
}
