//! What one broadcaster refuses, the other sends all the same.

use tidings::backplane::Level;
use tidings::protocol::agui::AgUiEvent;
use tidings::{BroadcastError, History, RelayError};
use tidings_testkit::backplane::InProcess;

use super::*;

/// A router whose broadcasters have room for so many events to publish, each to an engine of its own.
fn router(own: usize, context: usize) -> EventRouter {
    fn over<E>(events: usize) -> GenericBroadcaster<E> {
        let engine = InProcess::new(Level::AtMostOnce).node();
        let builder = GenericBroadcaster::builder().backplane(engine);
        let builder = builder.backplane_queue(events, 64 << 20);
        builder.build().expect("valid settings")
    }
    let router = EventRouter::builder().agui(over(own));
    router.context(over(context)).build()
}

fn delta(text: &str) -> AgUiEvent {
    Event::text_message_content("m", text).into()
}

#[tokio::test]
async fn for_want_of_room_in_its_queue() {
    const ROOM: usize = 1000;
    for (own, context) in [(1, ROOM), (ROOM, 1), (1, 1)] {
        let router = router(own, context);
        let mut ann = Streams::open(&router, "ann");
        // Nothing is published meanwhile: the tasks have no turn.
        router
            .route_agui("ann", &delta("1"))
            .expect("there is room");
        let error = router.route_agui("ann", &delta("2"));
        assert!(
            matches!(
                error,
                Err(BroadcastError::NotRelayed {
                    reached: 2,
                    reason: RelayError::QueueFull
                })
            ),
            "{error:?}"
        );
        let [agui, _, context, _] = ann.take();
        assert_eq!((agui.len(), context.len()), (2, 2));
    }
}

#[tokio::test]
async fn because_its_form_of_the_event_is_too_large() {
    let router = router(1000, 1000);
    let refused = || router.agui().stats().backplane.expect("an engine").refused;
    // Down to the length at which only the wrapped form is too large.
    for len in (0..=1 << 20).rev().step_by(8) {
        let (user, before) = (len.to_string(), refused());
        let mut streams = Streams::open(&router, &user);
        let error = router.route_agui(&user, &delta(&"x".repeat(len)));
        assert!(
            matches!(
                error,
                Err(BroadcastError::NotRelayed {
                    reached: 2,
                    reason: RelayError::TooLarge { .. }
                })
            ),
            "{len}: {error:?}"
        );
        let [agui, _, context, _] = streams.take();
        assert_eq!((agui.len(), context.len()), (1, 1), "{len}");
        if refused() == before {
            return;
        }
    }
    unreachable!("a shorter event is not too large");
}

#[test]
fn because_the_users_channel_is_complete() {
    let kept = GenericBroadcaster::builder()
        .history(History::new(10))
        .build();
    let router = EventRouter::builder()
        .agui(kept.expect("valid settings"))
        .build();
    let mut ann = Streams::open(&router, "ann");
    router.agui().complete("ann").expect("there is a history");
    let error = router.route_agui("ann", &delta("late"));
    assert!(matches!(error, Err(BroadcastError::Complete)), "{error:?}");
    assert_eq!(take(&mut ann.context).len(), 1);
}
