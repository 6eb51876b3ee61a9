//! Third-party clients lose their connections to the example `agent_hub`, reconnect by themselves, and have every event, or
//! know exactly which ones they lack.

use std::ops::Range;

use futures_util::{StreamExt, stream};
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};

use crate::support::clients::{Clients, Heard, Users, stats, wait_for_connections};
use crate::support::hub::{Hub, within};
use crate::support::process::Process;

const CUTS: usize = 200;
const EVENTS: usize = 20_000;
/// Of fifty users.
const EACH: usize = EVENTS / 50;

/// One test at a time: together they would only wait for each other, and measure that.
async fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Publishes numbers to all users, and meanwhile cuts connections, one after the other, of users chosen at random. Nobody is
/// cut before their first event: the crate `eventsource-client` takes ids from events only, and whoever comes back without
/// one begins anew.
async fn publish_and_cut(hub: &Hub, clients: &mut Clients, users: &[String]) {
    publish(hub, users, 0..1).await;
    let is_first = |heard: &[Heard]| !heard.is_empty();
    clients.wait_for_all("the first event", is_first).await;
    let rest = EACH - 1;
    for round in 0..CUTS {
        let numbers = 1 + rest * round / CUTS..1 + rest * (round + 1) / CUTS;
        let cut = async {
            // Whoever is away has nothing to be cut.
            while !cut(hub, fastrand::choice(users).expect("there are users")).await {}
        };
        tokio::join!(publish(hub, users, numbers), within("a cut", cut));
    }
}

/// To each user in order, to many of them at once.
async fn publish(hub: &Hub, users: &[String], numbers: Range<usize>) {
    let to_user = async |user: &String| {
        for number in numbers.clone() {
            hub.send(user, &number.to_string()).await;
        }
    };
    stream::iter(users).for_each_concurrent(8, to_user).await;
}

/// Whether there was anything to cut.
async fn cut(hub: &Hub, user: &str) -> bool {
    hub.post(&["users", user, "drop"]).await["dropped"] == 1
}

fn number(id: &str) -> usize {
    let offset = id.rsplit_once('-').map(|(_, offset)| offset.parse());
    let offset = offset.unwrap_or_else(|| panic!("{id:?} is no id of ours"));
    offset.expect("an offset")
}

/// Follows what a client heard, event by event, and says how many events it saw and how many were announced as missing.
/// There may be nothing twice, nothing out of order, and no hole but for those that are announced, each with its size.
fn account(user: &str, heard: &[Heard]) -> (usize, usize) {
    let (mut seen, mut announced) = (0, 0);
    for item in heard {
        match &*item.event {
            "text" => {
                assert_eq!(
                    item.data,
                    (seen + announced).to_string(),
                    "{user}: {item:?}"
                );
                seen += 1;
            }
            "gap" => {
                let gap: Value = serde_json::from_str(&item.data).expect("JSON");
                assert!(
                    gap["reason"] == "evicted" || gap["reason"] == "lagged",
                    "{user}: {gap}"
                );
                let missed = gap["missed"].as_u64().expect("a number");
                assert_ne!(missed, 0, "{user}: {gap}");
                announced += usize::try_from(missed).expect("few");
            }
            other => panic!("{user}: {other}"),
        }
        // Events are counted from 1, and a gap's id is where the stream goes on.
        assert_eq!(number(&item.id), seen + announced, "{user}: {item:?}");
    }
    (seen, announced)
}

fn is_complete(heard: &[Heard]) -> bool {
    let last = (EACH - 1).to_string();
    heard.last().is_some_and(|heard| heard.data == last)
}

/// Three kinds of clients for fifty users.
fn fifty() -> Users {
    Users::new(4, 20, 26)
}

#[tokio::test]
async fn nothing_is_lost_or_twice_while_connections_are_cut() {
    let _alone = alone().await;
    let process = Process::start(&["--history", "500"]).await;
    let hub = &process.hub;
    let users = fifty();
    let mut clients = Clients::open(hub, &users).await;
    publish_and_cut(hub, &mut clients, &users.all()).await;
    let log = clients.wait_for_all("every event", is_complete).await;
    for (user, heard) in log {
        assert_eq!(account(user, heard), (EACH, 0), "{user}");
    }
    // Those who were cut last may have missed nothing, and be on their way back.
    wait_for_connections(hub, users.all().len()).await;
    let stats = stats(hub).await;
    assert_eq!(stats["broadcasts"], EVENTS);
    let registered = stats["registered"].as_u64().expect("a number");
    assert!(registered >= 50 + CUTS as u64, "{stats}");
    assert!(stats["replayed"].as_u64() > Some(1000), "{stats}");
    assert_eq!(
        (&stats["lagged"], &stats["evicted"]),
        (&0.into(), &0.into())
    );
}

