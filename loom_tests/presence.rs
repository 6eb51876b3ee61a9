//! `registry/presence.rs`: whoever reads the marks and looks knows in the end who is here.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use loom::thread;

use super::support::*;
use crate::id::UserId;
use crate::registry::Watch;

/// What a reader has found out.
struct Reader {
    watch: Watch<u32>,
    here: BTreeSet<String>,
}

impl Reader {
    fn new(hub: &Hub) -> Self {
        Self {
            watch: hub.watch(),
            here: BTreeSet::new(),
        }
    }

    /// Looks at all that is marked; `true` if the watch is over.
    fn read(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match self.watch.poll_next(&mut cx) {
                Poll::Ready(Some((user, true))) => _ = self.here.insert(user.to_string()),
                Poll::Ready(Some((user, false))) => _ = self.here.remove(&*user),
                Poll::Ready(None) => return true,
                Poll::Pending => return false,
            }
        }
    }

    #[track_caller]
    fn finds(&mut self, here: &[&str]) {
        assert!(!self.read(), "the watch is not over");
        assert_eq!(Vec::from_iter(&self.here), here);
    }
}

/// Does a reader who reads while a user comes know in the end that the user is here?
///
/// Fails: a_user_is_marked_before_coming.
#[test]
fn read_meets_register() {
    model(4, || {
        let hub = hub();
        let mut reader = Reader::new(&hub);
        let comer = {
            let hub = hub.clone();
            thread::spawn(move || register(&hub, "u", "a"))
        };
        reader.read();
        let one = comer.join().unwrap();
        reader.finds(&["u"]);
        drop(one);
        reader.finds(&[]);
    });
}

/// Does a reader who reads while a user leaves know in the end that the user is away?
///
/// Fails: a_user_is_marked_before_leaving, a_mark_is_removed_after_the_look.
#[test]
fn read_meets_the_last_drop() {
    model(20, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let mut reader = Reader::new(&hub);
        reader.finds(&["u"]);
        let two = register(&hub, "u", "b");
        drop(two);
        let leaver = thread::spawn(move || drop(one));
        reader.read();
        leaver.join().unwrap();
        reader.finds(&[]);
    });
}

/// A user comes back while the last connection leaves: does the reader know that the user is here, whichever channel that is?
///
/// Fails: a_user_is_marked_before_coming, a_mark_is_removed_after_the_look.
#[test]
fn drop_meets_register_and_read() {
    model(500, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let mut reader = Reader::new(&hub);
        reader.finds(&["u"]);
        let leaver = thread::spawn(move || drop(one));
        let comer = {
            let hub = hub.clone();
            thread::spawn(move || register(&hub, "u", "b"))
        };
        reader.read();
        leaver.join().unwrap();
        let two = comer.join().unwrap();
        reader.finds(&["u"]);
        drop(two);
        reader.finds(&[]);
    });
}

/// Does a watch that begins while a user comes find the user, by itself or by a mark?
///
/// Fails: a_watch_looks_before_it_is_in_the_list, a_newcomer_looks_for_watches_too_early.
#[test]
fn watch_meets_register() {
    model(20, || {
        let hub = hub();
        let comer = {
            let hub = hub.clone();
            thread::spawn(move || register(&hub, "u", "a"))
        };
        let mut reader = Reader::new(&hub);
        reader.read();
        let one = comer.join().unwrap();
        reader.finds(&["u"]);
        drop(one);
        reader.finds(&[]);
    });
}

/// Does a watch that begins while a user leaves know in the end that the user is away?
///
/// Fails: a_watch_looks_before_it_is_in_the_list, a_leaver_looks_for_watches_too_early.
#[test]
fn watch_meets_the_last_drop() {
    model(20, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let leaver = thread::spawn(move || drop(one));
        let mut reader = Reader::new(&hub);
        reader.read();
        leaver.join().unwrap();
        reader.finds(&[]);
    });
}

/// Does a watch that begins while a user is drained know in the end that the user is away?
///
/// Fails: a_drain_looks_for_watches_too_early.
#[test]
fn watch_meets_drain() {
    model(20, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let drainer = {
            let hub = hub.clone();
            thread::spawn(move || hub.drain("u"))
        };
        let mut reader = Reader::new(&hub);
        reader.read();
        assert_eq!(drainer.join().unwrap(), 1);
        reader.finds(&[]);
        drop(one);
    });
}

