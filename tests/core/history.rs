//! With a history, a client that reconnects continues where it was, or gets a gap for exactly the events it cannot have.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use http_body_util::BodyExt;
use proptest::prelude::*;
use tidings::{
    ConfigError, Gap, GapReason, GenericBroadcaster, History, KeepAlive, LagPolicy, LastEventId,
    SseBody, Subscription, Text,
};
use tokio::time::{Instant, advance};

const NONE: [u64; 0] = [];

type Hub = GenericBroadcaster<Text>;

fn hub(history: History) -> Hub {
    hub_of_capacity(1024, history)
}

fn hub_of_capacity(capacity: usize, history: History) -> Hub {
    GenericBroadcaster::builder()
        .ring_capacity(capacity)
        .connections_per_user(None)
        .history(history)
        .build()
        .expect("valid settings")
}

fn send(hub: &Hub, user: &str, number: u64) -> usize {
    hub.broadcast(user, &Text::new(number.to_string()))
        .expect("text can be encoded")
}

fn send_all(hub: &Hub, numbers: impl IntoIterator<Item = u64>) {
    numbers.into_iter().for_each(|number| {
        send(hub, "ann", number);
    });
}

fn join(hub: &Hub) -> Subscription {
    hub.register("ann").expect("no cap is reached")
}

fn back(hub: &Hub, last: &LastEventId) -> Subscription {
    hub.resume("ann", last).expect("no cap is reached")
}

/// What a client has seen so far.
#[derive(Debug, Default)]
struct Seen {
    numbers: Vec<u64>,
    gaps: Vec<Gap>,
    last: LastEventId,
    ended: bool,
}

impl Seen {
    /// Takes what the stream has ready.
    fn read(&mut self, stream: &mut Subscription) {
        if let Some(cursor) = stream.cursor() {
            if self.last.is_none() {
                self.last = LastEventId::new(&cursor);
            }
        }
        while let Some(item) = stream.next().now_or_never() {
            match item {
                None => return self.ended = true,
                Some(Ok(frame)) => {
                    let id = frame.fields().find(|(name, _)| *name == "id");
                    self.last = LastEventId::new(id.expect("an id").1);
                    self.numbers.push(frame.data().parse().expect("a number"));
                }
                Some(Err(gap)) => {
                    if let Some(id) = gap.id() {
                        self.last = LastEventId::new(&id);
                    }
                    self.gaps.push(gap);
                }
            }
        }
    }

    fn missed(&self) -> Vec<(GapReason, Option<u64>)> {
        self.gaps
            .iter()
            .map(|gap| (gap.reason, gap.missed))
            .collect()
    }
}

fn seen(stream: &mut Subscription) -> Seen {
    let mut seen = Seen::default();
    seen.read(stream);
    seen
}

/// A response that is silent where there is nothing to say.
fn quiet(stream: Subscription) -> SseBody {
    SseBody::new(stream).keep_alive(&KeepAlive::off())
}

/// Like the real thing, as bytes.
fn text(body: &mut SseBody) -> String {
    let mut text = String::new();
    while let Some(Some(chunk)) = body.frame().now_or_never() {
        let chunk = chunk.expect("no error").into_data().expect("data");
        text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
    }
    text
}

#[test]
fn a_client_continues_after_the_event_it_saw_last() {
    let hub = hub(History::new(100));
    let mut tab = join(&hub);
    send_all(&hub, 0..5);
    let mut client = seen(&mut tab);
    drop(tab);
    send_all(&hub, 5..10);
    let mut tab = back(&hub, &client.last);
    send_all(&hub, 10..15);
    client.read(&mut tab);
    send_all(&hub, 15..20);
    client.read(&mut tab);
    assert!(client.numbers.iter().copied().eq(0..20));
    assert_eq!(client.gaps, []);
    assert_eq!((hub.stats().replayed, hub.stats().evicted), (5, 0));
}

#[test]
fn a_client_that_saw_no_event_yet_continues_from_its_cursor() {
    let hub = hub(History::new(100));
    let other = join(&hub);
    send_all(&hub, 0..3);
    let mut client = seen(&mut join(&hub));
    assert_eq!(client.numbers, NONE, "what was before is not for it");
    drop(other);
    send_all(&hub, 3..6);
    client.read(&mut back(&hub, &client.last));
    assert_eq!(client.numbers, [3, 4, 5]);
    assert_eq!(client.gaps, []);
}

