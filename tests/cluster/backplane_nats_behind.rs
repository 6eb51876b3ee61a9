//! A server that answers for the log and is behind, and a log that is another one: a node that takes one for the other loses
//! events in silence, or shows them twice.
//!
//! A node's questions to JetStream go through the test, which changes the answers: the server that it names is one of three,
//! and may lack the newest messages.

use std::net::SocketAddr;
use std::pin::Pin;
use std::slice::from_ref;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Subject};
use futures_util::future::join_all;
use futures_util::{Stream, StreamExt};
use serde_json::{Value, json};
use tidings::UserId;
use tidings::backplane::{Backplane, Cause, Event, Message, Missing, Position, Published};
use tidings_nats::{Log, Nats, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::support::nats::Server;

/// Nothing that has to happen takes so long.
const BOUND: Duration = Duration::from_secs(30);

/// What the server is that answers.
#[derive(Debug, Clone)]
struct Answering {
    name: &'static str,
    /// So many of the newest messages it does not have.
    lacks: u64,
    /// Where it has another message.
    replaced: Option<u64>,
    /// What another server has that answers for several messages, and which of them the node does not get.
    copy: Vec<u64>,
    dropped: Option<u64>,
    /// That copy is one of another log.
    is_other: bool,
    /// Nobody answers for several messages, and how often somebody was asked.
    is_silent: bool,
    asked: usize,
}

impl Answering {
    fn new(name: &'static str, lacks: u64) -> Self {
        Self {
            name,
            lacks,
            replaced: None,
            copy: Vec::new(),
            dropped: None,
            is_other: false,
            is_silent: false,
            asked: 0,
        }
    }
}

struct Scene {
    node: Nats,
    events: Pin<Box<dyn Stream<Item = Event> + Send>>,
    answering: Arc<Mutex<Answering>>,
    /// How often it was asked about the stream.
    asked: watch::Receiver<u64>,
    server: Server,
}

impl Scene {
    async fn new() -> Self {
        Self::with(Log::new("TEST")).await
    }

    async fn with(log: Log) -> Self {
        let server = Server::start();
        let answering = Arc::new(Mutex::new(Answering::new("s0", 0)));
        let (count, asked) = watch::channel(0);
        let address = server.address();
        tokio::spawn(answer(
            client(&server).await,
            address,
            answering.clone(),
            count,
        ));
        let settings = Settings::new("test")
            .buckets(16)
            .timeout(Duration::from_secs(2))
            .wait_for_server(BOUND)
            .replayable(log.domain("asked"));
        let node = Nats::connect(&server.url(), options(), settings).await;
        let node = node.expect("it connects");
        Self {
            events: node.events(),
            node,
            answering,
            asked,
            server,
        }
    }

    fn answer_as(&self, name: &'static str, lacks: u64) {
        *self.answering.lock().expect("nobody panics") = Answering::new(name, lacks);
    }

    /// The node has looked at the stream as it is now.
    async fn is_looked_at(&mut self) {
        let now = *self.asked.borrow();
        let asked = self.asked.wait_for(|asked| *asked >= now + 3);
        timeout(BOUND, asked)
            .await
            .expect("in time")
            .expect("it answers");
    }

    /// The next event that says something of the log.
    async fn next(&mut self) -> Event {
        let next = async {
            loop {
                let event = self.events.next().await.expect("the node is open");
                let is_it = matches!(
                    event,
                    Event::Changed { .. } | Event::Reset(_) | Event::Restored { .. }
                );
                if is_it {
                    return event;
                }
            }
        };
        timeout(BOUND, next).await.expect("it happens")
    }

    async fn publish(&self, user: &UserId, id: u128) -> Published {
        let message = Message {
            user: user.clone(),
            id,
            body: format!("message {id}").into(),
        };
        let published = timeout(BOUND, self.node.publish(from_ref(&message))).await;
        let published = published.expect("in time").expect("the server is there");
        published.into_iter().next().expect("an outcome")
    }

    fn horizon(&self) -> u64 {
        self.node.horizon().expect("there is a log").offset
    }

    async fn position(&self, user: &UserId, id: u128) -> Position {
        match self.publish(user, id).await {
            Published::Accepted(Some(position)) => position,
            other => panic!("{other:?}"),
        }
    }

    /// The log of the one server is again what it was when it was copied.
    async fn lose_since_copy(&mut self) {
        self.server.lose_log_since_copy();
        self.server.restart();
    }
}

fn options() -> ConnectOptions {
    ConnectOptions::new()
        .ignore_discovered_servers()
        .reconnect_delay_callback(|_| Duration::from_millis(50))
}

async fn client(server: &Server) -> Client {
    let client = options().connect(server.url()).await;
    client.expect("it connects")
}

/// Passes a node's questions to JetStream on, and changes the answers about the stream.
async fn answer(
    client: Client,
    address: SocketAddr,
    answering: Arc<Mutex<Answering>>,
    count: watch::Sender<u64>,
) {
    let mut questions = client.subscribe("$JS.asked.API.>").await.expect("it can");
    while let Some(question) = questions.next().await {
        let subject = question.subject.replacen("$JS.asked.API", "$JS.API", 1);
        let mut body: Value = serde_json::from_slice(&question.payload).unwrap_or(Value::Null);
        if let Some(replicas) = body.get_mut("num_replicas") {
            *replicas = json!(1);
        }
        let payload = match &body {
            Value::Null => question.payload,
            body => body.to_string().into(),
        };
        if subject.contains("DIRECT.GET") {
            let reply = question.reply.expect("it is a question");
            let answering = {
                let mut answering = answering.lock().expect("nobody panics");
                answering.asked += 1;
                answering.clone()
            };
            if !answering.is_silent {
                answer_batch(&client, address, reply, &body, answering).await;
            }
            continue;
        }
        let Ok(answer) = client.request(subject.clone(), payload).await else {
            continue;
        };
        let mut payload = answer.payload;
        if ["INFO", "CREATE", "UPDATE"]
            .iter()
            .any(|what| subject.contains(what))
        {
            let mut info: Value = serde_json::from_slice(&payload).expect("JSON");
            if info.get("state").is_some() {
                let Answering { name, lacks, .. } =
                    answering.lock().expect("nobody panics").clone();
                info["config"]["num_replicas"] = json!(3);
                info["cluster"] = json!({"name": "three", "leader": name, "replicas": []});
                let last = info["state"]["last_seq"].as_u64().expect("a number");
                info["state"]["last_seq"] = json!(last - lacks);
            }
            payload = info.to_string().into();
            count.send_modify(|count| *count += 1);
        }
        let replaced = answering.lock().expect("nobody panics").replaced;
        if let Some(replaced) = replaced.filter(|_| subject.contains("MSG.GET")) {
            let mut answer: Value = serde_json::from_slice(&payload).expect("JSON");
            if answer["message"]["seq"] == json!(replaced) {
                answer["message"]["hdrs"].take();
                answer["message"]["time"] = json!("2026-01-01T00:00:00Z");
                payload = answer.to_string().into();
            }
        }
        let reply = question.reply.expect("it is a question");
        client.publish(reply, payload).await.expect("it can");
    }
}

/// Answers as NATS 2.11 does, for a copy of the stream.
async fn answer_batch(
    client: &Client,
    address: SocketAddr,
    reply: Subject,
    question: &Value,
    answering: Answering,
) {
    let js = async_nats::jetstream::new(client.clone());
    let stream = js.get_stream("TEST").await.expect("it is there");
    let from = question["seq"].as_u64().expect("a number");
    let mut previous = 0;
    for offset in answering.copy.into_iter().filter(|offset| *offset >= from) {
        let message = stream.get_raw_message(offset).await.expect("it is there");
        assert_eq!(question["next_by_subj"], json!(*message.subject));
        let mut headers = message.headers;
        headers.insert("Nats-Stream", "TEST");
        headers.insert("Nats-Subject", &*message.subject);
        headers.insert("Nats-Sequence", offset.to_string());
        headers.insert("Nats-Time-Stamp", &*time_of(client, offset).await);
        headers.insert("Nats-Last-Sequence", previous.to_string());
        let mut payload = message.payload;
        if answering.is_other {
            headers.insert("Nats-Time-Stamp", "2026-01-01T00:00:00Z");
            payload = "of another log".into();
        }
        previous = offset;
        if answering.dropped != Some(offset) {
            let sent = client.publish_with_headers(reply.clone(), headers, payload);
            sent.await.expect("it can");
        }
    }
    client.flush().await.expect("it can");
    let status = match previous {
        0 => "404 Message Not Found",
        _ => "204 EOB",
    };
    // The client has no words for it.
    let header = format!("NATS/1.0 {status}\r\n\r\n");
    let len = header.len();
    let text = format!(
        "CONNECT {{\"verbose\":false,\"headers\":true}}\r\nHPUB {reply} {len} {len}\r\n{header}\r\nPING\r\n"
    );
    let mut server = TcpStream::connect(address).await.expect("it listens");
    server.write_all(text.as_bytes()).await.expect("it reads");
    let mut said = String::new();
    while !said.contains("PONG") {
        let mut bytes = [0; 4096];
        let count = server.read(&mut bytes).await.expect("it answers");
        assert!(count > 0, "{said}");
        said += &String::from_utf8_lossy(&bytes[..count]);
    }
}

/// When the stream took a message, as a server writes it.
async fn time_of(client: &Client, offset: u64) -> String {
    let question = json!({"seq": offset}).to_string();
    let answer = client.request("$JS.API.STREAM.MSG.GET.TEST", question.into());
    let answer = answer.await.expect("it answers").payload;
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    let time = answer["message"]["time"].as_str();
    time.expect("it is there").to_owned()
}

/// Whatever a copy lacks, or the client drops of it.
#[tokio::test]
async fn what_a_copy_of_the_log_lacks_is_read_from_its_leader() {
    let scene = Scene::new().await;
    let ann = UserId::from("ann");
    let seen = scene.position(&ann, 1).await;
    let mut all = Vec::new();
    for id in 2..=6 {
        all.push(scene.position(&ann, id).await);
    }
    let offsets: Vec<u64> = all.iter().map(|position| position.offset).collect();
    let copies = [
        (&offsets[..], None, false),
        (&offsets[..3], None, false),
        (&offsets[..1], None, false),
        (&offsets[2..], None, false),
        (&offsets[..], Some(offsets[2]), false),
        (&offsets[..], None, true),
        (&[], None, false),
    ];
    for (copy, dropped, is_other) in copies {
        let mut answering = Answering::new("s0", 0);
        (answering.copy, answering.dropped) = (copy.to_vec(), dropped);
        answering.is_other = is_other;
        *scene.answering.lock().expect("nobody panics") = answering;
        let read = scene.node.fetch(&ann, seen, 10).await.expect("it is there");
        let places: Vec<_> = read.messages.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, all, "of a copy that has {copy:?}");
        let mut bodies = read.messages.iter().map(|(_, body)| body);
        assert!(bodies.all(|body| body.starts_with(b"message")));
        assert!(read.is_complete());
        assert_eq!(read.missing, Missing::Nothing);
    }
}

