//! The trace of the publisher, from the event to the streams.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};

use http_body::Body;
use tidings::{
    Data, EncodeError, Frame, GenericBroadcaster, JsonEvent, Meta, SseBody, Text, ToSse,
    TraceParent,
};
use tracing::field::{Field, Visit};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// Held by each test that opens streams: whether a place in the code is of interest is kept for the whole process, and what
/// one test's thread finds out while another's layer comes or goes would be kept too.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

const OTHER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// Does what a layer of a tracing system would do: records the field, and the span in which it is logged.
#[derive(Clone, Default)]
struct Traces(Arc<Mutex<Vec<(String, String)>>>);

impl Traces {
    fn take(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.0.lock().expect("nothing panics in here"))
    }
}

impl<S: tracing::Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Traces {
    fn on_event(&self, event: &tracing::Event<'_>, cx: tracing_subscriber::layer::Context<'_, S>) {
        struct Parent(Option<String>);
        impl Visit for Parent {
            fn record_str(&mut self, field: &Field, value: &str) {
                if field.name() == "traceparent" {
                    self.0 = Some(value.to_owned());
                }
            }

            fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
        }
        let mut parent = Parent(None);
        event.record(&mut parent);
        if let Some(parent) = parent.0 {
            let span = cx.event_span(event).map_or("", |span| span.name());
            let mut traces = self.0.lock().expect("nothing panics in here");
            traces.push((span.to_owned(), parent));
        }
    }
}

fn parent(text: &str) -> TraceParent {
    text.parse().expect("it is one")
}

fn poll(body: &mut SseBody) -> String {
    let mut cx = Context::from_waker(Waker::noop());
    match Pin::new(body).poll_frame(&mut cx) {
        std::task::Poll::Ready(Some(Ok(chunk))) => {
            let bytes = chunk.into_data().expect("data");
            String::from_utf8(bytes.to_vec()).expect("UTF-8")
        }
        other => panic!("{other:?}"),
    }
}

/// An event that knows its trace.
struct Order(TraceParent);

impl ToSse for Order {
    fn meta(&self) -> Meta<'_> {
        let mut meta = Meta::default();
        meta.trace_parent = Some(self.0);
        meta
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        data.text("order");
        Ok(())
    }
}

#[tokio::test]
async fn a_layer_learns_the_publishers_trace_once_for_each_stream() {
    let _alone = ALONE.lock().await;
    let traces = Traces::default();
    let subscriber = tracing_subscriber::registry().with(traces.clone());
    let _default = tracing::subscriber::set_default(subscriber);
    let hub = GenericBroadcaster::<Text>::new();
    let mut first = SseBody::new(hub.register("ann").expect("there is no cap"));
    let mut second = SseBody::new(hub.register("ann").expect("there is no cap"));

    hub.broadcast("ann", &Text::new("without")).expect("text");
    assert_eq!(poll(&mut first), "data: without\n\n");
    assert_eq!(traces.take(), []);
    poll(&mut second);

    let event = Text::new("with");
    hub.broadcast_traced("ann", &event, parent(PARENT))
        .expect("text");
    assert_eq!(traces.take(), []);
    // It is not sent.
    assert_eq!(poll(&mut first), "data: with\n\n");
    assert_eq!(traces.take(), [("connection".into(), PARENT.into())]);
    poll(&mut second);
    assert_eq!(traces.take(), [("connection".into(), PARENT.into())]);
}

#[tokio::test]
async fn with_the_level_off_nothing_is_logged() {
    let _alone = ALONE.lock().await;
    let traces = Traces::default();
    let subscriber =
        tracing_subscriber::registry().with(traces.clone().with_filter(LevelFilter::INFO));
    let _default = tracing::subscriber::set_default(subscriber);
    let hub = GenericBroadcaster::<Text>::new();
    let mut body = SseBody::new(hub.register("ann").expect("there is no cap"));
    let event = Text::new("with").trace_parent(parent(PARENT));
    hub.broadcast("ann", &event).expect("text");
    assert_eq!(poll(&mut body), "data: with\n\n");
    assert_eq!(traces.take(), []);
}

#[test]
fn events_bring_their_trace_in_each_of_the_ways() {
    let trace_of = |event: &dyn ToSse| {
        Frame::encode(event)
            .expect("it can be encoded")
            .trace_parent()
    };
    assert_eq!(trace_of(&Order(parent(PARENT))), Some(parent(PARENT)));
    assert_eq!(trace_of(&&Order(parent(PARENT))), Some(parent(PARENT)));
    assert_eq!(
        trace_of(&JsonEvent::new(1).trace_parent(parent(OTHER))),
        Some(parent(OTHER))
    );
    assert_eq!(trace_of(&JsonEvent::new(1)), None);
}

#[tokio::test]
async fn the_trace_of_the_call_takes_the_place_of_the_events_own() {
    use tokio_stream::StreamExt;

    let _alone = ALONE.lock().await;
    let hub = GenericBroadcaster::<Order>::new();
    let mut tab = hub.register("ann").expect("there is no cap");
    hub.broadcast("ann", &Order(parent(PARENT))).expect("text");
    hub.broadcast_traced("ann", &Order(parent(PARENT)), parent(OTHER))
        .expect("text");
    let mut next = async || {
        tab.next()
            .await
            .expect("it is open")
            .expect("no gap")
            .trace_parent()
    };
    assert_eq!(next().await, Some(parent(PARENT)));
    assert_eq!(next().await, Some(parent(OTHER)));
}

#[test]
fn a_trace_parent_is_what_the_standard_says() {
    let parsed = parent(PARENT);
    assert_eq!((parsed.as_str(), &*parsed.to_string()), (PARENT, PARENT));
    assert_eq!(parsed.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(parsed.span_id(), "00f067aa0ba902b7");
    // A version that is not known yet may say more.
    let later = format!("cc{}-what-the-future-brings", &PARENT[2..]);
    assert_eq!(parent(&later).as_str(), &later[..55]);
    let zeros = "0".repeat(32);
    for wrong in [
        "",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
        "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-0",
        &PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &zeros),
    ] {
        assert!(wrong.parse::<TraceParent>().is_err(), "{wrong:?}");
    }
}

/// An event whose attachment is its relay data on other nodes.
struct Relayed;

impl ToSse for Relayed {
    fn meta(&self) -> Meta<'_> {
        let mut meta = Meta::default();
        meta.relay_data = Some("for other nodes".into());
        meta
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        data.text("relayed");
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_trace_does_not_cost_the_event_its_relay_data() {
    use tidings::backplane::Level;
    use tidings_testkit::backplane::InProcess;
    use tokio_stream::StreamExt;

    let _alone = ALONE.lock().await;
    let engine = InProcess::new(Level::AtMostOnce);
    let node = || {
        GenericBroadcaster::<Relayed>::builder()
            .backplane(engine.node())
            .attachments(|_, data| Some(Arc::new(data.map(str::to_owned))))
            .build()
            .expect("valid settings")
    };
    let (here, there) = (node(), node());
    let mut tab = there.register_when_ready("ann").await.expect("room");
    here.broadcast("ann", &Relayed).expect("text");
    here.broadcast_traced("ann", &Relayed, parent(PARENT))
        .expect("text");
    for way in ["without a trace", "with one"] {
        let frame = tab.next().await.expect("it is open").expect("no gap");
        let data = frame.attachment::<Option<String>>();
        let data = data.expect("an attachment").as_deref();
        assert_eq!(data, Some("for other nodes"), "{way}");
    }
}