#[test]
fn what_the_history_has_dropped_is_announced_with_its_size_and_the_id_to_go_on_from() {
    let hub = hub(History::new(10));
    let mut tab = join(&hub);
    send_all(&hub, 0..5);
    let mut client = seen(&mut tab);
    drop(tab);
    send_all(&hub, 5..25);
    let mut tab = back(&hub, &client.last);
    client.read(&mut tab);
    assert_eq!(client.missed(), [(GapReason::Evicted, Some(10))]);
    assert!(client.numbers.iter().copied().eq((0..5).chain(15..25)));
    let stats = hub.stats();
    assert_eq!((stats.replayed, stats.evicted, stats.lagged), (10, 10, 0));

    // Cut off right behind the gap: its id is where the stream goes on.
    let gap_id = LastEventId::new(&client.gaps[0].id().expect("an id"));
    assert_eq!(seen(&mut back(&hub, &gap_id)).numbers[0], 15);
}

#[test]
fn a_gap_is_an_event_of_its_own_on_the_wire() {
    let hub = hub(History::new(1));
    let tab = join(&hub);
    let first = tab.cursor().expect("there is a history");
    send_all(&hub, 0..3);
    let epoch = first.strip_suffix("-0").expect("nothing was sent before");
    let body = &mut quiet(back(&hub, &LastEventId::new(&first)));
    assert_eq!(
        text(body),
        format!(
            "id: {epoch}-2\nevent: gap\ndata: {{\"reason\":\"evicted\",\"missed\":2}}\n\n\
             id: {epoch}-3\ndata: 2\n\n"
        )
    );
    let body = &mut quiet(back(&hub, &LastEventId::unknown()));
    assert_eq!(
        text(body),
        format!("id: {epoch}-3\nevent: gap\ndata: {{\"reason\":\"epoch\",\"missed\":null}}\n\n")
    );
}

#[test]
fn the_first_block_has_the_cursor_and_how_long_to_wait() {
    let hub = hub(History::new(1));
    let mut body = quiet(join(&hub)).retry(Duration::from_secs(2));
    send_all(&hub, [7]);
    let text = text(&mut body);
    let (retry, rest) = text.split_once('\n').expect("a line");
    let retry = retry.strip_prefix("retry: ").expect("retry comes first");
    assert!((2000..=3000).contains(&retry.parse::<u32>().expect("milliseconds")));
    let (cursor, rest) = rest.split_once("\n\n").expect("a block");
    let epoch = cursor.strip_prefix("id: ").expect("an id");
    let epoch = epoch.strip_suffix("-0").expect("before the first");
    assert_eq!(rest, format!("id: {epoch}-1\ndata: 7\n\n"));

    // It can be left out, strict clients do not get it, and one that came with an id has one.
    let last = LastEventId::new(&format!("{epoch}-0"));
    let strict = join(&hub).lag_policy(LagPolicy::End);
    for mut body in [
        quiet(join(&hub)).cursor(false),
        quiet(strict),
        quiet(back(&hub, &LastEventId::new(&format!("{epoch}-1")))),
    ] {
        assert_eq!(self::text(&mut body), ":\n");
    }
    let mut body = quiet(back(&hub, &last)).retry(Duration::ZERO);
    assert_eq!(
        self::text(&mut body),
        format!("retry: 0\nid: {epoch}-1\ndata: 7\n\n")
    );
}

#[test]
fn without_a_history_there_are_no_ids_but_those_of_the_events() {
    let hub = Hub::new();
    let mut tab = join(&hub);
    assert_eq!(tab.cursor(), None);
    let event = Text::new("x").id(7);
    hub.broadcast("ann", &event).expect("it can be encoded");
    let frame = tab.next().now_or_never().flatten().expect("ready");
    assert_eq!(frame.expect("no gap").as_bytes(), b"id: 7\ndata: x\n\n");

    // Whoever wants to resume is told that this cannot be done.
    let mut body = quiet(back(&hub, &LastEventId::new("7")));
    let gap = "event: gap\ndata: {\"reason\":\"epoch\",\"missed\":null}\n\n";
    assert_eq!(text(&mut body), gap);
    assert_eq!(text(&mut quiet(back(&hub, &LastEventId::none()))), ":\n");
}

#[test]
fn with_a_history_its_id_takes_the_place_of_the_events_own() {
    let hub = hub(History::new(1));
    let mut body = quiet(join(&hub)).cursor(false);
    let event = Text::new("a\nb").id(7).event("note");
    hub.broadcast("ann", &event).expect("it can be encoded");
    let text = text(&mut body);
    let (id, rest) = text.split_once('\n').expect("a line");
    assert!(id.starts_with("id: ") && id.ends_with("-1"), "{id}");
    assert_eq!(rest, "event: note\ndata: a\ndata: b\n\n");
}