#[tokio::test]
async fn every_hole_is_announced_with_its_size_where_the_history_is_too_small() {
    let _alone = alone().await;
    let process = Process::start(&["--history", "5"]).await;
    let hub = &process.hub;
    let users = fifty();
    let mut clients = Clients::open(hub, &users).await;
    publish_and_cut(hub, &mut clients, &users.all()).await;
    let log = clients.wait_for_all("the last event", is_complete).await;
    // Some kind of client that hears of no hole would be a kind that was not asked.
    let mut announced = [("chromium", 0), ("npm", 0), ("rust", 0)];
    for (user, heard) in log {
        let (seen, missed) = account(user, heard);
        assert_eq!(seen + missed, EACH, "{user}");
        let kind = announced
            .iter_mut()
            .find(|(kind, _)| user.starts_with(kind));
        kind.expect("one of the kinds").1 += missed;
    }
    assert!(
        announced.iter().all(|(_, missed)| *missed > 0),
        "{announced:?}"
    );
}

#[tokio::test]
async fn a_restart_is_announced_to_every_client() {
    let _alone = alone().await;
    let mut process = Process::start(&["--history", "500"]).await;
    let users = Users::new(3, 5, 5);
    let all = users.all();
    let mut clients = Clients::open(&process.hub, &users).await;
    // And the hub's own page, in a tab beside.
    let mut page = process.hub.url(&[]);
    page.query_pairs_mut().append_pair("user", "ann");
    let script = clients.browser.tab().await;
    let tab = clients.browser.open_tab().await;
    clients.browser.open(page.as_str()).await;
    wait_for_connections(&process.hub, all.len() + 1).await;
    process.hub.send("ann", "before").await;
    clients.browser.wait_until(&shows("before")).await;
    clients.browser.switch_to(&script).await;
    publish(&process.hub, &all, 0..3).await;
    clients
        .wait_for_all("three events", |heard| heard.len() == 3)
        .await;

    process.signal("KILL").await;
    process.exit().await;
    let (host, port) = (
        page.host_str().expect("a host"),
        page.port().expect("a port"),
    );
    let addr = format!("{host}:{port}");
    // The address given last counts.
    let process = Process::start(&["--history", "500", "--addr", &addr]).await;
    // Nobody is there, or some are: what they do not get is covered by the gap.
    publish(&process.hub, &all, 3..4).await;
    wait_for_connections(&process.hub, all.len() + 1).await;
    publish(&process.hub, &all, 4..5).await;

    let is_last = |heard: &[Heard]| heard.last().is_some_and(|heard| heard.data == "4");
    let log = clients
        .wait_for_all("an event after the restart", is_last)
        .await;
    for (user, heard) in log {
        let mut heard: Vec<_> = heard
            .iter()
            .map(|heard| (&*heard.event, &*heard.data))
            .collect();
        heard.retain(|heard| *heard != ("text", "3"));
        let gap = ("gap", r#"{"reason":"epoch","missed":null}"#);
        let texts = ["0", "1", "2", "4"].map(|number| ("text", number));
        assert_eq!(heard, [&texts[..3], &[gap], &texts[3..]].concat(), "{user}");
    }
    clients.browser.switch_to(&tab).await;
    clients
        .browser
        .wait_until(&shows("events may be missing"))
        .await;
}

/// Whether the hub's page shows this as its last event.
fn shows(text: &str) -> String {
    format!(
        "[...document.querySelectorAll('#events pre')].at(-1)?.textContent.includes('{text}') ?? false"
    )
}

#[tokio::test]
async fn a_client_that_is_cut_before_its_first_event_comes_back_with_the_id_it_began_with() {
    let _alone = alone().await;
    let process = Process::start(&["--history", "500"]).await;
    let hub = &process.hub;
    let users = Users::new(2, 2, 2);
    let mut clients = Clients::open(hub, &users).await;
    // The first block was sent before it could be cut, and has an id.
    for user in users.all() {
        assert!(cut(hub, &user).await);
    }
    publish(hub, &users.all(), 0..2).await;
    wait_for_connections(hub, users.all().len()).await;
    publish(hub, &users.all(), 2..3).await;
    let is_last = |heard: &[Heard]| heard.last().is_some_and(|heard| heard.data == "2");
    for (user, heard) in clients.wait_for_all("the last event", is_last).await {
        if users.rust.contains(user) {
            // This one takes ids from events only. It begins anew, and does not even know that it missed something.
            assert_eq!(heard.len(), 1, "{user}: {heard:?}");
        } else {
            assert_eq!(account(user, heard), (3, 0), "{user}: {heard:?}");
        }
    }
}