/// Does a watch learn what happens while another one ends?
///
/// Fails: a_watch_that_ends_ends_the_others.
#[test]
fn watch_meets_the_end_of_another() {
    model(20, || {
        let hub = hub();
        let other = Reader::new(&hub);
        let ender = thread::spawn(move || drop(other));
        let mut reader = Reader::new(&hub);
        let one = register(&hub, "u", "a");
        ender.join().unwrap();
        reader.finds(&["u"]);
        drop(one);
        reader.finds(&[]);
    });
}

/// Is a user who is drained away, and one who comes at the same time here?
///
/// Fails: a_drained_user_is_not_marked.
#[test]
fn drain_meets_read() {
    model(4, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let mut reader = Reader::new(&hub);
        reader.finds(&["u"]);
        let drainer = {
            let hub = hub.clone();
            thread::spawn(move || hub.drain("u"))
        };
        reader.read();
        assert_eq!(drainer.join().unwrap(), 1);
        reader.finds(&[]);
        drop(one);
        reader.finds(&[]);
    });
}

/// Is a user who is forgotten away, although the stream has not ended?
///
/// Fails: a_forgotten_user_is_not_marked.
#[test]
fn forget_meets_read() {
    model(4, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let mut reader = Reader::new(&hub);
        reader.finds(&["u"]);
        let forgetter = {
            let hub = hub.clone();
            thread::spawn(move || hub.forget("u"))
        };
        reader.read();
        assert_eq!(forgetter.join().unwrap(), 1);
        reader.finds(&[]);
        drop(one);
    });
}

/// Does a reader know who is here when a user is forgotten while a connection comes, also if that opens another channel?
///
/// Fails: a_user_is_marked_before_coming.
#[test]
fn forget_meets_register() {
    model(100, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let mut reader = Reader::new(&hub);
        reader.finds(&["u"]);
        let comer = {
            let hub = hub.clone();
            thread::spawn(move || register(&hub, "u", "b"))
        };
        hub.forget("u");
        let two = comer.join().unwrap();
        match count(&hub, "u") {
            0 => reader.finds(&[]),
            _ => reader.finds(&["u"]),
        }
        drop((one, two));
        reader.finds(&[]);
    });
}

/// Is a reader that waits woken by a mark?
///
/// Fails: a_mark_does_not_wake, a_reader_waits_after_a_look_outside_the_lock.
#[test]
fn wait_meets_register() {
    model(10, || {
        let hub = hub();
        let mut reader = Reader::new(&hub);
        let comer = {
            let hub = hub.clone();
            thread::spawn(move || register(&hub, "u", "a"))
        };
        let next = wait_for(&mut reader);
        assert_eq!(next, Some(("u".into(), true)));
        drop(comer.join().unwrap());
    });
}

/// Is a reader that waits woken by the end, and when nobody is here any more?
///
/// Fails: a_mark_does_not_wake, watches_end_before_the_connections.
#[test]
fn wait_meets_the_end() {
    model(3, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let mut reader = Reader::new(&hub);
        let ender = {
            let hub = hub.clone();
            thread::spawn(move || hub.disconnect_all())
        };
        while wait_for(&mut reader).is_some() {}
        assert!(!reader.watch.is_here(&"u".into()));
        assert_eq!(hub.total(), 0);
        ender.join().unwrap();
        drop(one);
    });
}

fn wait_for(reader: &mut Reader) -> Option<(UserId, bool)> {
    loom::future::block_on(poll_fn(|cx| reader.watch.poll_next(cx)))
}

/// Does a watch end that begins while the broadcaster ends, or with its last connection?
///
/// Fails: a_watch_that_comes_late_does_not_end.
#[test]
fn watch_meets_the_end() {
    model(4, || {
        let hub = hub();
        let ender = {
            let hub = hub.clone();
            thread::spawn(move || hub.disconnect_all())
        };
        let mut reader = Reader::new(&hub);
        ender.join().unwrap();
        assert!(reader.read(), "the watch is over");
        let registry = Arc::downgrade(&hub);
        drop(hub);
        assert!(registry.upgrade().is_none(), "a watch keeps nothing alive");
    });
}