#[test]
fn offsets_of_any_length_are_written_whole() {
    let hub = hub(History::new(2000));
    let mut tab = join(&hub);
    send_all(&hub, 1..=1100);
    for number in 1..=1024 {
        let frame = tab.next().now_or_never().flatten().expect("ready");
        let frame = frame.expect("no gap");
        let id = frame.fields().next().expect("an id").1.to_owned();
        assert!(id.ends_with(&format!("-{number}")), "{id}");
        assert_eq!(frame.data(), number.to_string());
    }
}

#[test]
fn ids_that_are_not_of_this_history_give_a_gap_and_nobody_elses_events() {
    let hub = hub(History::new(10));
    let (ann, bob) = (join(&hub), hub.register("bob").expect("no cap"));
    send(&hub, "ann", 1);
    send(&hub, "bob", 2);
    let id = ann.cursor().expect("a history").to_string();
    let foreign = bob.cursor().expect("a history").to_string();
    let epoch = id.strip_suffix("-0").expect("fresh");
    let of = |offset: &str| format!("{epoch}-{offset}");
    let bad = [
        foreign.clone(),
        of("2"),
        of("18446744073709551615"),
        of("18446744073709551616"),
        of("-1"),
        of("+1"),
        of("01"),
        of(" 1"),
        of("1 "),
        of("1.0"),
        of(""),
        of("٣"),
        epoch.into(),
        epoch.to_uppercase() + "-0",
        format!("0{id}"),
        "0".into(),
        "-".into(),
        "\0".into(),
        "ß".into(),
        "x".repeat(8192),
        format!("{epoch}-{}", "0".repeat(8192)),
    ];
    // One epoch in two thousand has no letters, and its capitals are itself.
    for bad in bad.into_iter().filter(|bad| *bad != format!("{epoch}-0")) {
        let seen = seen(&mut back(&hub, &LastEventId::new(&bad)));
        assert_eq!(seen.missed(), [(GapReason::Epoch, None)], "{bad:?}");
        assert_eq!(seen.numbers, NONE, "{bad:?}");
    }
    // An id of a user who is somebody else here.
    let seen = seen(&mut hub.resume("eve", &LastEventId::new(&id)).expect("no cap"));
    assert_eq!(seen.missed(), [(GapReason::Epoch, None)]);
}

#[test]
fn a_restart_is_announced() {
    let before = hub(History::new(10));
    let mut tab = join(&before);
    send_all(&before, 0..3);
    let mut client = seen(&mut tab);
    let after = hub(History::new(10));
    let mut tab = back(&after, &client.last);
    send_all(&after, 3..5);
    client.read(&mut tab);
    assert_eq!(client.missed(), [(GapReason::Epoch, None)]);
    assert_eq!(client.numbers, [0, 1, 2, 3, 4]);
    // And from the gap on, ids are the new ones.
    let id = client.gaps[0].id().expect("an id");
    assert_eq!(
        seen(&mut back(&after, &LastEventId::new(&id))).numbers,
        [3, 4]
    );
}

#[test]
fn a_burst_is_no_loss_where_the_history_has_it() {
    let hub = hub_of_capacity(16, History::new(1000));
    let mut tabs: Vec<_> = (0..3).map(|_| join(&hub)).collect();
    send_all(&hub, 0..1000);
    for tab in &mut tabs {
        let seen = seen(tab);
        assert!(seen.numbers.iter().copied().eq(0..1000));
        assert_eq!(seen.gaps, []);
        assert_eq!(tab.guard().lagged(), 0);
    }
    let stats = hub.stats();
    assert_eq!((stats.lagged, stats.healed), (0, 3 * 984));
}

#[test]
fn of_a_lag_only_what_the_history_has_lost_is_a_gap() {
    let hub = hub_of_capacity(4, History::new(10));
    let mut tab = join(&hub);
    send_all(&hub, 0..100);
    let client = seen(&mut tab);
    assert_eq!(client.missed(), [(GapReason::Lagged, Some(90))]);
    assert!(client.numbers.iter().copied().eq(90..100));
    assert_eq!((tab.guard().lagged(), hub.stats().lagged), (90, 90));
    assert_eq!(hub.stats().healed, 6);
}

