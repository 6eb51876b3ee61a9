//! The page of the example `agent_hub` in a real browser.

use serde_json::{Value, json};

use crate::support::clients::wait_for_connections;
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
    wait_for_state(&browser, "open").await;
    assert_eq!(browser.eval("document.activeElement.id").await, "start");
    browser.press(&[TAB]).await;
    assert_eq!(browser.eval("document.activeElement.id").await, "user");
    browser.type_text("anna").await;
    browser.press(&[ENTER]).await;
    let connected = "document.querySelector('#state').textContent === 'Connected as anna'";
    browser.wait_until(connected).await;

    // To the first user that was filled in, who is not there any more; what stands in the field can be sent as it is.
    assert_eq!(browser.eval("document.activeElement.id").await, "text");
    browser.press(&[ENTER]).await;
    browser
        .wait_until(
            "document.querySelector('#sent').textContent === 'Sent to ann: 0 streams reached.'",
        )
        .await;

    // To oneself, in two lines.
    browser.press(&[SHIFT, TAB]).await;
    browser.type_text("anna").await;
    browser.press(&[TAB]).await;
    browser.type_text("one").await;
    browser.press(&[SHIFT, ENTER]).await;
    browser.type_text("two").await;
    browser.press(&[ENTER]).await;
    assert_eq!(wait_for_texts(&browser, 1).await, json!(["one\ntwo"]));
    browser
        .wait_until(
            "document.querySelector('#sent').textContent === 'Sent to anna: 1 stream reached.'",
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
    // Without a history the page can only say that it may have missed something.
    for (history, before) in [("0", &["— events may be missing —"][..]), ("10", &[])] {
        let process = Process::start(&["--history", history]).await;
        let hub = &process.hub;
        let browser = Browser::start().await;
        browser.open(&page(hub, "ann")).await;
        wait_for_state(&browser, "open").await;
        // The text and what shows runs.
        assert_eq!(hub.post(&["users", "ann", "drop"]).await["dropped"], 2);
        wait_for_state(&browser, "waiting").await;
        wait_for_state(&browser, "open").await;
        assert_eq!(hub.send("ann", "back").await, 1);
        let expected = [before, &["back"]].concat();
        let texts = wait_for_texts(&browser, expected.len()).await;
        assert_eq!(texts, json!(expected));
    }
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
    process.signal("KILL").await;
    assert_eq!(process.exit().await.code(), None);
    wait_for_state(&browser, "waiting").await;

    let url = process.hub.url(&[]);
    let port = url.port().expect("a port");
    let process = Process::start(&["--addr", &format!("127.0.0.1:{port}")]).await;
    wait_for_state(&browser, "open").await;
    assert_eq!(process.hub.send("ann", "after").await, 1);
    assert_eq!(
        wait_for_texts(&browser, 3).await,
        json!(["before", "— events may be missing —", "after"])
    );
}

#[tokio::test]
async fn the_page_shows_a_gap() {
    let process = Process::start(&["--history", "5"]).await;
    let hub = &process.hub;
    let browser = Browser::start().await;
    browser.open(&page(hub, "ann")).await;
    wait_for_state(&browser, "open").await;
    hub.send("ann", "before").await;
    wait_for_texts(&browser, 1).await;
    // Who connects again goes on where the page was.
    browser
        .eval("document.querySelector('#disconnect').click()")
        .await;
    wait_for_connections(hub, 0).await;
    for number in 0..12 {
        assert_eq!(hub.send("ann", &number.to_string()).await, 0);
    }
    browser
        .eval("document.querySelector('#connect').requestSubmit()")
        .await;
    let expected = [
        "before",
        "— 7 events were lost —",
        "7",
        "8",
        "9",
        "10",
        "11",
    ];
    let texts = wait_for_texts(&browser, expected.len()).await;
    assert_eq!(texts, json!(expected));
}

#[tokio::test]
async fn all_tabs_of_a_user_use_one_stream_of_each_kind() {
    let hub = Hub::start().await;
    let browser = Browser::start().await;
    let first = browser.tab().await;
    browser.open(hub.url(&[]).as_str()).await;
    wait_for_state(&browser, "open").await;
    let second = browser.open_tab().await;
    browser.open(hub.url(&[]).as_str()).await;
    wait_for_state(&browser, "open").await;
    assert_eq!(hub.send("ann", "to both").await, 1);
    for tab in [&first, &second] {
        browser.switch_to(tab).await;
        assert_eq!(wait_for_texts(&browser, 1).await, json!(["to both"]));
    }
}