/// Users who have each three messages, and the place of the first one.
async fn users(scene: &Scene) -> Vec<(UserId, Position)> {
    let mut users = Vec::new();
    for number in 0..16 {
        let user = UserId::from(format!("user-{number}"));
        let first = scene.position(&user, number * 4 + 1).await;
        for id in 2..=3 {
            scene.position(&user, number * 4 + id).await;
        }
        users.push((user, first));
    }
    users
}

/// Reads what these users have behind the first message. Returns how often somebody was asked for several messages until then.
async fn asked_for_several(scene: &Scene, users: &[(UserId, Position)]) -> usize {
    let reads = users
        .iter()
        .map(|(user, first)| scene.node.fetch(user, *first, 10));
    for read in join_all(reads).await {
        assert_eq!(read.expect("it is there").messages.len(), 2);
    }
    scene.answering.lock().expect("nobody panics").asked
}

#[tokio::test]
async fn servers_that_may_have_no_answer_of_several_messages_are_asked_once() {
    let scene = Scene::new().await;
    let users = users(&scene).await;
    scene.answering.lock().expect("nobody panics").is_silent = true;
    assert_eq!(asked_for_several(&scene, &users).await, 1);
    assert_eq!(asked_for_several(&scene, &users).await, 1, "a minute long");
}

