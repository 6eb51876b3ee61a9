//! The console's page in a real browser.

use std::time::Duration;

use axum::Router;
use serde_json::{Value, json};
use tidings::backplane::Level;
use tidings::{GenericBroadcaster, Subscription, Text};
use tidings_console::Console;
use tidings_testkit::backplane::InProcess;
use tokio::net::TcpListener;

use crate::support::hub::within;
use crate::support::webdriver::Browser;

type Hub = GenericBroadcaster<Text>;

const HOSTILE: &str = "<img src=x onerror=\"document.title='taken over'\">";

/// A page in a browser of its own, in front of a console of its own.
struct Page {
    browser: Browser,
    base: String,
}

impl Page {
    async fn open(console: Console) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let app: Router = Router::new().nest("/ops/console", console.router());
        tokio::spawn(async { axum::serve(listener, app).await });
        let browser = Browser::start().await;
        // Before the page has run any script. What the browser itself says, of its policy for example, is an event as well.
        let record = "window.complaints = [];
            addEventListener('error', (event) => complaints.push(String(event.message)), true);
            addEventListener('unhandledrejection', (event) => complaints.push(String(event.reason)));
            addEventListener('securitypolicyviolation', (event) => complaints.push(event.blockedURI + ' ' + event.violatedDirective));
            console.error = (...words) => complaints.push(words.join(' '));";
        let params = json!({ "source": record });
        browser
            .devtools("Page.addScriptToEvaluateOnNewDocument", params)
            .await;
        browser.open(&format!("{base}/ops/console")).await;
        let page = Self { browser, base };
        page.wait("document.querySelector('#state').dataset.state === 'live'")
            .await;
        page
    }

    async fn wait(&self, expression: &str) {
        self.browser.wait_until(expression).await;
    }

    async fn eval(&self, expression: &str) -> Value {
        self.browser.eval(expression).await
    }

    async fn click(&self, selector: &str) {
        self.eval(&format!("document.querySelector({selector:?}).click()"))
            .await;
    }

    /// Waits for what a card shows.
    async fn wait_for_figure(&self, label: &str, value: &str) {
        self.wait(&format!(
            "[...document.querySelectorAll('.cards li')].some(card => card.querySelector('.label').textContent === {label:?}
                && card.querySelector('.value').textContent === {value:?})"
        ))
        .await;
    }

    async fn wait_for_result(&self, text: &str) {
        self.wait(&format!(
            "document.querySelector('#result').textContent === {text:?}"
        ))
        .await;
    }

    /// Nothing was complained about, and nobody else was asked for anything.
    async fn assert_clean(&self) {
        assert_eq!(self.eval("complaints").await, json!([]));
        let asked = self
            .eval("performance.getEntriesByType('resource').map(entry => entry.name)")
            .await;
        for url in asked.as_array().expect("a list") {
            let url = url.as_str().expect("a string");
            assert!(
                url.starts_with(&self.base) || url.starts_with("data:"),
                "{url}"
            );
        }
    }

    /// After a collection of garbage: bytes of the heap, and elements.
    async fn size(&self) -> (u64, u64) {
        self.browser
            .devtools("HeapProfiler.collectGarbage", json!({}))
            .await;
        // What the page itself is told is rounded, and as old as twenty minutes.
        let heap = self
            .browser
            .devtools("Runtime.getHeapUsage", json!({}))
            .await;
        let nodes = self.eval("document.querySelectorAll('*').length").await;
        (
            heap["usedSize"].as_f64().expect("bytes") as u64,
            nodes.as_u64().expect("a number"),
        )
    }
}

fn console(hub: &Hub) -> Console {
    Console::new()
        .interval(Duration::from_millis(50))
        .broadcaster_with("chat", hub, |text| Text::new(text).event("test"))
}

fn tabs(hub: &Hub, user: &str, count: usize) -> Vec<Subscription> {
    (0..count)
        .map(|_| hub.register(user).expect("room"))
        .collect()
}