#[test]
fn a_replay_that_is_overtaken_says_so() {
    let hub = hub_of_capacity(4, History::new(100));
    let tab = join(&hub);
    let first = LastEventId::new(&tab.cursor().expect("a history"));
    send_all(&hub, 0..100);
    let mut tab = back(&hub, &first);
    let frame = tab.next().now_or_never().flatten().expect("ready");
    assert_eq!(frame.expect("no gap").data(), "0");
    // Meanwhile everything is replaced, twice.
    send_all(&hub, 100..300);
    let client = seen(&mut tab);
    // What it had taken already it yields; the rest of what it came back for is gone, and then it lags.
    let taken = client.numbers.iter().take_while(|n| **n < 100).count() as u64;
    let (evicted, lagged) = (99 - taken, 100);
    assert_eq!(
        client.missed(),
        [
            (GapReason::Evicted, Some(evicted)),
            (GapReason::Lagged, Some(lagged))
        ]
    );
    assert!(
        client.numbers[taken as usize..]
            .iter()
            .copied()
            .eq(200..300)
    );
}

#[test]
fn strict_streams_end_where_they_cannot_go_on() {
    let hub = hub(History::new(1));
    let tab = join(&hub);
    let first = LastEventId::new(&tab.cursor().expect("a history"));
    send_all(&hub, 0..3);
    for last in [first, LastEventId::unknown()] {
        let seen = seen(&mut back(&hub, &last).lag_policy(LagPolicy::End));
        assert!(seen.ended && seen.gaps.is_empty() && seen.numbers.is_empty());
    }
    // One that has just reconnected is not made to do so again.
    let seen = seen(&mut back(&hub, &first).lag_policy(LagPolicy::Disconnect));
    assert_eq!((seen.numbers, seen.ended), (vec![2], false));
}

