//! The page of the example `agent_hub` in a real browser.

use serde_json::{Value, json};

use crate::support::hub::Hub;
use crate::support::process::Process;
use crate::support::webdriver::{Browser, ENTER, SHIFT, TAB};

const TEXTS: &str = "[...document.querySelectorAll('#events pre')].map(text => text.textContent)";

/// The address of the page that opens a stream for this user at once.
fn page(hub: &Hub, user: &str) -> String {
    let mut url = hub.url(&[]);
    url.query_pairs_mut().append_pair("user", user);
    url.into()
}

async fn wait_for_state(browser: &Browser, state: &str) {
    let expression = format!("document.querySelector('#state').dataset.state === '{state}'");
    browser.wait_until(&expression).await;
}

async fn wait_for_texts(browser: &Browser, count: usize) -> Value {
    browser
        .wait_until(&format!("{TEXTS}.length >= {count}"))
        .await;
    browser.eval(TEXTS).await
}

#[tokio::test]
async fn each_page_shows_its_users_events_in_order_and_as_text() {
    let hub = Hub::start().await;
    let browser = Browser::start().await;
    let ann = browser.tab().await;
    browser.open(&page(&hub, "ann")).await;
    wait_for_state(&browser, "open").await;
    let bob = browser.open_tab().await;
    browser.open(&page(&hub, "bob & 👩‍🚀/#1")).await;
    wait_for_state(&browser, "open").await;

    let texts = [
        "one line",
        "two\nlines",
        "\n\nblank lines around\n\n",
        "  spaces\tand tabs  ",
        "a line separator \u{2028} and a paragraph separator \u{2029}",
        "a null \0 and a next line \u{85}",
        "<script>document.title = 'taken over'</script>",
        "<img src=x onerror=\"document.title = 'taken over'\">&amp;",
        "👩‍👩‍👧‍👦 ไทย עברית",
        "",
        "the end",
    ];
    for text in texts {
        for (user, streams) in [("ann", 1), ("bob & 👩‍🚀/#1", 1), ("eve", 0)] {
            assert_eq!(hub.send(user, &format!("{user}: {text}")).await, streams);
        }
    }

    for (tab, user) in [(&ann, "ann"), (&bob, "bob & 👩‍🚀/#1")] {
        browser.switch_to(tab).await;
        let expected = texts.map(|text| format!("{user}: {text}"));
        let found = wait_for_texts(&browser, texts.len()).await;
        assert_eq!(found, json!(expected));
        assert_eq!(browser.eval("document.title").await, "agent hub");
        let markup = "document.querySelectorAll('#events script, #events img').length";
        assert_eq!(browser.eval(markup).await, 0);
        // Lines are shown as lines.
        let heights = "[0, 1].map(n => document.querySelectorAll('#events pre')[n].clientHeight)";
        let heights = browser.eval(heights).await;
        assert!(heights[0].as_f64() < heights[1].as_f64(), "{heights}");
    }
}

#[tokio::test]
async fn the_page_can_be_used_with_the_keyboard_alone() {
    let hub = Hub::start().await;
    let browser = Browser::start().await;
    browser.open(hub.url(&[]).as_str()).await;
    assert_eq!(browser.eval("document.activeElement.id").await, "user");
    browser.type_text("ann").await;
    browser.press(&[ENTER]).await;
    wait_for_state(&browser, "open").await;

    // To oneself, in two lines.
    assert_eq!(browser.eval("document.activeElement.id").await, "text");
    browser.type_text("one").await;
    browser.press(&[SHIFT, ENTER]).await;
    browser.type_text("two").await;
    browser.press(&[ENTER]).await;
    assert_eq!(wait_for_texts(&browser, 1).await, json!(["one\ntwo"]));
    browser
        .wait_until(
            "document.querySelector('#sent').textContent === 'Sent to ann: 1 stream reached.'",
        )
        .await;
    assert_eq!(
        browser.eval("document.querySelector('#text').value").await,
        ""
    );

    // To somebody else: back by one field, whose text is selected by that and so replaced, and on again to the button.
    browser.press(&[SHIFT, TAB]).await;
    assert_eq!(browser.eval("document.activeElement.id").await, "to");
    browser.type_text("bob").await;
    browser.press(&[TAB]).await;
    browser.type_text("three").await;
    browser.press(&[TAB]).await;
    assert_eq!(
        browser.eval("document.activeElement.textContent").await,
        "Send"
    );
    browser.press(&[ENTER]).await;
    browser
        .wait_until(
            "document.querySelector('#sent').textContent === 'Sent to bob: 0 streams reached.'",
        )
        .await;
    assert_eq!(browser.eval(TEXTS).await, json!(["one\ntwo"]));
}