#[tokio::test]
async fn figures_move_when_clients_come_and_go() {
    let hub = Hub::new();
    let page = Page::open(console(&hub)).await;
    page.wait_for_figure("Connections", "0").await;
    page.wait("document.querySelector('#summary').textContent === 'Nobody is connected.'")
        .await;
    let ann = tabs(&hub, "ann", 2);
    let bob = tabs(&hub, "bob", 1);
    page.wait_for_figure("Connections", "3").await;
    page.wait_for_figure("Users", "2").await;
    page.wait("document.querySelector('#summary').textContent === '2 users, 3 connections.'")
        .await;
    drop(bob);
    page.wait_for_figure("Users", "1").await;
    page.wait("document.querySelectorAll('#list tbody').length === 1")
        .await;
    drop(ann);
    page.wait_for_figure("Connections", "0").await;
    page.wait("document.querySelector('#list').hidden").await;
    page.assert_clean().await;
}

#[tokio::test]
async fn a_user_and_a_connection_are_disconnected_after_a_question() {
    let hub = Hub::new();
    let page = Page::open(console(&hub)).await;
    let _tabs = tabs(&hub, HOSTILE, 3);
    page.wait("document.querySelectorAll('td.act button').length === 3")
        .await;
    assert_eq!(
        page.eval("document.querySelector('#list bdi').textContent")
            .await,
        HOSTILE
    );
    assert_eq!(
        page.eval("document.querySelectorAll('#list img').length")
            .await,
        0
    );

    page.click("td.act button").await;
    assert_eq!(
        page.eval("document.querySelector('#confirm').open").await,
        true
    );
    // The harmless answer has the focus.
    assert_eq!(page.eval("document.activeElement.id").await, "confirm-no");
    page.click("#confirm-no").await;
    assert_eq!(hub.connection_count(HOSTILE), 3);

    page.click("td.act button").await;
    page.click("#confirm-yes").await;
    page.wait_for_result(&format!("1 connection of {HOSTILE} disconnected."))
        .await;
    assert_eq!(hub.connection_count(HOSTILE), 2);
    page.click(".user button:last-child").await;
    page.click("#confirm-yes").await;
    page.wait_for_result(&format!("2 connections of {HOSTILE} disconnected."))
        .await;
    assert_eq!(hub.connection_count(HOSTILE), 0);
    page.wait("document.querySelector('#list').hidden").await;
    assert_eq!(page.eval("document.title").await, "tidings console");
    page.assert_clean().await;
}

#[tokio::test]
async fn a_watched_stream_shows_events_as_text_and_its_gaps() {
    let hub: Hub = Hub::builder().ring_capacity(4).build().expect("valid");
    let page = Page::open(console(&hub)).await;
    let _tab = tabs(&hub, "ann", 1);
    page.wait("document.querySelectorAll('.user button').length === 3")
        .await;
    page.click(".user button").await;
    page.wait("document.querySelector('#watch-state').textContent.startsWith('Open')")
        .await;
    assert_eq!(hub.connection_count("ann"), 2);

    page.click(".user button:nth-of-type(2)").await;
    page.eval(&format!(
        "document.querySelector('#send-text').value = {HOSTILE:?}"
    ))
    .await;
    page.click("#send button[type=submit]").await;
    page.wait_for_result("Sent to ann: 2 streams reached.")
        .await;
    page.wait("document.querySelectorAll('#events pre').length === 1")
        .await;
    assert_eq!(
        page.eval("document.querySelector('#events pre').textContent")
            .await,
        HOSTILE
    );

    // One thread: no stream is polled in between.
    for n in 0..20 {
        hub.broadcast("ann", &Text::new(n.to_string()))
            .expect("text");
    }
    page.wait("document.querySelectorAll('#events li').length === 6")
        .await;
    let gap = page
        .eval("document.querySelector('#events .gap').textContent")
        .await;
    assert!(
        gap.as_str()
            .expect("text")
            .ends_with("Gap: 16 events missing (lagged)."),
        "{gap}"
    );
    page.click("#unwatch").await;
    page.wait("document.querySelector('#list').textContent.includes('1 connection')")
        .await;
    within("the stream's end", async {
        while hub.connection_count("ann") > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    page.assert_clean().await;
}

#[tokio::test]
async fn the_backplane_is_shown_where_there_is_one() {
    let engine = InProcess::new(Level::Replayable);
    let hub: Hub = Hub::builder()
        .backplane(engine.node())
        .build()
        .expect("valid");
    let page = Page::open(console(&hub).broadcaster("alone", &Hub::new())).await;
    page.wait("document.querySelector('#backplane-state').textContent === 'connected'")
        .await;
    page.wait_for_figure("Queued", "0").await;
    assert_eq!(
        page.eval("document.querySelector('#backplane').hidden")
            .await,
        false
    );
    page.eval("document.querySelector('#broadcaster').value = 'alone'")
        .await;
    page.eval("document.querySelector('#broadcaster').dispatchEvent(new Event('change'))")
        .await;
    page.wait("document.querySelector('#backplane').hidden")
        .await;
    page.assert_clean().await;
}

/// 3,600 updates stand for one hour of a page at the default interval of a second.
#[tokio::test]
async fn a_page_does_not_grow() {
    let hub = Hub::new();
    let page = Page::open(console(&hub).interval(Duration::from_millis(10))).await;
    let _tabs: Vec<_> = (0..30)
        .flat_map(|n| tabs(&hub, &format!("user-{n}"), 2))
        .collect();
    page.wait("document.querySelectorAll('.user button').length === 90")
        .await;
    page.click(".user button").await;
    page.wait("document.querySelector('#watch-state').textContent.startsWith('Open')")
        .await;
    let events = tokio::spawn({
        let hub = hub.clone();
        async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(5));
            loop {
                ticks.tick().await;
                let _passing = hub.register("passing").expect("room");
                hub.broadcast("user-0", &Text::new("an event"))
                    .expect("text");
            }
        }
    });
    // Graphs and the watched stream have all they hold.
    let full = "document.querySelectorAll('#events li').length === 200 && document.documentElement.dataset.updates >";
    page.wait(&format!("{full} 400")).await;
    let early = page.size().await;
    let mut late = early;
    for updates in [1200, 2000, 2800, 3600, 4000] {
        page.wait(&format!("{full} {updates}")).await;
        late = page.size().await;
    }
    events.abort();
    eprintln!("heap and elements after 400 updates {early:?}, after 4,000 {late:?}");
    // A row that comes and goes.
    assert!(late.1.abs_diff(early.1) <= 20, "{early:?} {late:?}");
    assert!(late.0 < early.0 + 1_000_000, "{early:?} {late:?}");
    page.assert_clean().await;
}