#[test]
fn a_history_survives_whatever_ends_the_connections_but_forget() {
    let hub = hub(History::new(10));
    let mut tab = join(&hub);
    let mut client = seen(&mut tab);
    let ends: [fn(&Hub); 2] = [
        |hub| assert_eq!(hub.drain_user("ann"), 1),
        |hub| assert_eq!(hub.disconnect_user("ann"), 1),
    ];
    for (number, end) in (0..).zip(ends) {
        end(&hub);
        client.read(&mut tab);
        assert!(std::mem::take(&mut client.ended));
        drop(tab);
        send(&hub, "ann", number);
        tab = back(&hub, &client.last);
        client.read(&mut tab);
    }
    assert_eq!(
        (&client.numbers[..], &client.gaps[..]),
        (&[0, 1][..], &[][..])
    );

    send(&hub, "ann", 2);
    assert_eq!(hub.forget("ann"), 1);
    client.read(&mut tab);
    assert!(client.ended);
    assert_eq!(client.numbers, [0, 1, 2], "what was broadcast before");
    client.read(&mut back(&hub, &client.last));
    assert_eq!(client.missed(), [(GapReason::Epoch, None)]);
    assert_eq!((hub.forget("ann"), hub.forget("bob")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_history_lingers_and_is_forgotten() {
    let hub = hub(History::new(10).linger(Duration::from_secs(5)));
    let mut tab = join(&hub);
    send_all(&hub, 0..2);
    let mut client = seen(&mut tab);
    drop(tab);
    assert_eq!(hub.connected_users(), []);
    assert_eq!((hub.stats().users, hub.stats().away), (0, 1));
    assert!(hub.stats().away_bytes > 0);

    advance(Duration::from_secs(4)).await;
    hub.sweep();
    assert_eq!(send(&hub, "ann", 2), 0);
    let mut tab = back(&hub, &client.last);
    client.read(&mut tab);
    assert_eq!((hub.stats().users, hub.stats().away), (1, 0));
    assert_eq!(hub.stats().away_bytes, 0);
    advance(Duration::from_secs(60)).await;
    hub.sweep();
    send_all(&hub, [3]);
    client.read(&mut tab);
    assert_eq!(client.numbers, [0, 1, 2, 3]);

    // The time runs from the last disconnect.
    drop(tab);
    advance(Duration::from_secs(5)).await;
    hub.sweep();
    assert_eq!((hub.stats().away, hub.stats().away_bytes), (0, 0));
    send_all(&hub, [4]);
    assert_eq!(hub.stats().encoded, 4, "nobody to encode it for");
    client.read(&mut back(&hub, &client.last));
    assert_eq!(client.missed(), [(GapReason::Epoch, None)]);
}

#[test]
fn without_a_linger_a_history_goes_with_the_last_connection() {
    let hub = hub(History::new(10).linger(Duration::ZERO));
    let (one, two) = (join(&hub), join(&hub));
    let first = LastEventId::new(&one.cursor().expect("a history"));
    send_all(&hub, 0..2);
    drop(one);
    assert_eq!(seen(&mut back(&hub, &first)).numbers, [0, 1]);
    drop(two);
    assert_eq!(hub.stats().away, 0);
    let seen = seen(&mut back(&hub, &first));
    assert_eq!(seen.missed(), [(GapReason::Epoch, None)]);
}

#[tokio::test(start_paused = true)]
async fn events_grow_too_old() {
    let hub = hub(History::new(10).age(Duration::from_secs(10)));
    let tab = join(&hub);
    let first = LastEventId::new(&tab.cursor().expect("a history"));
    send_all(&hub, 0..2);
    advance(Duration::from_secs(6)).await;
    send_all(&hub, 2..4);
    assert_eq!(seen(&mut back(&hub, &first)).numbers, [0, 1, 2, 3]);
    advance(Duration::from_secs(6)).await;
    let late = seen(&mut back(&hub, &first));
    assert_eq!(late.missed(), [(GapReason::Evicted, Some(2))]);
    assert_eq!(late.numbers, [2, 3]);
    advance(Duration::from_secs(6)).await;
    let late = seen(&mut back(&hub, &first));
    assert_eq!(late.missed(), [(GapReason::Evicted, Some(4))]);
}

#[test]
fn a_history_keeps_to_its_bytes() {
    // Each frame counts 192 bytes besides its own, so three of these fit, and never four.
    let hub = hub(History::new(100).bytes(3 * 360));
    let tab = join(&hub);
    let first = LastEventId::new(&tab.cursor().expect("a history"));
    let padded = |number: u64| Text::new(format!("{number:0100}"));
    for number in 0..10 {
        hub.broadcast("ann", &padded(number)).expect("encoded");
    }
    assert_eq!(seen(&mut back(&hub, &first)).numbers, [7, 8, 9]);
    // One that fits in no history is sent, and nothing before it is kept: there are no holes within.
    let long = Text::new(format!("{:01000}", 10));
    assert_eq!(hub.broadcast("ann", &long).expect("encoded"), 1);
    send_all(&hub, [11]);
    let seen = seen(&mut back(&hub, &first));
    assert_eq!(seen.missed(), [(GapReason::Evicted, Some(11))]);
    assert_eq!(seen.numbers, [11]);
}

#[test]
fn users_who_are_away_keep_to_their_room() {
    let hub = hub(History::new(100).away_users(2));
    let tabs = ["a", "b", "c"].map(|user| (user, hub.register(user).expect("no cap")));
    let cursors = tabs.map(|(user, tab)| {
        send(&hub, user, 1);
        (user, LastEventId::new(&tab.cursor().expect("a history")))
    });
    assert_eq!((hub.stats().users, hub.stats().away), (0, 2));
    let missed = cursors.map(|(user, last)| {
        let mut stream = hub.resume(user, &last).expect("no cap");
        seen(&mut stream).missed()
    });
    // The third found no room, and nobody else lost theirs.
    let nothing = vec![];
    let epoch = vec![(GapReason::Epoch, None)];
    assert_eq!(missed, [nothing.clone(), nothing, epoch]);
}

#[test]
fn bytes_of_users_who_are_away_keep_to_their_room() {
    let each = 360;
    let hub = hub(History::new(100).away_bytes(4 * each));
    let padded = |number: u64| Text::new(format!("{number:0100}"));
    let cursors = ["a", "b"].map(|user| {
        let tab = hub.register(user).expect("no cap");
        for number in 0..3 {
            hub.broadcast(user, &padded(number)).expect("encoded");
        }
        let cursor = LastEventId::new(&tab.cursor().expect("a history"));
        drop(tab);
        cursor
    });
    assert!(hub.stats().away_bytes <= 4 * each);
    for number in 3..10 {
        for user in ["a", "b"] {
            hub.broadcast(user, &padded(number)).expect("encoded");
            assert!(hub.stats().away_bytes <= 4 * each);
        }
    }
    let mut kept = 0;
    for (user, cursor) in ["a", "b"].into_iter().zip(cursors) {
        let seen = seen(&mut hub.resume(user, &cursor).expect("no cap"));
        let missed: u64 = seen.gaps.iter().filter_map(|gap| gap.missed).sum();
        assert_eq!(missed + seen.numbers.len() as u64, 10, "had or told");
        kept += seen.numbers.len();
    }
    assert!(kept >= 4, "the room is used");
}

#[tokio::test(start_paused = true)]
async fn events_may_be_kept_for_users_who_were_never_there() {
    let hub = hub(History::new(3)
        .keep_for_unconnected()
        .away_users(2)
        .linger(Duration::from_secs(5)));
    for number in 0..5 {
        assert_eq!(send(&hub, "ann", number), 0);
    }
    send(&hub, "bob", 0);
    send(&hub, "eve", 0);
    assert_eq!((hub.stats().users, hub.stats().away), (0, 2));
    assert_eq!(hub.connected_users(), []);
    // The first stream begins with them, the next one does not.
    let mut one = join(&hub);
    let client = seen(&mut one);
    assert_eq!(client.missed(), [(GapReason::Evicted, Some(2))]);
    assert_eq!(client.numbers, [2, 3, 4]);
    assert_eq!(seen(&mut join(&hub)).numbers, NONE);
    // There was no room for eve, bob's time runs out.
    assert_eq!(
        seen(&mut hub.register("eve").expect("no cap")).numbers,
        NONE
    );
    advance(Duration::from_secs(5)).await;
    hub.sweep();
    assert_eq!(
        seen(&mut hub.register("bob").expect("no cap")).numbers,
        NONE
    );
}

/// What is counted of an event of one digit.
fn counted_bytes() -> usize {
    let hub = hub(History::new(10));
    let _tab = join(&hub);
    send_all(&hub, 0..1);
    hub.stats().history_bytes
}

#[test]
fn a_history_is_filled_to_its_last_byte() {
    let size = counted_bytes();
    for (bytes, fit) in [(size - 1, 0), (size, 1), (2 * size - 1, 1), (2 * size, 2)] {
        let hub = hub(History::new(10).bytes(bytes));
        let tab = join(&hub);
        let cursor = tab.cursor().expect("there is a history");
        send_all(&hub, 0..4);
        assert_eq!(hub.stats().history_bytes, fit * size, "{bytes}");
        let client = seen(&mut back(&hub, &LastEventId::new(&cursor)));
        assert_eq!(client.numbers, (4 - fit as u64..4).collect::<Vec<_>>());
        assert_eq!(
            client.missed(),
            [(GapReason::Evicted, Some(4 - fit as u64))]
        );
        drop(tab);
        hub.forget("ann");
        assert_eq!(hub.stats().history_bytes, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_is_kept_until_it_is_older_than_the_age() {
    let age = Duration::from_secs(60);
    let hub = hub(History::new(10).age(age));
    let tab = join(&hub);
    let cursor = LastEventId::new(&tab.cursor().expect("there is a history"));
    send_all(&hub, 0..1);
    advance(age).await;
    assert_eq!(seen(&mut back(&hub, &cursor)).numbers, [0]);
    advance(Duration::from_millis(1)).await;
    let client = seen(&mut back(&hub, &cursor));
    assert_eq!(client.numbers, NONE);
    assert_eq!(client.missed(), [(GapReason::Evicted, Some(1))]);
}

#[test]
fn a_first_stream_that_is_cut_before_its_first_event_loses_nothing() {
    let hub = hub(History::new(3).keep_for_unconnected());
    send_all(&hub, 0..5);
    // What a client has by then is the id that the stream begins with.
    let cursor = join(&hub).cursor().expect("there is a history");
    let client = seen(&mut back(&hub, &LastEventId::new(&cursor)));
    assert_eq!(client.missed(), [(GapReason::Evicted, Some(2))]);
    assert_eq!(client.numbers, [2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_can_still_read_everything_is_not_swept() {
    let hub = hub_of_capacity(4, History::new(100));
    let _slow = join(&hub);
    for (sent, pruned) in [(100, 0), (1, 1)] {
        send_all(&hub, 0..sent);
        // Nor who came late.
        let _late = join(&hub);
        hub.sweep();
        advance(Duration::from_secs(31)).await;
        assert_eq!(hub.sweep(), pruned);
    }
}

#[test]
fn settings_that_keep_nothing_are_refused() {
    for history in [History::new(0), History::new(1).bytes(0)] {
        let built = Hub::builder().history(history).build();
        assert_eq!(built.expect_err("refused"), ConfigError::EmptyHistory);
    }
}

#[test]
fn coalescing_keeps_the_newest_of_each_key() {
    let keyed = |key: &str, number: u64| Text::new(number.to_string()).key(key);
    let hub: Hub = GenericBroadcaster::builder()
        .ring_capacity(2)
        .lag_policy(LagPolicy::Coalesce)
        .build()
        .expect("valid settings");
    let numbers = |stream: &mut Subscription| {
        let mut numbers = Vec::new();
        let mut missed = Vec::new();
        while let Some(item) = stream.next().now_or_never() {
            match item.expect("not ended") {
                Ok(frame) => numbers.push(frame.data().parse::<u64>().expect("a number")),
                Err(gap) => missed.push(gap.missed),
            }
        }
        (numbers, missed)
    };
    let broadcast = |event: Text| {
        hub.broadcast("ann", &event).expect("it can be encoded");
    };
    let mut tab = join(&hub);
    for number in 0..30 {
        broadcast(keyed(["x", "y", "z"][(number % 3) as usize], number));
    }
    // The ring has 28 and 29; 27 is the newest of x, and all others are replaced.
    assert_eq!(numbers(&mut tab), (vec![27, 28, 29], vec![]));
    assert_eq!(tab.guard().lagged(), 27);
    assert_eq!(hub.stats().lagged, 27);

    // One without a key may be lost, so that is told.
    broadcast(keyed("x", 30));
    broadcast(Text::new("31"));
    for number in 32..36 {
        broadcast(keyed("y", number));
    }
    assert_eq!(numbers(&mut tab), (vec![30, 34, 35], vec![Some(3)]));

    // Also if it is the first that is lost.
    broadcast(Text::new("36"));
    for number in 37..40 {
        broadcast(keyed("y", number));
    }
    assert_eq!(numbers(&mut tab), (vec![38, 39], vec![Some(2)]));

    // And so it is if there are more keys than are kept.
    for number in 100..200 {
        broadcast(keyed(&number.to_string(), number));
    }
    let (kept, missed) = numbers(&mut tab);
    assert_eq!(kept.len(), 64);
    assert!(kept.is_sorted() && kept.contains(&199));
    assert_eq!(missed, [Some(36)]);

    // A stream of its own policy.
    let mut gap = join(&hub).lag_policy(LagPolicy::Gap);
    for number in 0..5 {
        broadcast(keyed("x", number));
    }
    assert_eq!(numbers(&mut gap), (vec![3, 4], vec![Some(3)]));
    assert_eq!(numbers(&mut tab), (vec![3, 4], vec![]));
}

#[test]
fn coalescing_comes_after_the_history() {
    let hub: Hub = GenericBroadcaster::builder()
        .ring_capacity(2)
        .history(History::new(4))
        .coalesce_keys(8)
        .build()
        .expect("valid settings");
    let mut tab = join(&hub).lag_policy(LagPolicy::Coalesce);
    let mut client = seen(&mut tab);
    for number in 0..20 {
        let key = if number < 10 { "x" } else { "y" };
        let event = Text::new(number.to_string()).key(key);
        hub.broadcast("ann", &event).expect("it can be encoded");
    }
    client.read(&mut tab);
    assert_eq!(client.numbers, [9, 16, 17, 18, 19]);
    assert_eq!(client.gaps, []);
    assert_eq!(tab.guard().lagged(), 15);
}

#[test]
fn without_keys_coalescing_is_telling() {
    let hub = hub_of_capacity(2, History::new(4));
    let mut tab = join(&hub).lag_policy(LagPolicy::Coalesce);
    let mut client = seen(&mut tab);
    send_all(&hub, 0..20);
    client.read(&mut tab);
    assert_eq!(client.missed(), [(GapReason::Lagged, Some(16))]);
    assert_eq!(client.numbers, [16, 17, 18, 19]);
}

/// What may happen to a user's events, streams and history.
#[derive(Debug, Clone)]
enum Step {
    Publish(u64),
    /// Of one of the clients.
    Read(usize),
    Cut(usize),
    Come(usize),
    /// Comes back with an id that is long out of date.
    ComeFrom(usize, usize),
    Wait(u64),
    Drain,
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..12u64).prop_map(Step::Publish),
        4 => (0..3usize).prop_map(Step::Read),
        2 => (0..3usize).prop_map(Step::Cut),
        3 => (0..3usize).prop_map(Step::Come),
        1 => (0..3usize, 0..20usize).prop_map(|(client, ago)| Step::ComeFrom(client, ago)),
        2 => (0..40u64).prop_map(Step::Wait),
        1 => Just(Step::Drain),
        1 => Just(Step::Forget),
    ]
}

#[derive(Default)]
struct Client {
    stream: Option<Subscription>,
    last: LastEventId,
    /// Everything it was ever told: the ids behind which it could come back, and which number comes next there.
    told: Vec<(LastEventId, u64)>,
    /// The number that has to come next; `None` if nobody can know.
    next: Option<u64>,
}

impl Client {
    fn come(&mut self, hub: &Hub, sent: u64) {
        if self.stream.is_some() {
            return;
        }
        let stream = back(hub, &self.last);
        if self.last.is_none() {
            self.last = LastEventId::new(&stream.cursor().expect("there is a history"));
            self.next = Some(sent);
        }
        self.stream = Some(stream);
    }

    /// Reads what is there, and checks it against what must be there.
    fn read(&mut self, may_be_forgotten: bool) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        loop {
            match stream.next().now_or_never() {
                None => return,
                Some(None) => {
                    self.stream = None;
                    return;
                }
                Some(Some(Ok(frame))) => {
                    let number: u64 = frame.data().parse().expect("a number");
                    if let Some(next) = self.next {
                        assert_eq!(number, next, "lost in silence, doubled, or out of order");
                    }
                    self.next = Some(number + 1);
                    let id = frame.fields().next().expect("an id").1;
                    self.last = LastEventId::new(id);
                    self.told.push((self.last, number + 1));
                }
                Some(Some(Err(gap))) => {
                    self.last = LastEventId::new(&gap.id().expect("there is a history"));
                    match (gap.reason, gap.missed) {
                        (GapReason::Epoch, None) => {
                            assert!(may_be_forgotten, "forgotten for no reason");
                            self.next = None;
                        }
                        (_, Some(missed)) => {
                            assert!(missed > 0, "a gap of nothing");
                            self.next = self.next.map(|next| next + missed);
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// What a client saw and what its gaps announced is what was published, whatever happens.
    #[test]
    fn every_published_event_is_received_or_in_a_gap(
        steps in prop::collection::vec(step(), 1..120),
        capacity in 1..8usize,
        events in 1..30usize,
        bytes in prop_oneof![Just(1 << 20), 200..3000usize],
        age in prop_oneof![Just(None), (5..60u64).prop_map(|s| Some(Duration::from_secs(s)))],
        away_bytes in prop_oneof![Just(1 << 20), 0..2000usize],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let history = History::new(events)
                .bytes(bytes)
                .age(age)
                .away_bytes(away_bytes)
                .linger(Duration::from_secs(50));
            let hub = hub_of_capacity(capacity, history);
            let mut clients: [Client; 3] = Default::default();
            let mut sent = 0;
            let mut may_be_forgotten = false;
            let mut away = Instant::now();
            for step in steps {
                match step {
                    Step::Publish(count) => {
                        for _ in 0..count {
                            // Without a channel nobody will ever be told of this by number.
                            send(&hub, "ann", sent);
                            sent += 1;
                        }
                    }
                    Step::Read(client) => clients[client].read(may_be_forgotten),
                    Step::Cut(client) => clients[client].stream = None,
                    Step::Come(client) => clients[client].come(&hub, sent),
                    Step::ComeFrom(client, ago) => {
                        let client = &mut clients[client];
                        if let Some(&(last, next)) = client.told.iter().rev().nth(ago) {
                            client.stream = None;
                            (client.last, client.next) = (last, Some(next));
                            client.come(&hub, sent);
                        }
                    }
                    Step::Wait(seconds) => {
                        advance(Duration::from_secs(seconds)).await;
                        hub.sweep();
                    }
                    Step::Drain => {
                        hub.drain_user("ann");
                    }
                    Step::Forget => {
                        hub.forget("ann");
                        may_be_forgotten = true;
                    }
                }
                if hub.total_connections() > 0 {
                    away = Instant::now();
                }
                may_be_forgotten |= away.elapsed() >= Duration::from_secs(50);
            }
            for client in &mut clients {
                client.come(&hub, sent);
                client.read(may_be_forgotten);
                // It may have been ended by a drain, with more to come for it.
                client.come(&hub, sent);
                client.read(may_be_forgotten);
                if let Some(next) = client.next {
                    assert_eq!(next, sent, "the end was lost in silence");
                }
            }
            drop(clients);
            advance(Duration::from_secs(100)).await;
            hub.sweep();
            let stats = hub.stats();
            assert_eq!((stats.users, stats.away, stats.away_bytes, stats.connections), (0, 0, 0, 0));
        });
    }
}