/// Each takes a subscription.
#[tokio::test]
async fn few_answers_of_several_messages_are_asked_for_at_the_same_time() {
    let scene = Scene::new().await;
    let users = users(&scene).await;
    let offset = users[0].1.offset;
    scene.answering.lock().expect("nobody panics").copy = vec![offset + 1, offset + 2];
    assert_eq!(asked_for_several(&scene, &users[..1]).await, 1);
    scene.answering.lock().expect("nobody panics").is_silent = true;
    assert_eq!(asked_for_several(&scene, &users).await, 1 + 4);
}

/// A place of which nothing is left shows nothing, as long as the newest one is what it was.
#[tokio::test]
async fn a_leader_that_lagged_and_dropped_old_messages_has_the_same_log() {
    let mut scene = Scene::with(Log::new("TEST").max_per_user(2)).await;
    let ann = UserId::from("ann");
    scene.position(&ann, 1).await;
    scene.is_looked_at().await;
    scene.answer_as("s1", 1);
    for id in 2..=4 {
        scene.position(&ann, id).await;
    }
    scene.is_looked_at().await;
    scene.answer_as("s1", 0);
    let event = scene.next().await;
    assert!(matches!(event, Event::Changed { .. }), "{event:?}");
}

#[tokio::test]
async fn a_node_waits_for_a_leader_that_lags() {
    let mut scene = Scene::new().await;
    let ann = UserId::from("ann");
    let first = scene.position(&ann, 1).await;
    for id in 2..=5 {
        scene.position(&ann, id).await;
    }
    scene.answer_as("s1", 2);
    scene.is_looked_at().await;
    for _ in 0..3 {
        let read = scene.node.fetch(&ann, first, 10).await;
        read.expect_err("what it answers may lack something");
        let heads = scene.node.heads(from_ref(&ann)).await;
        heads.expect_err("what it answers may lack something");
    }
    scene.answer_as("s1", 0);
    let event = scene.next().await;
    assert_eq!(
        event,
        Event::Changed {
            cause: Cause::Leader
        }
    );
    let read = scene
        .node
        .fetch(&ann, first, 10)
        .await
        .expect("it is there");
    assert_eq!((read.messages.len(), read.head.epoch), (4, first.epoch));
    let head = scene.node.heads(from_ref(&ann)).await.expect("it is there");
    assert_eq!(head[0].newest.offset, first.offset + 4);
}

