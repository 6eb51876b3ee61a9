//! `useChat` of `@ai-sdk/react` with `resume: true`, in Chromium: a run of 200 tokens survives what happens to its page.

use serde_json::json;
use tidings::backplane::Level;
use tidings::{Builder, GenericBroadcaster, History};
use tidings_aisdk::Chunk;
use tidings_nats::async_nats::ConnectOptions;
use tidings_nats::{Log, Nats, Settings};
use tidings_testkit::backplane::InProcess;

use self::server::{Database, Node, Service};
use crate::support::hub::Hub;
use crate::support::nats;
use crate::support::webdriver::Browser;

mod server;

const API: &str = "/api/chat";

/// The service's hub, of one node.
fn hub() -> GenericBroadcaster<Chunk> {
    let built = GenericBroadcaster::builder().history(History::new(1000));
    built.build().expect("valid settings")
}

async fn start(service: &Service) -> Node {
    let service = service.clone();
    Node::start(move || service.router()).await
}

/// What the agent has said after so many words.
fn text(words: usize) -> String {
    (0..words).map(|word| format!("{word} ")).collect()
}

/// What the page shows: its state, the texts of the user and of the agent, and errors.
const SHOWN: &str = "[document.querySelector('main')?.dataset.status, \
    ...['user', 'assistant', 'error'].map(kind => \
        [...document.querySelectorAll('.' + kind)].map(it => it.textContent))]";

async fn wait_for(browser: &Browser, status: &str, asked: &[&str], answers: &[&str]) {
    let expected = json!([status, asked, answers, []]);
    let is_shown = format!("JSON.stringify({SHOWN}) === {:?}", expected.to_string());
    browser.wait_until(&is_shown).await;
}

/// Waits until the page shows an error that begins so, and says all of it.
async fn wait_for_error(browser: &Browser, begin: &str) {
    let error = "document.querySelector('main .error')?.textContent";
    browser
        .wait_until(&format!("{error}?.startsWith({begin:?})"))
        .await;
    let status = browser.eval("document.querySelector('main').dataset.status");
    assert_eq!(status.await, "error");
}

/// Waits until the page has asked for a run, and was answered with this status.
async fn wait_for_answer(browser: &Browser, status: u16) {
    let answered = "document.documentElement.dataset.answered";
    browser
        .wait_until(&format!("{answered} === '{status}'"))
        .await;
}

async fn ask(browser: &Browser, text: &str) {
    let asked = format!("void chat.sendMessage({{ text: {text:?} }})");
    browser.wait_until("window.chat?.status === 'ready'").await;
    browser.eval(&asked).await;
}

/// Asks, and waits for the first 50 words of the answer.
async fn ask_for_50_words(browser: &Browser, node: &Node, service: &Service) {
    browser.open(&node.page(API)).await;
    ask(browser, "Count.").await;
    wait_for(browser, "streaming", &["Count."], &[""]).await;
    service.say(0..50);
    wait_for(browser, "streaming", &["Count."], &[&text(50)]).await;
}

#[tokio::test]
async fn a_page_that_is_reloaded_in_a_run_gets_the_whole_text_once_and_goes_on_live() {
    let (browser, database) = (Browser::start().await, Database::default());
    let service = Service::new(hub(), &database);
    let node = start(&service).await;
    ask_for_50_words(&browser, &node, &service).await;
    // Some come while the page is away.
    tokio::join!(browser.reload(), async { service.say(50..70) });
    wait_for(&browser, "streaming", &["Count."], &[&text(70)]).await;
    for word in 70..200 {
        service.say(word..word + 1);
        let is_milestone = word % 20 == 19;
        if is_milestone {
            wait_for(&browser, "streaming", &["Count."], &[&text(word + 1)]).await;
        }
    }
    service.finish(&text(200));
    wait_for(&browser, "ready", &["Count."], &[&text(200)]).await;
    // Now the text is the database's as well, and then only that.
    browser.reload().await;
    wait_for(&browser, "ready", &["Count."], &[&text(200)]).await;
    wait_for_answer(&browser, 200).await;
    wait_for(&browser, "ready", &["Count."], &[&text(200)]).await;
    database.forget_run();
    browser.reload().await;
    wait_for_answer(&browser, 204).await;
    wait_for(&browser, "ready", &["Count."], &[&text(200)]).await;
    assert_eq!(database.runs(), 1);
}

