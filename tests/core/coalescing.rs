//! What a stream that coalesces lost events gets, and what that costs.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use proptest::prelude::*;
use tidings::{Gap, GenericBroadcaster, History, LagPolicy, Subscription, Text};
use tokio_stream::StreamExt;

type Hub = GenericBroadcaster<Text>;

#[derive(Debug, Clone)]
struct Settings {
    capacity: usize,
    keys: usize,
    /// Events and bytes.
    history: Option<(usize, usize)>,
}

impl Settings {
    fn hub(&self) -> Hub {
        let mut builder = Hub::builder()
            .ring_capacity(self.capacity)
            .lag_policy(LagPolicy::Coalesce)
            .coalesce_keys(self.keys);
        if let Some((events, bytes)) = self.history {
            builder = builder.history(History::new(events).bytes(bytes));
        }
        builder.build().expect("valid settings")
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// With one of the keys or none, and so many bytes of padding.
    Send(Option<u8>, usize),
    Read,
}

fn settings() -> impl Strategy<Value = Settings> {
    let history = proptest::option::of((1..6usize, 300..4000usize));
    (1..5usize, 1..5usize, history).prop_map(|(capacity, keys, history)| Settings {
        capacity,
        keys,
        history,
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = proptest::option::weighted(0.9, 0..7u8);
    let step = prop_oneof![
        8 => (key, 0..300usize).prop_map(|(key, size)| Step::Send(key, size)),
        1 => Just(Step::Read),
    ];
    proptest::collection::vec(step, 1..60)
}

fn send(hub: &Hub, number: usize, key: Option<u8>, size: usize) {
    let event = Text::new(format!("{number}\n{}", "x".repeat(size)));
    let event = match key {
        Some(key) => event.key(key.to_string()),
        None => event,
    };
    hub.broadcast("ann", &event).expect("text");
}

/// What the stream has ready: numbers, and how many each gap says are missing.
fn read(stream: &mut Subscription) -> (Vec<usize>, Vec<u64>) {
    let (mut numbers, mut gaps) = (Vec::new(), Vec::new());
    while let Some(Some(item)) = stream.next().now_or_never() {
        match item {
            Ok(frame) => {
                let data = frame.data();
                let number = data.lines().next().expect("a line");
                numbers.push(number.parse().expect("a number"));
            }
            Err(Gap { missed, .. }) => gaps.push(missed.expect("it is counted")),
        }
    }
    (numbers, gaps)
}

/// The newest event of each key, of the keys whose newest are the newest: what is kept if bytes are no matter.
fn newest(sent: &[Option<u8>], keys: usize) -> (Vec<usize>, Option<usize>) {
    let mut newest = BTreeMap::new();
    let mut unaccounted = None;
    for (number, key) in sent.iter().enumerate() {
        match key {
            None => unaccounted = Some(number),
            Some(key) => {
                newest.insert(key, number);
                if newest.len() > keys {
                    let (key, oldest) = newest.iter().min_by_key(|(_, at)| **at).expect("some");
                    unaccounted = unaccounted.max(Some(*oldest));
                    let key = **key;
                    newest.remove(&key);
                }
            }
        }
    }
    let mut kept: Vec<usize> = newest.into_values().collect();
    kept.sort_unstable();
    (kept, unaccounted)
}

proptest! {
    /// In order; each event that is left out is replaced by a newer one of its key that is not, or told; and what is kept
    /// is never more than the history may be.
    #[test]
    fn an_omitted_event_is_replaced_or_reported(settings in settings(), steps in steps()) {
        let hub = settings.hub();
        let mut stream = hub.register("ann").expect("no cap is reached");
        let mut sent: Vec<Option<u8>> = Vec::new();
        let mut done = 0;
        let mut lagged = 0;
        for step in steps.into_iter().chain([Step::Read]) {
            let Step::Send(key, size) = step else {
                let (numbers, gaps) = read(&mut stream);
                prop_assert!(numbers.is_sorted());
                let lost: Vec<usize> = (done..sent.len()).filter(|at| !numbers.contains(at)).collect();
                prop_assert_eq!(numbers.len() + lost.len(), sent.len() - done, "each once");
                lagged += lost.len() as u64;
                prop_assert_eq!(stream.guard().lagged(), lagged);
                prop_assert!(gaps.iter().sum::<u64>() <= lost.len() as u64);
                if gaps.is_empty() {
                    for at in lost {
                        let stands = |newer: &usize| *newer > at && sent[*newer] == sent[at];
                        prop_assert!(sent[at].is_some() && numbers.iter().any(stands), "{at} is lost");
                    }
                }
                done = sent.len();
                continue;
            };
            send(&hub, sent.len(), key, size);
            sent.push(key);
            if let Some((_, bytes)) = settings.history {
                prop_assert!(hub.stats().history_bytes <= bytes);
            }
        }
        drop(stream);
        hub.forget("ann");
        drop(hub);
    }

    /// Where bytes are no matter, the stream gets exactly the newest of each key of what the ring and the window have lost.
    #[test]
    fn the_newest_of_each_key_is_kept(mut settings in settings(), steps in steps()) {
        if let Some((_, bytes)) = &mut settings.history {
            *bytes = 1 << 20;
        }
        let hub = settings.hub();
        let mut stream = hub.register("ann").expect("no cap is reached");
        let mut sent: Vec<Option<u8>> = Vec::new();
        let mut done = 0;
        for step in steps.into_iter().chain([Step::Read]) {
            let Step::Send(key, size) = step else {
                let ring = sent.len().saturating_sub(settings.capacity.next_power_of_two());
                let window = settings.history.map_or(sent.len(), |(events, _)| sent.len().saturating_sub(events));
                let gone = if done < ring { done..ring.min(window).max(done) } else { done..done };
                let (kept, unaccounted) = newest(&sent, settings.keys);
                let mut expected: Vec<usize> = kept.into_iter().filter(|at| gone.contains(at)).collect();
                let missed = (gone.len() - expected.len()) as u64;
                expected.extend(gone.end..sent.len());
                let told = missed > 0 && unaccounted >= Some(gone.start);
                let (numbers, gaps) = read(&mut stream);
                prop_assert_eq!(numbers, expected);
                prop_assert_eq!(gaps, Vec::from_iter(told.then_some(missed)));
                done = sent.len();
                continue;
            };
            send(&hub, sent.len(), key, size);
            sent.push(key);
        }
    }
}

#[test]
fn a_key_that_is_forgotten_takes_no_room() {
    let settings = Settings {
        capacity: 1,
        keys: 2,
        history: None,
    };
    let hub = settings.hub();
    let _stream = hub.register("ann").expect("no cap is reached");
    let kept = [0, 1, 2, 3, 4].map(|number| {
        send(&hub, number, Some(number as u8), 0);
        hub.stats().history_bytes
    });
    assert_eq!(kept, [1, 2, 2, 2, 2].map(|keys| keys * kept[0]));
}

/// Nothing stands for it, although it has a key.
#[test]
fn an_event_that_is_too_large_to_be_kept_is_reported_when_it_is_lost() {
    let settings = Settings {
        capacity: 1,
        keys: 2,
        history: Some((1, 1000)),
    };
    let hub = settings.hub();
    let mut stream = hub.register("ann").expect("no cap is reached");
    send(&hub, 0, Some(0), 1000);
    send(&hub, 1, Some(1), 0);
    assert_eq!(read(&mut stream), (vec![1], vec![1]));
}

/// An event that does not stay in any case makes room before one that could.
#[test]
fn the_window_makes_room_before_the_events_of_keys_do() {
    let mut settings = Settings {
        capacity: 1,
        keys: 10,
        history: Some((1, 1 << 20)),
    };
    let sent = |settings: &Settings, events| {
        let hub = settings.hub();
        let stream = hub.register("ann").expect("no cap is reached");
        for number in 0..events {
            send(&hub, number, (number == 0).then_some(0), 0);
        }
        (hub.stats().history_bytes, stream)
    };
    let (bytes, _) = sent(&settings, 2);
    settings.history = Some((1, bytes));
    let (kept, mut stream) = sent(&settings, 3);
    assert_eq!(kept, bytes);
    assert_eq!(read(&mut stream), (vec![0, 2], vec![1]));
}

/// What is kept under keys is for streams that coalesce.
#[test]
fn a_stream_from_the_start_gets_what_is_kept_under_keys_only_if_it_coalesces() {
    let settings = Settings {
        capacity: 4,
        keys: 4,
        history: None,
    };
    let hub = settings.hub();
    let _stream = hub.register("ann").expect("no cap is reached");
    for number in 0..3 {
        send(&hub, number, Some(number as u8), 0);
    }
    let from_start = || hub.resume_from_start("ann").expect("no cap is reached");
    assert_eq!(read(&mut from_start()), (vec![0, 1, 2], vec![]));
    let mut page = from_start().lag_policy(LagPolicy::Gap);
    assert_eq!(read(&mut page), (vec![], vec![3]));
}

/// So many that a stream takes them in several goes.
#[test]
fn many_keys_come_in_order_and_once() {
    let settings = Settings {
        capacity: 1,
        keys: 1000,
        history: None,
    };
    let hub = settings.hub();
    let mut stream = hub.register("ann").expect("no cap is reached");
    for round in 0..3 {
        for number in 0..1000 {
            let event = Text::new((1000 * round + number).to_string()).key(number.to_string());
            hub.broadcast("ann", &event).expect("text");
        }
    }
    assert_eq!(read(&mut stream), ((2000..3000).collect(), vec![]));
    // Without a history, what is kept under keys is counted as what is kept.
    let kept = hub.stats().history_bytes;
    assert!((1000 * 200..1000 * 600).contains(&kept), "{kept}");
    drop(stream);
    assert_eq!(hub.stats().history_bytes, 0);
}

/// An event that is too old is kept under its key no longer than in the window.
#[tokio::test(start_paused = true)]
async fn an_event_that_is_too_old_is_dropped_under_its_key_as_well() {
    use std::time::Duration;
    let hub: Hub = GenericBroadcaster::builder()
        .ring_capacity(1)
        .lag_policy(LagPolicy::Coalesce)
        .history(History::new(1).age(Duration::from_secs(60)))
        .build()
        .expect("valid settings");
    let mut stream = hub.register("ann").expect("no cap is reached");
    for number in 0..3 {
        send(&hub, number, Some(number as u8), 0);
        tokio::time::advance(Duration::from_secs(25)).await;
    }
    let bytes = hub.stats().history_bytes;
    hub.sweep();
    assert_eq!(hub.stats().history_bytes, bytes / 3 * 2);
    assert_eq!(read(&mut stream), (vec![1, 2], vec![1]));
}
