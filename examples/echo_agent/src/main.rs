//! A small agent whose run is shown to clients of AG-UI and of A2A, fed from one place: the router.
//!
//!     cargo run -p echo_agent -- any words
//!
//! The agent is in `agent_hub/src/app/agent.rs`. Each line names a stream, and what it got. `agent_hub` serves the same agent
//! to clients over HTTP.

use std::error::Error;

use serde_json::Map;
use tidings::protocol::a2a::A2aEvent;
use tidings::protocol::agui::AgUiEvent;
use tidings::{BroadcastError, EventRouter, Subscription};
use tokio_stream::{StreamExt, StreamMap};

use agent::{Job, Outlet};

#[path = "../../agent_hub/src/app/agent.rs"]
mod agent;

const USER: &str = "ann";

/// All that an agent needs: a router, and whose agent it is.
struct RouterOutlet(EventRouter);

impl Outlet for RouterOutlet {
    fn agui(&self, event: &AgUiEvent) -> Result<(), BroadcastError> {
        self.0.route_agui(USER, event).map(drop)
    }

    fn a2a(&self, event: &A2aEvent) -> Result<(), BroadcastError> {
        self.0.route_a2a(USER, event).map(drop)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let text = if words.is_empty() {
        "hello to everybody".into()
    } else {
        words.join(" ")
    };

    let router = EventRouter::new();
    // A chat, another agent, and a dashboard that shows both protocols.
    let mut streams: StreamMap<&str, Subscription> = StreamMap::new();
    streams.insert("agui   ", router.agui().register(USER)?);
    streams.insert("a2a    ", router.a2a().register(USER)?);
    streams.insert("context", router.context().register(USER)?);

    let job = Job {
        conversation: "thread-1".into(),
        id: "run-1".into(),
        text,
        state: Map::new(),
    };
    let worked = tokio::spawn(agent::work(job, RouterOutlet(router.clone())));
    let show = async {
        while let Some((stream, frame)) = streams.next().await {
            match frame {
                Ok(frame) => println!("{stream} {}", frame.data()),
                Err(gap) => println!("{stream} lost: {gap:?}"),
            }
        }
    };
    let end = async {
        let worked = worked.await;
        // Each stream ends behind what was sent.
        router.agui().drain_user(USER);
        router.a2a().drain_user(USER);
        router.context().drain_user(USER);
        worked
    };
    let ((), worked) = tokio::join!(show, end);
    Ok(worked??)
}
