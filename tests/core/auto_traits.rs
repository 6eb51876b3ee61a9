//! Pins which public types are `Send`, `Sync`, `Unpin` and `'static`: a private field could take that away unnoticed.

use std::cell::Cell;
use std::error::Error;
use std::sync::Arc;

use tidings::{
    BroadcastError, Broadcaster, Builder, ConfigError, ConnectionGuard, ConnectionId,
    ConnectionInfo, Data, EncodeError, EventId, EventSender, Field, Frame, Gap, GapReason,
    GenericBroadcaster, History, Hold, JsonEvent, KeepAlive, LastEventId, Presence, PresenceStream,
    RegisterError, SseBody, Stats, Subscription, Text, ToSse, TraceParent, UserId,
};

fn all<T: Send + Sync + Unpin + 'static>() {}
fn error<T: Error + Send + Sync + Unpin + 'static>() {}
fn value<T: Send>(_: T) {}

/// An event that stays in its thread.
struct Local(#[expect(dead_code)] Cell<*const ()>);

impl ToSse for Local {
    fn data(&self, _: &mut Data<'_>) -> Result<(), EncodeError> {
        Ok(())
    }
}

/// Whether a type is not `Send`, or not `Sync`: two candidates make the call ambiguous if it is.
macro_rules! assert_not {
    ($trait:path: $($type:ty),+) => {$({
        trait Ambiguous<A> {
            fn check() {}
        }
        impl<T: ?Sized> Ambiguous<()> for T {}
        struct Both;
        impl<T: ?Sized + $trait> Ambiguous<Both> for T {}
        <$type as Ambiguous<_>>::check()
    })+};
}

#[test]
fn types_go_wherever_a_service_needs_them() {
    all::<GenericBroadcaster<Text>>();
    all::<Builder<Text>>();
    all::<Subscription>();
    all::<ConnectionGuard>();
    all::<Hold>();
    all::<Presence>();
    all::<PresenceStream>();
    all::<ConnectionInfo>();
    all::<EventSender>();
    all::<SseBody>();
    all::<KeepAlive>();
    all::<tidings::sse::Cursor>();
    all::<Frame>();
    all::<Stats>();
    all::<TraceParent>();
    all::<UserId>();
    all::<ConnectionId>();
    all::<EventId>();
    all::<LastEventId>();
    all::<History>();
    all::<GapReason>();
    all::<Field>();
    all::<Text>();
    all::<Text<&'static str>>();
    all::<JsonEvent<u8>>();
    all::<Data<'static>>();
    all::<Arc<dyn Broadcaster<Event = Text>>>();
    all::<Box<dyn ToSse + Send + Sync>>();
}

#[cfg(feature = "axum")]
#[test]
fn responses_go_wherever_axum_needs_them() {
    all::<tidings::sse::SseResponse>();
    fn stream<T: Send + Unpin + 'static>(_: fn(Subscription) -> T) {}
    stream(Subscription::into_axum_events);
}

#[cfg(feature = "serve")]
#[test]
fn servers_can_be_spawned() {
    use tidings::serve::{Drained, Server, ServerFuture, StallGuard, StallListener, TcpKeepAlive};
    all::<StallGuard<tokio::net::TcpStream>>();
    all::<StallListener>();
    all::<TcpKeepAlive>();
    all::<Drained>();
    fn task<T: Send + Unpin + 'static>() {}
    task::<Server>();
    task::<ServerFuture>();
}

#[cfg(feature = "agents")]
#[test]
fn events_of_the_protocols_go_wherever_a_service_needs_them() {
    use tidings::protocol::{a2a, agui, analytics, context, system};
    all::<agui::AgUiEvent>();
    all::<agui::RunAgentInput>();
    all::<a2a::A2aEvent>();
    all::<context::ContextEvent>();
    all::<system::SystemEvent>();
    all::<analytics::AnalyticsEvent>();
    all::<tidings::EventRouter>();
    all::<tidings::EventRouterBuilder>();
    error::<agui::InvalidEvent>();
    error::<a2a::InvalidA2a>();
}

#[test]
fn clients_of_the_test_kit_can_be_spawned() {
    use tidings_testkit::{Decoder, Item, SseClient, SseError, SseRequest, Stalled};
    all::<Decoder>();
    all::<Item>();
    all::<SseRequest>();
    error::<SseError>();
    fn task<T: Send + Unpin + 'static>() {}
    task::<SseClient>();
    task::<Stalled>();
    fn waits(client: &mut SseClient) {
        value(client.reconnect());
        value(client.try_next());
        value(client.next());
        value(client.next_item());
        value(client.collect(1));
        value(client.collect_until(|_| true));
        value(client.collect_to_end());
        value(client.expect_end());
        value(client.expect_break());
        value(client.assert_silent_for(std::time::Duration::ZERO));
    }
    let _ = waits;
    value(SseRequest::get("/").connect(([127, 0, 0, 1], 1).into()));
}

#[test]
fn a_console_can_be_shared() {
    all::<tidings_console::Console>();
    value(tidings_console::Console::new().shutdown());
}

#[test]
fn errors_can_be_boxed_and_sent() {
    error::<EncodeError>();
    error::<BroadcastError>();
    error::<RegisterError>();
    error::<ConfigError>();
    error::<Gap>();
}

#[test]
fn a_broadcaster_holds_no_event() {
    assert_not!(Send: Local);
    assert_not!(Sync: Local);
    all::<GenericBroadcaster<Local>>();
    all::<Builder<Local>>();
    all::<GenericBroadcaster<dyn ToSse>>();
    all::<GenericBroadcaster<str>>();
}

#[test]
fn an_event_is_as_free_as_what_it_holds() {
    assert_not!(Send: JsonEvent<Local>, Text<std::rc::Rc<str>>);
    assert_not!(Sync: JsonEvent<Local>, Text<std::rc::Rc<str>>);
}

#[test]
fn futures_of_the_trait_can_be_spawned() {
    let hub = GenericBroadcaster::<Text>::new();
    let hub: &dyn Broadcaster<Event = Text> = &hub;
    let (ann, tab) = (UserId::from("ann"), ConnectionId::from("tab"));
    let event = Text::default();
    value(hub.register(&ann, tab.clone()));
    value(hub.unregister(&ann, &tab));
    value(hub.broadcast(&ann, &event));
    value(hub.connection_count(&ann));
    value(hub.total_connections());
}