const SAID: &str = "document.querySelector('#said').textContent";

async fn wait_for_said(browser: &Browser, expected: &str) {
    browser
        .wait_until(&format!("{SAID} === '{expected}'"))
        .await;
}

/// An event of a run, posted as an agent elsewhere does.
async fn post_agui(hub: &Hub, event: &Value) {
    let url = hub.url(&["users", "ann", "events", "agui"]);
    let posted = hub.client.post(url).json(event).send().await;
    assert_eq!(posted.expect("a response").status(), 200, "{event}");
}

async fn say(hub: &Hub, words: std::ops::Range<usize>) {
    for word in words {
        let event = json!({ "type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": format!("{word} ") });
        post_agui(hub, &event).await;
    }
}

#[tokio::test]
async fn a_run_goes_on_after_the_page_is_reloaded_in_the_middle_of_it() {
    let process = Process::start(&[]).await;
    let hub = &process.hub;
    let browser = Browser::start().await;
    browser.open(hub.url(&[]).as_str()).await;
    wait_for_state(&browser, "open").await;
    // What came before the run is not shown with it.
    post_agui(
        hub,
        &json!({ "type": "STEP_STARTED", "stepName": "before" }),
    )
    .await;
    post_agui(
        hub,
        &json!({ "type": "RUN_STARTED", "threadId": "t", "runId": "r" }),
    )
    .await;
    post_agui(
        hub,
        &json!({ "type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant" }),
    )
    .await;
    let said = |count: usize| {
        (0..count)
            .map(|word| format!("{word} "))
            .collect::<String>()
    };
    let mut count = 0;
    for _ in 0..5 {
        say(hub, count..count + 20).await;
        count += 20;
        wait_for_said(&browser, &said(count)).await;
        // Some words come while the page is away.
        tokio::join!(browser.reload(), say(hub, count..count + 10));
        count += 10;
        wait_for_said(&browser, &said(count)).await;
    }
    let running = "document.querySelector('#run').dataset.state";
    assert_eq!(browser.eval(running).await, "running");
    post_agui(
        hub,
        &json!({ "type": "TEXT_MESSAGE_END", "messageId": "m" }),
    )
    .await;
    post_agui(
        hub,
        &json!({ "type": "RUN_FINISHED", "threadId": "t", "runId": "r" }),
    )
    .await;
    browser.wait_until(&format!("{running} === 'done'")).await;
    assert_eq!(browser.eval(SAID).await, said(count));
}

#[tokio::test]
async fn the_page_opens_alive_and_its_run_survives_reloads_and_a_cut() {
    let process = Process::start(&[]).await;
    let browser = Browser::start().await;
    browser.open(process.hub.url(&[]).as_str()).await;
    wait_for_state(&browser, "open").await;
    assert_eq!(
        browser.eval("document.querySelector('#user').value").await,
        "ann"
    );
    browser.press(&[ENTER]).await;
    let count = "document.querySelector('#progress').value";
    browser.wait_until(&format!("{count} > 20")).await;
    browser.eval("document.querySelector('#cut').click()").await;
    browser.wait_until(&format!("{count} > 60")).await;
    browser
        .screenshot(&std::env::temp_dir().join("agent_hub-run.png"))
        .await;
    browser
        .eval("document.querySelector('#reload').click()")
        .await;
    browser.wait_until(&format!("{count} > 100")).await;
    browser.reload().await;
    browser
        .wait_until("document.querySelector('#run').dataset.state === 'done'")
        .await;
    let all: Vec<_> = (1..=300).map(|number| number.to_string()).collect();
    assert_eq!(browser.eval(SAID).await, all.join(" "));
    let state = browser
        .eval("document.querySelector('#run-state').textContent")
        .await;
    assert_eq!(state, "All of it is here, each number once.");
    browser
        .screenshot(&std::env::temp_dir().join("agent_hub-done.png"))
        .await;
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