#[tokio::test]
async fn a_run_that_ends_between_the_two_requests_of_a_page_is_shown() {
    let (browser, database) = (Browser::start().await, Database::default());
    let service = Service::new(hub(), &database);
    let node = start(&service).await;
    ask_for_50_words(&browser, &node, &service).await;
    service.say(50..200);
    service.finish_after_next_read(&text(200));
    browser.reload().await;
    wait_for(&browser, "ready", &["Count."], &[&text(200)]).await;
}

#[tokio::test]
async fn a_page_that_is_reloaded_20_times_in_a_run_has_the_whole_text_once_each_time() {
    let (browser, database) = (Browser::start().await, Database::default());
    let service = Service::new(hub(), &database);
    let node = start(&service).await;
    ask_for_50_words(&browser, &node, &service).await;
    let mut words = 50;
    for _ in 0..20 {
        let some = words..words + 7;
        words = some.end;
        tokio::join!(browser.reload(), async { service.say(some) });
        wait_for(&browser, "streaming", &["Count."], &[&text(words)]).await;
    }
    service.say(words..200);
    service.finish(&text(200));
    wait_for(&browser, "ready", &["Count."], &[&text(200)]).await;
    assert_eq!(database.runs(), 1);
}

#[tokio::test]
async fn two_tabs_follow_one_run_and_neither_can_start_a_second_one() {
    let (browser, database) = (Browser::start().await, Database::default());
    let service = Service::new(hub(), &database);
    let node = start(&service).await;
    let first = browser.tab().await;
    ask_for_50_words(&browser, &node, &service).await;
    let second = browser.open_tab().await;
    browser.open(&node.page(API)).await;
    wait_for(&browser, "streaming", &["Count."], &[&text(50)]).await;
    service.say(50..100);
    for tab in [&first, &second] {
        browser.switch_to(tab).await;
        wait_for(&browser, "streaming", &["Count."], &[&text(100)]).await;
    }
    browser
        .eval("void chat.sendMessage({ text: 'Count again.' })")
        .await;
    wait_for_error(&browser, "This chat is being answered.").await;
    assert_eq!(database.runs(), 1);

    service.say(100..200);
    service.finish(&text(200));
    browser.switch_to(&first).await;
    wait_for(&browser, "ready", &["Count."], &[&text(200)]).await;
    browser.switch_to(&second).await;
    browser.reload().await;
    wait_for_answer(&browser, 200).await;
    wait_for(&browser, "ready", &["Count."], &[&text(200)]).await;
}

#[tokio::test]
async fn a_hub_restart_during_a_run_is_shown_by_the_page_and_again_after_a_reload() {
    let (browser, database) = (Browser::start().await, Database::default());
    let service = Service::new(hub(), &database);
    let node = start(&service).await;
    ask_for_50_words(&browser, &node, &service).await;

    let service = Service::new(hub(), &database);
    let router = service.router();
    let node = node.restart(|| router).await;
    // Chromium's words for a response that broke.
    wait_for_error(&browser, "network error").await;
    browser.reload().await;
    wait_for_error(&browser, "Events of this run are missing: ").await;
    let shown = browser.eval(SHOWN).await;
    assert_eq!(shown[1], json!(["Count."]));
    assert_eq!(shown[2], json!([]), "no half of an answer");

    // The service gives up the run, and the user asks again.
    database.forget_run();
    browser.reload().await;
    wait_for_answer(&browser, 204).await;
    wait_for(&browser, "ready", &["Count."], &[]).await;
    ask(&browser, "Again.").await;
    wait_for(&browser, "streaming", &["Count.", "Again."], &[""]).await;
    service.say(0..200);
    service.finish(&text(200));
    wait_for(&browser, "ready", &["Count.", "Again."], &[&text(200)]).await;
    drop(node);
}

#[tokio::test]
async fn a_hub_that_shuts_down_in_a_run_leaves_no_half_of_a_text_that_looks_whole() {
    let (browser, database) = (Browser::start().await, Database::default());
    let service = Service::new(hub(), &database);
    let node = start(&service).await;
    ask_for_50_words(&browser, &node, &service).await;
    service.hub.shutdown(std::time::Duration::ZERO).await;
    wait_for_error(&browser, "The stream ended before the run.").await;
}

