//! Services with the same scope in two databases of a server.

use tidings::UserId;
use tidings::backplane::{Backplane, Event};
use tidings_redis::{Redis, Settings};

use super::{Events, kept, once, publish, until};
use crate::support::redis::{Server, url};

/// A node that hears Ann's channel in this database.
async fn node_in(server: &Server, settings: Settings, database: u8) -> (Redis, Events) {
    let url = format!("{}/{database}", url(server.address()));
    let node = Redis::connect(url, settings).await.expect("it connects");
    let mut events = node.events();
    let ann = UserId::from("ann");
    let interest = node.set_interest(std::slice::from_ref(&ann), &[]);
    interest.await.expect("it is open");
    until(&mut events, "ann is ready", |event| {
        *event == Event::Ready(vec![ann.clone()])
    })
    .await;
    (node, events)
}

/// The next message, and nothing foreign before it.
async fn next(events: &mut Events) -> String {
    let event = until(events, "a message", |event| {
        matches!(event, Event::Message(_) | Event::Foreign)
    });
    match event.await {
        Event::Message(received) => String::from_utf8_lossy(&received.body).into_owned(),
        foreign => format!("{foreign:?}"),
    }
}

/// Pub/sub knows no databases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_in_two_databases_do_not_hear_each_other() {
    for [first, second] in [[once(), once()], [kept(), kept()], [once(), kept()]] {
        let server = Server::start(&[]);
        let (zero, mut of_zero) = node_in(&server, first, 0).await;
        let (one, mut of_one) = node_in(&server, second.clone(), 1).await;
        let (_other, mut of_other) = node_in(&server, second, 1).await;
        publish(&zero, 1).await;
        publish(&one, 2).await;
        publish(&zero, 3).await;
        publish(&one, 4).await;
        for (events, expected) in [
            (&mut of_zero, ["1", "3"]),
            (&mut of_one, ["2", "4"]),
            (&mut of_other, ["2", "4"]),
        ] {
            for expected in expected {
                assert_eq!(next(events).await, expected);
            }
        }
    }
}
