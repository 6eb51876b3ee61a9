//! A user id is any text, and only that user's streams get that user's events. Generated connection ids never repeat.

use std::collections::{BTreeSet, HashSet};
use std::thread;

use futures_util::{FutureExt, StreamExt};
use proptest::prelude::*;
use tidings::{ConnectionId, EventId, Field, GenericBroadcaster, Subscription, Text, UserId};

/// Ids that something might take for one another, or for something else.
fn odd_ids() -> Vec<String> {
    let mut ids: Vec<String> = [
        "",
        " ",
        "  ",
        "\t",
        "\n",
        "\r\n",
        "\0",
        "\0\0",
        "a",
        "A",
        "a ",
        " a",
        "a\0",
        "a\0b",
        "*",
        "**",
        "/",
        "//",
        "a/b",
        "a/*",
        ".",
        "..",
        "?",
        "%00",
        "%2F",
        "a%2Fb",
        ":",
        "null",
        "undefined",
        "0",
        "-0",
        "00",
        "é",
        "e\u{301}",
        "É",
        "ß",
        "ss",
        "SS",
        "ﬁ",
        "fi",
        "K",
        "\u{212a}",
        "k",
        "Å",
        "\u{212b}",
        "A\u{30a}",
        "i",
        "I",
        "ı",
        "İ",
        "\u{200b}",
        "\u{feff}",
        "\u{feff}a",
        "\u{202e}a",
        "\u{85}",
        "\u{2028}",
        "\u{2029}",
        "\u{10ffff}",
        "\u{fffd}",
        "👩‍👩‍👧",
        "👩👩👧",
    ]
    .map(str::to_owned)
    .into();
    ids.push("x".repeat(4096));
    ids.push("x".repeat(4095));
    ids.push(format!("{}y", "x".repeat(4095)));
    ids
}

fn next_data(stream: &mut Subscription) -> Option<String> {
    let item = stream.next().now_or_never()?;
    let frame = item.expect("the stream has not ended").expect("no lag");
    Some(frame.data())
}

/// Registers each user, sends each one event, and looks at what arrived where.
fn each_gets_its_own(users: &BTreeSet<String>) {
    let hub = GenericBroadcaster::<Text>::new();
    let mut streams = Vec::new();
    for user in users {
        assert_eq!(hub.connection_count(user), 0, "{user:?} is there already");
        let stream = hub.register(&**user).expect("no cap is reached");
        assert_eq!(stream.guard().user().as_str(), user);
        streams.push((user, stream));
    }
    for (number, (user, _)) in streams.iter().enumerate() {
        let reached = hub.broadcast(user, &Text::new(number.to_string()));
        assert_eq!(reached.expect("text can be encoded"), 1, "{user:?}");
    }
    for (number, (user, stream)) in streams.iter_mut().enumerate() {
        assert_eq!(next_data(stream), Some(number.to_string()), "{user:?}");
        assert_eq!(next_data(stream), None, "{user:?} got another's event");
    }

    let connected = hub.connected_users();
    assert_eq!(connected.len(), users.len());
    let connected: BTreeSet<String> = connected.iter().map(|u| u.as_str().to_owned()).collect();
    assert_eq!(&connected, users);

    // One leaves: that one, and no other.
    let (gone, stream) = streams.swap_remove(streams.len() / 2);
    drop(stream);
    let connected: BTreeSet<_> = hub.connected_users().into_iter().collect();
    assert_eq!(connected.len(), users.len() - 1);
    assert!(!connected.contains(&**gone));
    assert_eq!(hub.drain_user(gone), 0);
    for (user, _) in &streams {
        assert_eq!(hub.drain_user(user), 1, "{user:?}");
    }
}

#[test]
fn odd_ids_are_users_like_any_other() {
    let ids = odd_ids();
    let users: BTreeSet<String> = ids.iter().cloned().collect();
    assert_eq!(users.len(), ids.len(), "an id is in the list twice");
    each_gets_its_own(&users);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn users_get_only_their_own_events(
        users in prop::collection::btree_set(
            prop_oneof![
                prop::collection::vec(any::<char>(), 0..4).prop_map(|chars| chars.into_iter().collect()),
                proptest::sample::select(odd_ids()),
                "[ab*/]{0,3}",
            ],
            1..60,
        ),
    ) {
        each_gets_its_own(&users);
    }

    #[test]
    fn ids_keep_every_byte(text in any::<String>()) {
        let user = UserId::from(&*text);
        prop_assert_eq!(user.as_str(), &text);
        prop_assert_eq!(user.to_string(), text.clone());
        prop_assert_eq!(format!("{user:?}"), format!("{text:?}"));
        let connection = ConnectionId::from(text.clone());
        prop_assert_eq!(connection.as_str(), &text);
    }
}

