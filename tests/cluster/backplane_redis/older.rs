//! A server that has less than it had, and one of which nodes must not believe that.

use std::time::Duration;

use redis::FromRedisValue;
use tidings::UserId;
use tidings::backplane::{Backplane, Missing, Position, Published};
use tidings_redis::{Log, Redis, Settings};
use tokio::time::{Instant, sleep};

use super::{BOUND, is_reset, kept, kept_in_files, node, publish, until};
use crate::support::redis::{ALWAYS, Server};

async fn append(node: &Redis, number: u128) -> Position {
    match publish(node, number).await {
        Published::Accepted(Some(place)) => place,
        refused => panic!("{refused:?}"),
    }
}

async fn ask<T: FromRedisValue>(server: &Server, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    let mut connection = server.connection().await;
    let answer = command.query_async(&mut connection).await;
    answer.expect("the server answers")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_is_another_log_although_no_node_is_left_that_knew_more() {
    let mut server = Server::start(&[]);
    let (one, _events) = node(&server, kept()).await;
    append(&one, 1).await;
    server.command(&["SAVE"]).await;
    append(&one, 2).await;
    let last = append(&one, 3).await;
    drop(one);
    server.restart();
    let (other, _events) = node(&server, kept()).await;
    let stream = format!("{{test}}:{:016x}:l:ann", last.epoch);
    assert_eq!(ask::<u64>(&server, &["EXISTS", &stream]).await, 1, "a copy");
    // More than there were: a client that comes back is not ahead of the log.
    for number in 10..15 {
        append(&other, number).await;
    }
    let fetched = other.fetch(&UserId::from("ann"), last, 100).await;
    assert_eq!(fetched.unwrap().missing, Missing::Unknown);
    assert_ne!(other.horizon().unwrap().epoch, last.epoch);
    // The same process keeps its log.
    let (third, _events) = node(&server, kept()).await;
    assert_eq!(third.horizon(), other.horizon());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_said_to_be_durable_outlives_a_restart() {
    let mut server = Server::start(ALWAYS);
    let (one, _events) = node(&server, kept_in_files()).await;
    append(&one, 1).await;
    let last = append(&one, 2).await;
    drop(one);
    server.restart();
    let (other, _events) = node(&server, kept_in_files()).await;
    assert_eq!(other.horizon(), Some(last));
    let fetched = other.fetch(&UserId::from("ann"), last, 100).await;
    assert_eq!(fetched.unwrap().missing, Missing::Nothing);
}

/// How long a key lives yet, in milliseconds.
async fn until_left(server: &Server, key: &str, most: i64) {
    let begun = Instant::now();
    while ask::<i64>(server, &["PTTL", key]).await > most {
        assert!(begun.elapsed() < BOUND, "it does not expire");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_gets_a_message_late_does_not_end_the_log() {
    let server = Server::start(&[]);
    let log = Log::new().duplicate_window(Duration::from_secs(1));
    let settings = Settings::new("test").replayable(log);
    let (one, _events) = node(&server, settings.clone()).await;
    let place = append(&one, 1).await;
    let key = format!("{{test}}:{:016x}:i:{:032x}", place.epoch, 1);
    let (other, _others) = node(&server, settings).await;
    until_left(&server, &key, 400).await;
    append(&other, 1).await;
    // The log forgets the id, which this node has only just heard of.
    until_left(&server, &key, -1).await;
    other.heads(&[UserId::from("ann")]).await.unwrap();
    assert_eq!(other.horizon().unwrap().epoch, place.epoch);
}

/// Lets the server drop what expires, which a log's head does not.
async fn drop_keys(server: &Server, stream: &str) {
    let config = async |name, value| server.command(&["CONFIG", "SET", name, value]).await;
    config("maxmemory-policy", "volatile-random").await;
    config("maxmemory", "1").await;
    let begun = Instant::now();
    while ask::<u64>(server, &["EXISTS", stream]).await == 1 {
        assert!(begun.elapsed() < BOUND, "it is not dropped");
        sleep(Duration::from_millis(5)).await;
    }
    config("maxmemory", "0").await;
    config("maxmemory-policy", "noeviction").await;
}

/// How often nodes have called scripts.
async fn calls(server: &Server) -> u64 {
    let stats: String = ask(server, &["INFO", "commandstats"]).await;
    let of_scripts = stats.split("cmdstat_evalsha:calls=").nth(1);
    let count = of_scripts.and_then(|rest| rest.split(',').next());
    count
        .and_then(|count| count.parse().ok())
        .expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_of_which_the_server_has_dropped_keys_ends_once_for_all_nodes() {
    let server = Server::start(&[]);
    let (one, mut events) = node(&server, kept()).await;
    let (other, _others) = node(&server, kept()).await;
    let place = append(&one, 1).await;
    drop_keys(&server, &format!("{{test}}:{:016x}:l:ann", place.epoch)).await;
    until(&mut events, "it is told", is_reset).await;
    let new = one.horizon().unwrap();
    assert_ne!(new.epoch, place.epoch);
    // It hears of the new log before it looks at the server itself.
    let begun = Instant::now();
    while other.horizon() != Some(new) {
        assert!(begun.elapsed() < BOUND, "it does not hear of it");
        let _ = other.heads(&[UserId::from("ann")]).await;
        sleep(Duration::from_millis(1)).await;
    }
    // Each node looks once a second.
    let before = calls(&server).await;
    while calls(&server).await < before + 6 {
        assert!(begun.elapsed() < BOUND, "nobody looks");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((one.horizon(), other.horizon()), (Some(new), Some(new)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_were_dropped_while_no_node_was_there_end_the_log() {
    let server = Server::start(&[]);
    let (one, _events) = node(&server, kept()).await;
    let place = append(&one, 1).await;
    drop(one);
    drop_keys(&server, &format!("{{test}}:{:016x}:l:ann", place.epoch)).await;
    let (other, _events) = node(&server, kept()).await;
    assert_ne!(other.horizon().unwrap().epoch, place.epoch);
}
