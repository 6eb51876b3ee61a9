//! A publisher broadcasts in order and in full, and says when it cannot.

use tidings::{ConfigError, Data, EncodeError, GenericBroadcaster, PublishError, Text, ToSse};
use tokio_stream::StreamExt;

fn text(number: usize) -> Text {
    Text::new(number.to_string())
}

#[tokio::test]
async fn events_arrive_in_their_order() {
    let hub = GenericBroadcaster::<Text>::new();
    let publisher = hub.publisher(4).unwrap();
    let mut ann = hub.register("ann").unwrap();
    let mut bob = hub.register("bob").unwrap();
    let publishing = tokio::spawn(async move {
        for number in 0..1000 {
            publisher.publish("ann", text(number)).await.unwrap();
            publisher.publish("bob", text(number)).await.unwrap();
        }
    });
    for number in 0..1000 {
        for tab in [&mut ann, &mut bob] {
            assert_eq!(
                tab.next().await.unwrap().unwrap().data(),
                number.to_string()
            );
        }
    }
    publishing.await.unwrap();
}

#[tokio::test]
async fn a_full_queue_gives_the_event_back() {
    let hub = GenericBroadcaster::<Text>::new();
    let publisher = hub.publisher(2).unwrap();
    let mut tab = hub.register("ann").unwrap();
    // The task has no turn before this one waits.
    publisher.try_publish("ann", text(0)).unwrap();
    publisher.try_publish("ann", text(1)).unwrap();
    let refused = publisher.try_publish("ann", text(2)).unwrap_err();
    assert!(matches!(refused, PublishError::Full(_)), "{refused:?}");
    assert!(publisher.flush().await);
    publisher.try_publish("ann", refused.into_event()).unwrap();
    for number in 0..3 {
        assert_eq!(
            tab.next().await.unwrap().unwrap().data(),
            number.to_string()
        );
    }
}

#[tokio::test]
async fn events_handed_over_are_broadcast_after_the_last_clone_dropped() {
    let hub = GenericBroadcaster::<Text>::new();
    let mut tab = hub.register("ann").unwrap();
    let publisher = hub.publisher(100).unwrap();
    for number in 0..50 {
        publisher.clone().try_publish("ann", text(number)).unwrap();
    }
    drop(publisher);
    drop(hub);
    for number in 0..50 {
        assert_eq!(
            tab.next().await.unwrap().unwrap().data(),
            number.to_string()
        );
    }
}

#[tokio::test]
async fn a_flush_waits_for_what_came_before() {
    let hub = GenericBroadcaster::<Text>::new();
    let _tab = hub.register("ann").unwrap();
    let publisher = hub.publisher(100).unwrap();
    for number in 0..50 {
        publisher.try_publish("ann", text(number)).unwrap();
    }
    assert_eq!(hub.stats().encoded, 0);
    assert!(publisher.flush().await);
    assert_eq!(hub.stats().encoded, 50);
}

/// What some events do when they are encoded.
enum Odd {
    Fine,
    Panics,
    Fails,
}

impl ToSse for Odd {
    fn event(&self) -> Option<&str> {
        matches!(self, Self::Fails).then_some("two\nlines")
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        assert!(!matches!(self, Self::Panics), "as it is meant to");
        data.text("fine");
        Ok(())
    }
}

#[tokio::test]
async fn a_bad_event_harms_no_other() {
    let hub = GenericBroadcaster::<Odd>::new();
    let mut tab = hub.register("ann").unwrap();
    let publisher = hub.publisher(100).unwrap();
    for odd in [Odd::Panics, Odd::Fails, Odd::Fine] {
        publisher.try_publish("ann", odd).unwrap();
    }
    assert_eq!(tab.next().await.unwrap().unwrap().data(), "fine");
    assert!(publisher.flush().await);
    assert_eq!(hub.stats().failed, 1);
}

#[test]
fn without_a_runtime_there_is_an_error() {
    let hub = GenericBroadcaster::<Text>::new();
    assert_eq!(hub.publisher(1).unwrap_err(), ConfigError::NoRuntime);
    assert_eq!(hub.publisher(0).unwrap_err(), ConfigError::EmptyQueue);

    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let publisher = runtime.block_on(async { hub.publisher(usize::MAX).unwrap() });
    drop(runtime);
    let refused = publisher.try_publish("ann", text(7)).unwrap_err();
    assert!(matches!(refused, PublishError::Stopped(_)), "{refused:?}");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    assert!(!runtime.block_on(publisher.flush()));
    let refused = runtime.block_on(publisher.publish("ann", text(8)));
    assert!(matches!(refused, Err(PublishError::Stopped(_))));
}
