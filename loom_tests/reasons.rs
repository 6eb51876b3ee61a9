//! Why a connection ended: whoever may end it at the same time agrees on one reason, whoever sees the end finds it there, and
//! those that have left are counted under it.

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use loom::thread;
use tokio::time::Instant;

use super::support::*;
use crate::end::EndReason;
use crate::metrics::Ends;
use crate::registry::{Limits, Patience};
use crate::subscription::Subscription;

fn ended(hub: &Hub) -> Ends {
    hub.counters().totals().ended
}

/// What the stream says of its end, which must have come.
fn reason(stream: &mut Subscription<u32>) -> EndReason {
    assert!(read(stream).ended);
    stream.end_reason().expect("what has ended has a reason")
}

/// So many have left, of these one for this reason.
fn assert_counted(hub: &Hub, reason: EndReason, left: u64) {
    let ended = ended(hub);
    assert_eq!((ended.get(reason), ended.total()), (1, left), "{reason}");
}

/// Two calls end one connection. Is there one reason from when the stream sees its end, and is it the one that is counted?
///
/// Fails: a_later_end_has_another_reason, a_reason_comes_after_the_end.
#[test]
fn unregister_meets_disconnect() {
    model(100, || {
        let hub = hub();
        let mut one = register(&hub, "u", "a");
        let other = {
            let hub = hub.clone();
            thread::spawn(move || hub.disconnect("u"))
        };
        unregister(&hub, "u", "a");
        let reason = reason(&mut one);
        let either = [EndReason::Unregistered, EndReason::Disconnected];
        assert!(either.contains(&reason), "{reason}");
        other.join().unwrap();
        assert_eq!(one.end_reason(), Some(reason));
        drop(one);
        assert_eq!(hub.total(), 0);
        assert_counted(&hub, reason, 1);
    });
}

/// The same between a call and the stream's own drop.
///
/// Fails: a_later_end_has_another_reason.
#[test]
fn unregister_meets_drop() {
    model(80, || {
        let hub = hub();
        let one = register(&hub, "u", "a");
        let leaver = thread::spawn(move || drop(one));
        unregister(&hub, "u", "a");
        leaver.join().unwrap();
        let ended = ended(&hub);
        let either = [EndReason::Dropped, EndReason::Unregistered].map(|reason| ended.get(reason));
        assert_eq!(either.iter().sum::<u64>(), 1);
        assert_eq!(ended.total(), 1);
    });
}

/// A stream that waits sees that it was cut. Does it find out why?
///
/// Fails: a_reason_comes_after_the_end.
#[test]
fn unregister_meets_a_waiting_stream() {
    model(100, || {
        let hub = hub();
        let mut one = register(&hub, "u", "a");
        let waiter = thread::spawn(move || {
            assert_eq!(wait(&mut one), None);
            assert_eq!(one.end_reason(), Some(EndReason::Unregistered));
        });
        unregister(&hub, "u", "a");
        waiter.join().unwrap();
        assert_counted(&hub, EndReason::Unregistered, 1);
    });
}

/// A stream may see that its ring has ended before it is asked to finish. Does it know why by then?
///
/// Fails: the_ring_ends_before_its_streams_know_why, an_end_forgets_the_reason_to_finish.
#[test]
fn drain_meets_a_waiting_stream() {
    model(60, || {
        let hub = hub();
        let mut one = register(&hub, "u", "a");
        let waiter = thread::spawn(move || {
            assert_eq!(wait(&mut one), None);
            assert_eq!(one.end_reason(), Some(EndReason::Drained));
        });
        hub.drain("u");
        waiter.join().unwrap();
        assert_counted(&hub, EndReason::Drained, 1);
    });
}

/// The same where the channel is closed.
///
/// Fails: the_ring_ends_before_its_streams_know_why.
#[test]
fn forget_meets_a_waiting_stream() {
    model(60, || {
        let hub = hub();
        let mut one = register(&hub, "u", "a");
        let waiter = thread::spawn(move || {
            assert_eq!(wait(&mut one), None);
            assert_eq!(one.end_reason(), Some(EndReason::Forgotten));
        });
        hub.forget("u");
        waiter.join().unwrap();
        assert_counted(&hub, EndReason::Forgotten, 1);
    });
}

/// Opens a connection when it is woken, once, and waits for its end in a thread.
struct Newcomer;

thread_local! {
    /// A waker may hold neither. loom's threads are all on one.
    static HUB: Cell<Option<Hub>> = const { Cell::new(None) };
    static WAITER: Cell<Option<thread::JoinHandle<()>>> = const { Cell::new(None) };
}

impl Wake for Newcomer {
    fn wake(self: Arc<Self>) {
        let Some(hub) = HUB.take() else {
            return;
        };
        let mut two = register(&hub, "u", "b");
        let waiter = thread::spawn(move || {
            assert_eq!(wait(&mut two), None);
            assert_eq!(two.end_reason(), Some(EndReason::Disconnected));
        });
        WAITER.set(Some(waiter));
    }
}

/// A connection that comes when the first was cut, and before the channel is closed, sees its ring end. Does it know why?
///
/// Fails: a_channel_ends_before_newcomers_are_cut.
#[test]
fn disconnect_meets_a_newcomer() {
    model(60, || {
        let hub = hub();
        let mut one = register(&hub, "u", "a");
        HUB.set(Some(hub.clone()));
        let waker = Waker::from(Arc::new(Newcomer));
        assert!(poll(&mut one, &mut Context::from_waker(&waker)).is_pending());
        hub.disconnect("u");
        WAITER.take().expect("it was woken").join().unwrap();
        drop(one);
        let ended = ended(&hub);
        assert_eq!((ended.get(EndReason::Disconnected), ended.total()), (2, 2));
        assert_empty(&hub);
    });
}

/// A shutdown cuts while a connection is on its way in. Is one that is refused not counted, and one that came in counted?
///
/// Fails: a_refused_registration_is_counted_as_one_that_left.
#[test]
fn disconnect_all_meets_register() {
    model(19, || {
        let hub = hub();
        let newcomer = {
            let hub = hub.clone();
            thread::spawn(move || try_register(&hub, "u", "a"))
        };
        hub.close(Duration::ZERO);
        hub.disconnect_all();
        match newcomer.join().unwrap() {
            Ok(mut one) => {
                assert_eq!(reason(&mut one), EndReason::Shutdown);
                drop(one);
                assert_counted(&hub, EndReason::Shutdown, 1);
            }
            Err(_) => assert_eq!(ended(&hub).total(), 0, "it was never in"),
        }
        assert_empty(&hub);
    });
}

/// A drained stream is swept while its client goes: it was drained, whoever takes it out.
///
/// Fails: a_later_end_has_another_reason.
#[test]
fn sweep_meets_the_drop_of_an_evicted_stream() {
    model(60, || {
        let patience = Patience {
            behind: 0,
            time: Duration::ZERO,
        };
        let hub = hub_with(Limits {
            patience,
            ..limits()
        });
        let one = register(&hub, "u", "a");
        publish(&hub, "u", 1);
        hub.drain("u");
        let leaver = thread::spawn(move || drop(one));
        hub.sweep(Instant::now());
        leaver.join().unwrap();
        assert_counted(&hub, EndReason::Drained, 1);
        assert_empty(&hub);
    });
}