#[tokio::test]
async fn a_lost_connection_is_said_and_made_again() {
    let hub = Hub::new();
    let page = Page::open(console(&hub)).await;
    let offline = |offline: bool| json!({ "offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 });
    page.browser.devtools("Network.enable", json!({})).await;
    page.browser
        .devtools("Network.emulateNetworkConditions", offline(true))
        .await;
    // The stream that is open may be spared by that: the end of it comes from the page's own clock, or from here.
    page.eval("live.dispatchEvent(new Event('error'))").await;
    page.wait("document.querySelector('#state').textContent.startsWith('Connection lost')")
        .await;
    page.browser
        .devtools("Network.emulateNetworkConditions", offline(false))
        .await;
    page.wait("document.querySelector('#state').dataset.state === 'live'")
        .await;
    let _tab = tabs(&hub, "ann", 1);
    page.wait_for_figure("Connections", "1").await;
}

/// Leaves screenshots in the system's directory for temporary files, to be looked at.
#[tokio::test]
async fn the_page_fits_wide_and_narrow_screens_in_light_and_dark() {
    let hub = Hub::builder()
        .ring_capacity(4)
        .connections_per_user(None)
        .build()
        .expect("valid");
    let prices = GenericBroadcaster::<Text>::new();
    let console = console(&hub)
        .broadcaster("prices of everything, by the minute", &prices)
        .rows(60);
    let page = Page::open(console).await;
    shots(&page, "empty").await;
    let long = "a-user-without-a-break-".repeat(6);
    let mut all = tabs(&hub, &long, 2);
    all.push(
        hub.register_as("ann", "a-connection-without-a-break-".repeat(8))
            .expect("room"),
    );
    all.extend(tabs(&hub, HOSTILE, 1));
    for n in 0..1000 {
        all.extend(tabs(&hub, &format!("user-{n:04}"), 1 + n % 3));
    }
    for n in 0..100 {
        hub.broadcast("ann", &Text::new(format!("{n}")))
            .expect("text");
    }
    page.wait("document.querySelector('#summary').textContent.includes('of 1,003')")
        .await;
    shots(&page, "many").await;
    page.click("[aria-label='Watch the stream of ann']").await;
    page.wait("document.querySelector('#watch-state').textContent.startsWith('Open')")
        .await;
    for n in 0..20 {
        hub.broadcast(
            "ann",
            &Text::new(format!(
                "event {n}\nwith a second line, {}",
                "long ".repeat(40)
            )),
        )
        .expect("text");
    }
    page.wait("document.querySelectorAll('#events li').length === 5")
        .await;
    shots(&page, "watch").await;
    page.eval("document.querySelector('#events').scrollTop = 0")
        .await;
    page.click("[aria-label='Send a test event to ann']").await;
    shots(&page, "send").await;
    page.click("#send-no").await;
    page.click("[aria-label='Disconnect all of ann']").await;
    shots(&page, "confirm").await;
    page.click("#confirm-yes").await;
    page.wait_for_result("2 connections of ann disconnected.")
        .await;
    shots(&page, "result").await;
    page.assert_clean().await;
}

async fn shots(page: &Page, what: &str) {
    for (width, height) in [(1280, 900), (390, 1700)] {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        page.browser
            .devtools("Emulation.setDeviceMetricsOverride", metrics)
            .await;
        for scheme in ["light", "dark"] {
            let media =
                json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
            page.browser
                .devtools("Emulation.setEmulatedMedia", media)
                .await;
            assert_eq!(
                page.eval("document.documentElement.scrollWidth <= innerWidth")
                    .await,
                true,
                "{what} {width}"
            );
            let name = format!("console-{what}-{width}-{scheme}.png");
            page.browser
                .screenshot(&std::env::temp_dir().join(name))
                .await;
        }
    }
}

/// What an attacker's page does once its own name leads to this machine, for each of the console's routes.
const ATTACK: &str = "(async () => {
    const base = '/ops/console/';
    const body = JSON.stringify({ broadcaster: 'chat', user: 'ann', text: 'x' });
    const act = { method: 'POST', body, headers: { 'x-tidings-console': '1', 'content-type': 'application/json' } };
    const ask = async (path, how) => (await fetch(base + path, how)).status;
    const streams = ['live', 'watch?broadcaster=chat&user=ann'].map(path => new Promise(done => {
        const source = new EventSource(base + path);
        source.onopen = () => done('open');
        source.onerror = () => done(source.readyState);
    }));
    return [
        await ask('page'), await ask('users?broadcaster=chat'), await ask('send', act),
        ...await Promise.all(streams), await ask('disconnect', act),
    ];
})()";

