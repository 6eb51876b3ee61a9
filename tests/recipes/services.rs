//! Three small services: each example does what it says.

use std::collections::VecDeque;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use crate::support::decoder::{Decoder, Dispatched};

#[allow(dead_code, reason = "its main is the example's")]
#[path = "../../examples/chat/src/main.rs"]
mod chat;
#[allow(dead_code, reason = "its main is the example's")]
#[path = "../../examples/orders/src/main.rs"]
mod orders;
#[allow(dead_code, reason = "its main is the example's")]
#[path = "../../examples/runs/src/main.rs"]
mod runs;

async fn ask(app: &Router, method: &str, path: &str, last: &str, body: &str) -> Response<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !last.is_empty() {
        request = request.header("last-event-id", last);
    }
    let request = request
        .body(Body::from(body.to_owned()))
        .expect("a request");
    let response = app.clone().oneshot(request).await;
    response.expect("a router never fails")
}

async fn status(app: &Router, method: &str, path: &str, body: &str) -> StatusCode {
    ask(app, method, path, "", body).await.status()
}

/// The events of a stream.
struct Events {
    body: Body,
    decoder: Decoder,
    unread: VecDeque<Dispatched>,
}

impl Events {
    async fn open(app: &Router, path: &str, last: &str) -> Self {
        let response = ask(app, "GET", path, last, "").await;
        assert_eq!(response.status(), StatusCode::OK);
        Self {
            body: response.into_body(),
            decoder: Decoder::default(),
            unread: VecDeque::new(),
        }
    }

    /// The next event, `None` at the end. Time is paused: the bound is reached when nothing else can happen.
    async fn next(&mut self) -> Option<Dispatched> {
        while self.unread.is_empty() {
            let chunk = tokio::time::timeout(Duration::from_secs(10), self.body.frame());
            let chunk = chunk.await.expect("an event within 10 seconds")?;
            let chunk = chunk.expect("the body is whole");
            self.decoder.push(&chunk.into_data().expect("no trailers"));
            self.unread.extend(self.decoder.take());
        }
        self.unread.pop_front()
    }

    async fn event(&mut self) -> Dispatched {
        self.next().await.expect("the stream is open")
    }

    /// Kind, room, user and text of the next event of a chat.
    async fn said(&mut self) -> String {
        let event = self.event().await;
        let json: Value = serde_json::from_str(&event.data).expect("JSON");
        let field = |name: &str| json[name].as_str().expect("text").to_owned();
        let [room, user, text] = ["room", "user", "text"].map(field);
        format!("{} {room} {user} {text}", event.event)
    }
}

#[tokio::test(start_paused = true)]
async fn chat_a_room_reaches_its_members_and_nobody_else() {
    let chat = chat::Chat::new(["lobby", "kitchen"]).expect("sound settings");
    let hub = chat.hub.clone();
    let app = chat::router(chat);
    let mut ann = Events::open(&app, "/ann/events", "").await;
    let mut bob = Events::open(&app, "/bob/events", "").await;

    assert_eq!(
        status(&app, "PUT", "/ann/rooms/lobby", "").await,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        status(&app, "PUT", "/bob/rooms/kitchen", "").await,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        status(&app, "PUT", "/ann/rooms/cellar", "").await,
        StatusCode::NOT_FOUND
    );
    // Who is no member says nothing.
    assert_eq!(
        status(&app, "POST", "/bob/rooms/lobby", "hi").await,
        StatusCode::FORBIDDEN
    );
    status(&app, "POST", "/ann/rooms/lobby", "anybody?").await;
    status(&app, "PUT", "/bob/rooms/lobby", "").await;
    // A second time is no news.
    status(&app, "PUT", "/bob/rooms/lobby", "").await;
    status(&app, "POST", "/bob/rooms/lobby", "me").await;

    assert_eq!(ann.said().await, "joined lobby ann ");
    assert_eq!(ann.said().await, "said lobby ann anybody?");
    assert_eq!(ann.said().await, "joined lobby bob ");
    assert_eq!(ann.said().await, "said lobby bob me");
    assert_eq!(bob.said().await, "joined kitchen bob ");
    assert_eq!(bob.said().await, "joined lobby bob ");

    // That somebody is typing is told to those who are there.
    status(&app, "POST", "/bob/rooms/lobby/typing", "").await;
    let typing = ann.event().await;
    assert_eq!(typing.event, "typing");
    let position = hub.position("ann").expect("there is a history");
    assert_eq!(typing.id, position.as_str(), "that of what was said last");

    // Who leaves sees that, and nothing of the room after it. Who is away gets it later.
    let last = ann.event_id_after_leave(&app).await;
    status(&app, "POST", "/bob/rooms/lobby", "gone?").await;
    status(&app, "PUT", "/ann/rooms/lobby", "").await;
    let mut ann = Events::open(&app, "/ann/events", &last).await;
    assert_eq!(ann.said().await, "joined lobby ann ");
}