/// The server that led before does not know yet that it does not.
#[tokio::test]
async fn an_answer_of_a_server_that_was_not_found_to_lead_does_not_count() {
    let mut scene = Scene::new().await;
    let ann = UserId::from("ann");
    let first = scene.position(&ann, 1).await;
    scene.is_looked_at().await;
    scene.answer_as("s1", 0);
    let read = scene.node.fetch(&ann, first, 10).await;
    read.expect_err("it was not looked at yet");
    assert!(matches!(scene.next().await, Event::Changed { .. }));
    scene.node.fetch(&ann, first, 10).await.expect("now it was");
}

#[tokio::test]
async fn a_log_that_has_other_messages_where_it_had_some_is_another_log() {
    let mut scene = Scene::new().await;
    let ann = UserId::from("ann");
    scene.position(&ann, 1).await;
    scene.server.copy_log();
    scene.server.restart();
    assert!(matches!(scene.next().await, Event::Restored { .. }));
    let last = scene.position(&ann, 2).await;
    scene.server.lose_log_since_copy();
    scene.server.restart();
    // It is as long as it was before anybody looks.
    let others = client(&scene.server).await;
    let js = async_nats::jetstream::new(others);
    let body = "of somebody else".into();
    let ack = js.publish("test.log.16.1.bob", body).await.expect("sent");
    assert_eq!(ack.await.expect("stored").sequence, last.offset);
    let event = scene.next().await;
    let Event::Reset(end) = event else {
        panic!("{event:?}");
    };
    assert_ne!(end.epoch, last.epoch);
}

