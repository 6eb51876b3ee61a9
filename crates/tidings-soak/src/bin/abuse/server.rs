//! The server that is abused: streams of a hub with a history, behind `tidings::serve`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use tidings::serve::{bind, serve};
use tidings::{
    GenericBroadcaster, History, LastEventId, RefusalForm, RegisterError, Subscription, Text,
};
use tokio::runtime::Runtime;
use tokio::time::MissedTickBehavior;

use crate::support::process::{Process, answer, part_command};

/// How it is set.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    /// The most streams; 0 for no cap.
    pub(crate) streams: usize,
    /// Whether whoever is refused is told to come back, as browsers need it.
    pub(crate) comes_back: bool,
    pub(crate) head_time: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            streams: 0,
            comes_back: false,
            head_time: Duration::from_secs(30),
        }
    }
}

pub(crate) fn start(settings: Settings) -> Process {
    let Settings {
        streams,
        comes_back,
        head_time,
    } = settings;
    let numbers = [
        streams,
        usize::from(comes_back),
        head_time.as_millis() as usize,
    ];
    let args = numbers.map(|number| number.to_string());
    let args = ["server".to_owned()].into_iter().chain(args);
    Process::start(part_command(args))
}

/// The user who gets the time, a hundred times a second, once it was asked for.
pub(crate) const CLOCK: &str = "clock";

pub(crate) fn now_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("it is later than 1970").as_nanos() as u64
}

type Hub = GenericBroadcaster<Text>;

async fn stream(
    State(hub): State<Hub>,
    Path(user): Path<String>,
    last_event_id: LastEventId,
) -> Result<Subscription, RegisterError> {
    hub.resume(user, &last_event_id)
}

/// Serves, and answers: `connections` and `refused` are numbers, `clock` begins to send the time.
pub(crate) fn be(args: &[String]) {
    let number = |n: usize| -> usize { args[n].parse().expect("a number") };
    let runtime = Runtime::new().expect("threads can be started");
    runtime.block_on(async {
        let form = match number(1) {
            0 => RefusalForm::Status,
            _ => RefusalForm::ComeBack,
        };
        let hub: Hub = GenericBroadcaster::builder()
            .connections_per_user(None)
            .total_connections(Some(number(0)).filter(|streams| *streams > 0))
            .when_full(form)
            .history(History::new(100))
            .build()
            .expect("the settings are valid");
        let app = Router::new()
            .route("/{user}", get(stream))
            .with_state(hub.clone());
        let listener = bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let runtime = tokio::runtime::Handle::current();
        answer(&format!("http://{addr}"), move |question| match question {
            "connections" => hub.stats().connections.to_string(),
            "refused" => hub.stats().refused.to_string(),
            _ => {
                runtime.spawn(send_the_time(hub.clone()));
                String::new()
            }
        });
        let server = serve(listener, app);
        let server = server.header_read_timeout(Duration::from_millis(number(2) as u64));
        let server = server.http2(true);
        server.await;
    });
}

async fn send_the_time(hub: Hub) {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    // A machine that is too slow sends fewer, and not the rest in a burst, which would be more than the history has.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let event = Text::new(now_nanos().to_string());
        hub.broadcast(CLOCK, &event).expect("text can be encoded");
    }
}
