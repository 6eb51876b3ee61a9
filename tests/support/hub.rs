//! The example `agent_hub`, served by the test itself, and how to talk to it.

#![allow(dead_code, reason = "each test file uses a part of it")]

use reqwest::{Client, Url};
use serde_json::{Value, json};
use tidings::backplane::Level;
use tidings::{EventRouter, GenericBroadcaster, Text};
use tidings_testkit::backplane::{InProcess, InProcessNode};
use tokio::net::TcpListener;

#[path = "../../examples/agent_hub/src/app/mod.rs"]
mod app;

#[allow(unused_imports, reason = "each test file uses a part of it")]
pub(crate) use super::within::within;
#[allow(unused_imports, reason = "each test file uses a part of it")]
pub(crate) use app::site::Site;

/// The engines that hubs share the runs of their agents over.
pub(crate) struct Engines([InProcess; 3]);

/// What one hub has of them.
pub(crate) type Nodes = [InProcessNode; 3];

impl Engines {
    pub(crate) fn new() -> Self {
        Self([(); 3].map(|()| InProcess::new(Level::Replayable)))
    }

    pub(crate) fn nodes(&self) -> Nodes {
        self.0.each_ref().map(InProcess::node)
    }

    /// As if a hub were no more, or had no network.
    pub(crate) fn cut(&self, nodes: &Nodes) {
        for (engine, node) in self.0.iter().zip(nodes) {
            engine.cut(node);
        }
    }

    #[allow(dead_code, reason = "for one of the programs that include it")]
    pub(crate) fn mend(&self, nodes: &Nodes) {
        for (engine, node) in self.0.iter().zip(nodes) {
            engine.mend(node);
        }
    }
}

/// Where an agent hub listens, and a client for it.
pub(crate) struct Hub {
    pub(crate) client: Client,
    base: Url,
}

impl Hub {
    /// A hub that listens at `base` already.
    pub(crate) fn at(base: &str) -> Self {
        Self {
            client: Client::builder().no_proxy().build().expect("a client"),
            base: base.parse().expect("a URL"),
        }
    }

    /// A hub of its own for one test. It goes with the test's runtime.
    pub(crate) async fn start() -> Self {
        Self::serving(GenericBroadcaster::new()).await
    }

    /// The same with settings.
    pub(crate) async fn serving(text: GenericBroadcaster<Text>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let hub = app::Hub::new(text, EventRouter::new(), None, None);
        tokio::spawn(async { axum::serve(listener, app::router(hub)).await });
        Self::at(&format!("http://{addr}"))
    }

    /// The routes of another hub, to be called without a server.
    pub(crate) fn router() -> axum::Router {
        Self::router_at(Site::default())
    }

    /// The same for a hub that sends its events through these broadcasters.
    pub(crate) fn router_over(events: EventRouter) -> axum::Router {
        let hub = app::Hub::new(GenericBroadcaster::new(), events, None, None);
        app::router(hub)
    }

    /// The same for a hub that clients reach in this way.
    pub(crate) fn router_at(site: Site) -> axum::Router {
        let text = GenericBroadcaster::new();
        let hub = app::Hub::new(text, EventRouter::new(), None, None);
        app::router(hub.site(site))
    }

    /// The routes of one of several hubs that share the runs of their agents.
    pub(crate) fn router_of(nodes: Nodes) -> axum::Router {
        let [runs, chats, notices] = nodes;
        let built = "the settings are valid";
        let runs = app::runs::of_agent().backplane(runs).build();
        let chats = app::runs::of_chats().backplane(chats).build();
        let notices = GenericBroadcaster::builder().backplane(notices).build();
        let hub = app::Hub::new(GenericBroadcaster::new(), EventRouter::new(), None, None);
        let hub = hub.sharing(
            runs.expect(built),
            chats.expect(built),
            &notices.expect(built),
        );
        app::router(hub.expect("nothing is full"))
    }

    /// The URL with these segments as its path, each percent-encoded.
    pub(crate) fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .expect("http has paths")
            .extend(path);
        url
    }

    /// Posts without a body and returns what is answered.
    pub(crate) async fn post(&self, path: &[&str]) -> Value {
        let response = self.client.post(self.url(path)).send().await;
        let response = response.expect("a response").error_for_status();
        response.expect("success").json().await.expect("JSON")
    }

    /// Sends a text and says how many streams it reached.
    pub(crate) async fn send(&self, user: &str, text: &str) -> u64 {
        let response = self
            .client
            .post(self.url(&["users", user, "events", "text"]))
            .json(&json!({ "text": text }))
            .send()
            .await
            .expect("a response");
        assert_eq!(response.status(), 200, "{user:?}");
        let answer: Value = response.json().await.expect("JSON");
        answer["reached"].as_u64().expect("a number")
    }
}