/// A server that lacked some of it has led between two looks, and the log has grown since.
#[tokio::test]
async fn a_log_whose_past_is_replaced_while_nobody_looks_is_another_log() {
    let mut scene = Scene::new().await;
    let ann = UserId::from("ann");
    let known = scene.position(&ann, 1).await;
    scene.is_looked_at().await;
    scene.answering.lock().expect("nobody panics").replaced = Some(known.offset);
    scene.position(&ann, 2).await;
    let event = scene.next().await;
    let Event::Reset(end) = event else {
        panic!("{event:?}");
    };
    assert_ne!(end.epoch, known.epoch);
}

#[tokio::test]
async fn a_log_that_comes_back_shorter_in_a_cluster_is_another_log_in_the_end() {
    let mut scene = Scene::new().await;
    let ann = UserId::from("ann");
    let first = scene.position(&ann, 1).await;
    scene.server.copy_log();
    scene.server.restart();
    assert!(matches!(scene.next().await, Event::Restored { .. }));
    scene.position(&ann, 2).await;
    scene.position(&ann, 3).await;
    scene.lose_since_copy().await;
    assert!(matches!(scene.next().await, Event::Restored { .. }));
    // Such a place had another message. Whoever acknowledges it may be a server that knows nothing of that.
    for _ in 0..3 {
        let published = scene.publish(&ann, 4).await;
        assert!(matches!(published, Published::Unknown(_)), "{published:?}");
    }
    let event = scene.next().await;
    let Event::Reset(end) = event else {
        panic!("{event:?}");
    };
    assert_ne!(end.epoch, first.epoch);
    assert_eq!(end.offset, first.offset + 1, "with the one that was stored");
    let next = scene.position(&ann, 5).await;
    assert_eq!((next.epoch, next.offset), (end.epoch, end.offset + 1));
}

/// Its newest message is then where the known log had none.
#[tokio::test]
async fn a_log_that_grows_past_the_known_place_before_anybody_looks_is_another_log() {
    let mut scene = Scene::new().await;
    let ann = UserId::from("ann");
    let first = scene.position(&ann, 1).await;
    scene.server.copy_log();
    scene.server.restart();
    assert!(matches!(scene.next().await, Event::Restored { .. }));
    scene.position(&ann, 2).await;
    scene.position(&ann, 3).await;
    scene.lose_since_copy().await;
    assert!(matches!(scene.next().await, Event::Restored { .. }));
    let messages = [4, 5, 6, 7].map(|id| Message {
        user: format!("user {id}").into(),
        id,
        body: "of the new log".into(),
    });
    let published = timeout(BOUND, scene.node.publish(&messages)).await;
    let published = published.expect("in time").expect("the server is there");
    let of_last = &published[3];
    assert!(
        matches!(of_last, Published::Accepted(Some(at)) if at.offset == first.offset + 4),
        "{published:?}"
    );
    let event = scene.next().await;
    let Event::Reset(end) = event else {
        panic!("{event:?}");
    };
    assert_ne!(end.epoch, first.epoch);
}

#[tokio::test]
async fn a_restart_is_no_other_log() {
    let mut scene = Scene::new().await;
    let ann = UserId::from("ann");
    scene.position(&ann, 1).await;
    // The newest message is one of which the node knows only from the stream.
    let js = async_nats::jetstream::new(client(&scene.server).await);
    let body = "of somebody else".into();
    let ack = js.publish("test.log.16.1.bob", body).await.expect("sent");
    let newest = ack.await.expect("stored").sequence;
    let known = async {
        while scene.horizon() < newest {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(BOUND, known).await.expect("in time");
    for _ in 0..2 {
        scene.server.restart();
        assert!(matches!(scene.next().await, Event::Restored { .. }));
    }
    assert_eq!(scene.horizon(), newest);
}