#[tokio::test]
async fn the_page_shows_other_kinds_beside_the_text() {
    let hub = Hub::start().await;
    let browser = Browser::start().await;
    browser.open(&page(&hub, "ann")).await;
    wait_for_state(&browser, "open").await;
    for kind in ["agui", "a2a", "context"] {
        let tick = format!("document.querySelector('#kinds [value={kind}]').click()");
        browser.eval(&tick).await;
    }
    let open = "[...document.querySelectorAll('.panel h2 span')].filter(state => state.textContent === 'open').length";
    browser.wait_until(&format!("{open} === 3")).await;
    browser
        .eval("document.querySelector('#text').value = 'hello'")
        .await;
    browser.eval("document.querySelector('#ask').click()").await;
    let last = "[...document.querySelectorAll('.panel')].map(panel => panel.querySelector('li:last-child b')?.textContent).join()";
    browser
        .wait_until(&format!("{last} === 'RUN_FINISHED,statusUpdate,agui'"))
        .await;
    browser
        .wait_until("document.querySelector('#sent').textContent.startsWith('The agent is done')")
        .await;
    assert_eq!(hub.send("ann", "a text").await, 1);
    assert_eq!(wait_for_texts(&browser, 1).await, json!(["a text"]));

    // What is not ticked any more is closed.
    browser
        .eval("document.querySelector('#kinds [value=agui]').click()")
        .await;
    let panels = "document.querySelectorAll('.panel').length";
    assert_eq!(browser.eval(panels).await, 2);
    let fits = "document.documentElement.scrollWidth <= innerWidth";
    assert_eq!(browser.eval(fits).await, true);
    browser
        .screenshot(&std::env::temp_dir().join("agent_hub-kinds.png"))
        .await;
}

#[tokio::test]
async fn the_page_comes_back_after_a_break() {
    let hub = Hub::start().await;
    let browser = Browser::start().await;
    browser.open(&page(&hub, "ann")).await;
    wait_for_state(&browser, "open").await;
    assert_eq!(hub.post(&["users", "ann", "drop"]).await["dropped"], 1);
    wait_for_state(&browser, "waiting").await;
    // Chromium waits for three seconds.
    wait_for_state(&browser, "open").await;
    assert_eq!(hub.send("ann", "back").await, 1);
    assert_eq!(wait_for_texts(&browser, 1).await, json!(["back"]));
}

#[tokio::test]
async fn the_page_comes_back_by_itself_after_a_full_cap() {
    let hub = Hub::start().await;
    let mut ten = Vec::new();
    for _ in 0..10 {
        let stream = hub
            .client
            .get(hub.url(&["users", "ann", "streams", "text"]));
        ten.push(stream.send().await.expect("a response"));
    }
    let browser = Browser::start().await;
    browser.open(&page(&hub, "ann")).await;
    wait_for_state(&browser, "waiting").await;
    hub.post(&["users", "ann", "end"]).await;
    drop(ten);
    wait_for_state(&browser, "open").await;
    hub.send("ann", "back again").await;
    wait_for_texts(&browser, 1).await;
}