#[test]
fn connection_ids_may_be_any_text() {
    let hub: GenericBroadcaster<Text> = GenericBroadcaster::builder()
        .connections_per_user(None)
        .build()
        .expect("valid settings");
    let ids = odd_ids();
    let streams: Vec<Subscription> = ids
        .iter()
        .map(|id| hub.register_as("ann", &**id).expect("each id is new"))
        .collect();
    let listed: Vec<String> = hub
        .connection_info_of("ann")
        .iter()
        .map(|info| info.connection.as_str().to_owned())
        .collect();
    let mut sorted = ids.clone();
    sorted.sort();
    assert_eq!(listed, sorted, "in the order of their ids");
    for (left, id) in ids.iter().enumerate() {
        assert_eq!(hub.connection_count("ann"), ids.len() - left);
        assert!(hub.unregister("ann", &ConnectionId::from(&**id)), "{id:?}");
    }
    assert_eq!(hub.total_connections(), 0);
    drop(streams);
    assert_eq!(hub.total_connections(), 0);
}

#[test]
fn a_generated_connection_id_is_two_numbers_in_hexadecimal_digits() {
    for _ in 0..5_000 {
        let id = ConnectionId::generate();
        let (process, number) = id.as_str().split_once('-').expect("a hyphen");
        let parse = |digits| u64::from_str_radix(digits, 16).expect("digits");
        let same = format!("{:016x}-{:x}", parse(process), parse(number));
        assert_eq!((process.len(), id.as_str()), (16, &*same));
    }
}

#[test]
fn generated_connection_ids_never_repeat() {
    const EACH: usize = 10_000;
    let threads: Vec<_> = (0..8)
        .map(|_| {
            thread::spawn(|| {
                (0..EACH)
                    .map(|_| ConnectionId::generate())
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let mut seen = HashSet::new();
    for thread in threads {
        for id in thread.join().expect("no panic") {
            assert!(!id.is_empty());
            assert!(seen.insert(id.clone()), "{id} came twice");
        }
    }
    assert_eq!(seen.len(), 8 * EACH);
}

#[test]
fn registrations_without_an_id_get_one_each() {
    let hub = GenericBroadcaster::<Text>::new();
    let (a, b) = (hub.register("ann"), hub.register("ann"));
    let (a, b) = (a.expect("no cap is reached"), b.expect("no cap is reached"));
    assert_ne!(a.guard().connection_id(), b.guard().connection_id());
}

#[test]
fn event_ids_are_limited_in_bytes() {
    assert_eq!(EventId::MAX_LEN, 128);
    for longest in ["x".repeat(128), "é".repeat(64)] {
        assert_eq!(
            EventId::new(&*longest).expect("128 bytes").as_str(),
            longest
        );
    }
    for too_long in [
        "x".repeat(129),
        format!("x{}", "é".repeat(64)),
        "x".repeat(1 << 20),
    ] {
        let error = EventId::new(&*too_long).expect_err("more than 128 bytes");
        assert_eq!(error.field(), Some(Field::Id));
        let text = error.to_string();
        assert!(
            text.contains(&too_long.len().to_string()) && text.contains("128"),
            "{text}"
        );
    }
}

#[test]
fn event_ids_are_one_line_and_not_empty() {
    for bad in ["", "\r", "\n", "\0", "a\rb", "a\nb", "a\0b", "a\r\n"] {
        let error = EventId::new(bad).expect_err("not one line");
        assert_eq!(error.field(), Some(Field::Id), "{bad:?}");
    }
    for good in [" ", ":", "\u{feff}", "\u{2028}", "\u{85}", "*", "é"] {
        assert_eq!(EventId::new(good).expect("one line").as_str(), good);
    }
    assert_eq!(EventId::from(u64::MAX).as_str(), "18446744073709551615");
}