#[tokio::test]
async fn a_page_whose_name_was_pointed_at_this_machine_sees_and_does_nothing() {
    // Where the service has the name for its own, the same page gets everything.
    for (is_known, expected) in [
        (true, json!([200, 200, 200, "open", "open", 200])),
        (false, json!([403, 403, 403, 2, 2, 403])),
    ] {
        let hub = Hub::new();
        let tabs = tabs(&hub, "ann", 10);
        let known = is_known.then_some("rebound.example");
        let console = console(&hub).hosts(known);
        let app: Router = Router::new().nest("/ops/console", console.router()).route(
            "/",
            axum::routing::get(axum::response::Html("<title>lure</title>")),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async { axum::serve(listener, app).await });
        let browser = Browser::knowing("rebound.example").await;
        browser
            .open(&format!("http://rebound.example:{port}/"))
            .await;
        assert_eq!(browser.eval("document.title").await, "lure");
        assert_eq!(browser.eval(ATTACK).await, expected);
        let left = hub.connection_count("ann");
        assert_eq!(left == 10, !is_known, "{left}");
        assert_eq!(hub.stats().broadcasts, u64::from(is_known));
        drop(tabs);
    }
}

#[tokio::test]
async fn a_page_that_is_read_only_offers_nothing_but_to_watch() {
    const BUTTONS: &str = "[...document.querySelectorAll('#list button')]
        .filter(button => button.checkVisibility()).map(button => button.textContent)";
    let hub = Hub::new();
    let _tab = tabs(&hub, "ann", 1);
    let page = Page::open(console(&hub)).await;
    page.wait(&format!("{BUTTONS}.length === 4")).await;
    drop(page);
    let page = Page::open(console(&hub).read_only(true)).await;
    page.wait("document.querySelector('#list').textContent.includes('ann')")
        .await;
    assert_eq!(page.eval(BUTTONS).await, json!(["Watch"]));
    page.click(".user button").await;
    page.wait("document.querySelector('#watch-state').textContent.startsWith('Open')")
        .await;
    page.assert_clean().await;
}