#[cfg(unix)]
#[tokio::test]
async fn the_page_comes_back_by_itself_after_the_server_was_killed() {
    let mut process = Process::start(&[]).await;
    let browser = Browser::start().await;
    browser.open(&page(&process.hub, "ann")).await;
    wait_for_state(&browser, "open").await;
    assert_eq!(process.hub.send("ann", "before").await, 1);
    wait_for_texts(&browser, 1).await;
    let count =
        "source.addEventListener('error', () => { window.errors = (window.errors ?? 0) + 1; })";
    browser.eval(count).await;

    process.signal("KILL").await;
    assert_eq!(process.exit().await.code(), None);
    // The end, and at least one attempt that finds nobody.
    browser.wait_until("window.errors >= 2").await;
    wait_for_state(&browser, "waiting").await;

    let url = process.hub.url(&[]);
    let port = url.port().expect("a port");
    let process = Process::start(&["--addr", &format!("127.0.0.1:{port}")]).await;
    wait_for_state(&browser, "open").await;
    assert_eq!(process.hub.send("ann", "after").await, 1);
    assert_eq!(
        wait_for_texts(&browser, 2).await,
        json!(["before", "after"])
    );
}

#[tokio::test]
async fn the_page_shows_a_gap() {
    let hub = Hub::start().await;
    let browser = Browser::start().await;
    browser.open(&page(&hub, "ann")).await;
    wait_for_state(&browser, "open").await;
    // Stands in for a connection that falls behind: what the page does with the event is in question, not the lag.
    let gap = r#"source.dispatchEvent(new MessageEvent("gap", { data: '{"reason":"lagged","missed":7}' }))"#;
    browser.eval(gap).await;
    let texts = wait_for_texts(&browser, 1).await;
    assert!(
        texts[0]
            .as_str()
            .is_some_and(|text| text.contains("7 events were lost")),
        "{texts}"
    );
}

/// Leaves screenshots in the system's directory for temporary files, to be looked at.
#[tokio::test]
async fn the_page_fits_wide_and_narrow_screens_in_light_and_dark() {
    let hub = Hub::start().await;
    let browser = Browser::start().await;
    browser.open(&page(&hub, "ann")).await;
    wait_for_state(&browser, "open").await;
    let texts = [
        "The build has passed.",
        "Deploying:\n  1. migrate\n  2. restart\n  3. watch",
        "<script>alert('not markup')</script>",
        "ไทย עברית 👩‍👩‍👧‍👦",
        &"a-word-without-a-break-".repeat(12),
    ];
    for text in texts {
        hub.send("ann", text).await;
    }
    wait_for_texts(&browser, texts.len()).await;

    for (width, height) in [(1280, 900), (390, 844)] {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        browser
            .devtools("Emulation.setDeviceMetricsOverride", metrics)
            .await;
        for scheme in ["light", "dark"] {
            let media = json!({
                "features": [{ "name": "prefers-color-scheme", "value": scheme }],
            });
            browser.devtools("Emulation.setEmulatedMedia", media).await;
            let fits = "document.documentElement.scrollWidth <= innerWidth";
            assert_eq!(browser.eval(fits).await, true, "{width}");
            assert_eq!(browser.eval("innerWidth").await, width);
            let name = format!("agent_hub-{width}-{scheme}.png");
            browser.screenshot(&std::env::temp_dir().join(name)).await;
        }
    }
}

/// A browser does not say there that it is one (`Sec-Fetch-Dest`), as it does on HTTPS and to localhost.
#[tokio::test]
async fn a_page_on_a_plain_host_name_that_finds_its_user_full_comes_back() {
    let process = Process::start(&["--host", "hub.example"]).await;
    let stream = process.hub.url(&["users", "ann", "streams", "text"]);
    let mut ten = Vec::new();
    for _ in 0..10 {
        let opened = process.hub.client.get(stream.clone()).send().await;
        ten.push(opened.expect("a response"));
    }
    let browser = Browser::knowing("hub.example").await;
    let port = stream.port().expect("a port");
    browser
        .open(&format!("http://hub.example:{port}/?user=ann"))
        .await;
    wait_for_state(&browser, "waiting").await;
    drop(ten);
    wait_for_state(&browser, "open").await;
    assert_eq!(process.hub.send("ann", "at last").await, 1);
    assert_eq!(wait_for_texts(&browser, 1).await, json!(["at last"]));
}