#[tokio::test]
async fn a_run_that_fails_is_an_error_on_the_page() {
    let (browser, database) = (Browser::start().await, Database::default());
    let service = Service::new(hub(), &database);
    let node = start(&service).await;
    ask_for_50_words(&browser, &node, &service).await;
    service.fail("The model is gone.");
    wait_for_error(&browser, "The model is gone.").await;
    drop(node);
}

#[tokio::test]
async fn a_run_goes_on_live_on_a_node_that_has_not_its_agent_and_on_one_that_has_just_started() {
    let engine = InProcess::new(Level::Replayable);
    go_on_at_other_nodes(async || GenericBroadcaster::builder().backplane(engine.node())).await;
}

#[tokio::test]
async fn over_nats_a_run_goes_on_live_on_other_nodes() {
    let server = nats::Server::start();
    let url = server.url();
    let join = async || {
        let settings = Settings::new("runs").replayable(Log::new("RUNS"));
        let nats = Nats::connect(&url, ConnectOptions::new(), settings)
            .await
            .expect("a server");
        GenericBroadcaster::builder().backplane(nats)
    };
    go_on_at_other_nodes(join).await;
}

async fn go_on_at_other_nodes(join: impl AsyncFn() -> Builder<Chunk>) {
    let (browser, database) = (Browser::start().await, Database::default());
    let build = async || {
        // As for one node: without it, a stream that lacks more events than its ring holds gets a gap.
        let hub = join().await.history(History::new(1000)).build();
        Service::new(hub.expect("valid settings"), &database)
    };
    let (here, there) = (build().await, build().await);
    let (with_agent, without) = (start(&here).await, start(&there).await);
    ask_for_50_words(&browser, &with_agent, &here).await;
    let page = without.page(API);
    tokio::join!(browser.open(&page), async { here.say(50..70) });
    wait_for(&browser, "streaming", &["Count."], &[&text(70)]).await;
    here.say(70..150);
    wait_for(&browser, "streaming", &["Count."], &[&text(150)]).await;

    // A node that has just started has seen nothing of the run.
    let fresh = build().await;
    let router = fresh.router();
    let fresh = without.restart(|| router).await;
    wait_for_error(&browser, "network error").await;
    here.say(150..160);
    browser.eval("void chat.resumeStream()").await;
    wait_for(&browser, "streaming", &["Count."], &[&text(160)]).await;
    here.say(160..180);
    browser.reload().await;
    wait_for(&browser, "streaming", &["Count."], &[&text(180)]).await;
    here.say(180..200);
    here.finish(&text(200));
    wait_for(&browser, "ready", &["Count."], &[&text(200)]).await;
    drop(fresh);
}

/// The example's own agent, 20 milliseconds a word.
mod agent_hub {
    use super::*;

    const API: &str = "/aisdk/ann/chat";

    /// Twelve seconds of the agent's work: the page is reloaded after one.
    fn long_text() -> String {
        (0..600).map(|word| format!("word{word} ")).collect()
    }

    async fn ask_for_50_words(browser: &Browser, text: &str) {
        ask(browser, text).await;
        let said = "document.querySelector('.assistant')?.textContent";
        browser
            .wait_until(&format!("{said}?.includes('word50 ')"))
            .await;
    }

    #[tokio::test]
    async fn a_page_that_is_reloaded_in_a_run_of_agent_hub_gets_the_whole_text_once() {
        let browser = Browser::start().await;
        let node = Node::start(Hub::router).await;
        browser.open(&node.page(API)).await;
        let text = long_text();
        ask_for_50_words(&browser, &text).await;
        browser.reload().await;
        // The hub keeps no messages: the question has gone.
        wait_for(&browser, "ready", &[], &[&text]).await;
    }

    #[tokio::test]
    async fn a_run_that_ended_with_agent_hub_is_an_error_on_the_page_and_nothing_after_a_reload() {
        let browser = Browser::start().await;
        let node = Node::start(Hub::router).await;
        browser.open(&node.page(API)).await;
        let text = long_text();
        ask_for_50_words(&browser, &text).await;
        let _node = node.restart(Hub::router).await;
        wait_for_error(&browser, "network error").await;
        browser.reload().await;
        wait_for_answer(&browser, 204).await;
        wait_for(&browser, "ready", &[], &[]).await;
        ask(&browser, "Hello again.").await;
        wait_for(&browser, "ready", &["Hello again."], &["Hello again."]).await;
    }
}