impl Events {
    /// The id of the event that says that Ann has left. Her stream is closed then.
    async fn event_id_after_leave(mut self, app: &Router) -> String {
        status(app, "DELETE", "/ann/rooms/lobby", "").await;
        let left = self.event().await;
        assert_eq!(left.event, "left");
        left.id
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_members_see_a_room_in_one_order_while_others_come_and_go() {
    const TALKERS: usize = 4;
    const SAID: usize = 40;
    let chat = chat::Chat::new(["lobby"]).expect("sound settings");
    let app = chat::router(chat);
    let mut readers = [
        Events::open(&app, "/ann/events", "").await,
        Events::open(&app, "/bob/events", "").await,
    ];
    for user in ["ann", "bob"] {
        status(&app, "PUT", &format!("/{user}/rooms/lobby"), "").await;
    }
    let talkers = (0..TALKERS).map(|talker| {
        let app = app.clone();
        tokio::spawn(async move {
            let room = format!("/t{talker}/rooms/lobby");
            for n in 0..SAID / 10 {
                status(&app, "PUT", &room, "").await;
                for m in 0..5 {
                    let said = status(&app, "POST", &room, &format!("{n}.{m}")).await;
                    assert_eq!(said, StatusCode::NO_CONTENT);
                }
                status(&app, "DELETE", &room, "").await;
            }
        })
    });
    for talker in talkers.collect::<Vec<_>>() {
        talker.await.expect("no talker panics");
    }
    status(&app, "POST", "/ann/rooms/lobby", "end").await;
    let mut seen = [Vec::new(), Vec::new()];
    for (reader, seen) in readers.iter_mut().zip(&mut seen) {
        while seen
            .last()
            .is_none_or(|last: &String| !last.ends_with(" end"))
        {
            let event = reader.said().await;
            // Bob joined later than Ann.
            if !event.starts_with("joined lobby ann") {
                seen.push(event);
            }
        }
    }
    // Both joined; of each talker four times a join, five messages and a departure; the end.
    assert_eq!(seen[0].len(), 1 + TALKERS * 4 * 7 + 1);
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test(start_paused = true)]
async fn runs_every_reader_gets_the_whole_run_once_then_its_end() {
    let hub = runs::hub().expect("sound settings");
    let app = runs::router(hub.clone());
    let prompt = "one two three four";
    let started = ask(&app, "POST", "/runs", "", prompt).await;
    assert_eq!(started.status(), StatusCode::CREATED);
    let id = started
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    let path = format!("/runs/{}/events", String::from_utf8_lossy(&id));

    // Cut after two tokens, and continued; beside it a page that is reloaded.
    let mut cut = Events::open(&app, &path, "").await;
    let mut text = cut.event().await.data;
    let second = cut.event().await;
    text += &second.data;
    drop(cut);
    let mut again = Events::open(&app, &path, &second.id).await;
    let mut reloaded = Events::open(&app, &path, "").await;
    let mut last = String::new();
    let mut whole = String::new();
    for (reader, text) in [(&mut again, &mut text), (&mut reloaded, &mut whole)] {
        while let Some(event) = reader.next().await {
            if event.event != "done" {
                *text += &event.data;
            }
            last = event.id;
        }
        assert_eq!(text, prompt);
    }

    // A browser comes back after the end; a reader who comes late gets it all.
    let after = ask(&app, "GET", &path, &last, "").await;
    assert_eq!(after.status(), StatusCode::NO_CONTENT);
    let mut late = Events::open(&app, &path, "").await;
    let mut names = Vec::new();
    while let Some(event) = late.next().await {
        names.push(event.event);
    }
    assert_eq!(names, ["message", "message", "message", "message", "done"]);
    drop((again, reloaded, late));

    // Then it is forgotten, and others never were.
    tokio::time::sleep(Duration::from_secs(62)).await;
    assert_eq!(status(&app, "GET", &path, "").await, StatusCode::NOT_FOUND);
    assert_eq!(
        status(&app, "GET", "/runs/1/events", "").await,
        StatusCode::NOT_FOUND
    );
    assert_eq!(hub.total_connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn orders_resume_by_the_numbers_of_the_table_also_after_a_restart() {
    let before = orders::Orders::default();
    let app = orders::router(before.clone());
    status(&app, "POST", "/ann/events", "7 is paid").await;
    status(&app, "POST", "/bob/events", "8 is paid").await;

    let mut ann = Events::open(&app, "/ann/events", "").await;
    let paid = ann.event().await;
    assert_eq!((&*paid.id, &*paid.data), ("1", "7 is paid"));
    status(&app, "POST", "/ann/events", "7 is packed").await;
    assert_eq!(ann.event().await.id, "2");
    drop(ann);
    status(&app, "POST", "/ann/events", "7 is shipped").await;

    // Another process: the table is the same, the hub is new, nobody is connected.
    let mut after = orders::Orders::default();
    after.table = before.table;
    let app = orders::router(after);
    let mut ann = Events::open(&app, "/ann/events", "2").await;
    let shipped = ann.event().await;
    assert_eq!((&*shipped.id, &*shipped.data), ("3", "7 is shipped"));
    // An id of something else is no error.
    let mut foreign = Events::open(&app, "/ann/events", "a-1").await;
    assert_eq!(foreign.event().await.id, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_come_once_and_in_order_to_streams_opened_while_they_are_inserted() {
    const EVENTS: usize = 200;
    let app = orders::router(orders::Orders::default());
    let writer = app.clone();
    let writer = tokio::spawn(async move {
        for n in 1..=EVENTS {
            status(&writer, "POST", "/ann/events", &n.to_string()).await;
            tokio::task::yield_now().await;
        }
    });
    // Each stream is cut after three events. One that was too slow for its ring ends by itself.
    let mut last = 0;
    while last < EVENTS {
        let mut stream = Events::open(&app, "/ann/events", &last.to_string()).await;
        for _ in 0..3.min(EVENTS - last) {
            let Some(event) = stream.next().await else {
                break;
            };
            assert_eq!(event.id, (last + 1).to_string());
            assert_eq!(event.data, event.id);
            last += 1;
        }
    }
    assert_eq!(last, EVENTS);
    writer.await.expect("the writer does not panic");
}
