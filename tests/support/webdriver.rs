//! A headless Chromium, spoken to through chromedriver in [W3C WebDriver](https://www.w3.org/TR/webdriver2/).

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::within::within;

const INSTALL: &str =
    "if it is missing: apt-get install --no-install-recommends chromium chromium-driver";

/// Keys that have no character.
pub(crate) const TAB: char = '\u{e004}';
pub(crate) const ENTER: char = '\u{e007}';
pub(crate) const SHIFT: char = '\u{e008}';

/// One browser with a fresh profile. Dropping it closes it and leaves nothing behind.
pub(crate) struct Browser {
    client: Client,
    driver: Driver,
    session: String,
    // Dropped last, when nobody writes to it any more.
    _profile: Profile,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// One for which this host name leads to this machine.
    pub(crate) async fn knowing(host: &str) -> Self {
        let rules = format!("--host-resolver-rules=MAP {host} 127.0.0.1");
        Self::start_with(&[&rules, "--no-proxy-server"]).await
    }

    async fn start_with(more: &[&str]) -> Self {
        let client = Client::builder().no_proxy().build().expect("a client");
        let profile = Profile::new();
        let driver = Driver::start(&profile.0).await;
        let profile_arg = format!("--user-data-dir={}", profile.0.join("user-data").display());
        let args = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            // Containers are often given little of it.
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &profile_arg,
        ];
        let args = [&args, more].concat();
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": args },
            "timeouts": { "script": 20_000 },
        }}});
        let url = format!("http://127.0.0.1:{}/session", driver.port);
        let created = command(&client, &url, Some(capabilities)).await;
        let created = created.unwrap_or_else(|error| panic!("no chromium, {INSTALL}\n{error}"));
        let session = created["sessionId"].as_str().expect("a session id").into();
        Self {
            client,
            driver,
            session,
            _profile: profile,
        }
    }

    async fn command(&self, path: &str, body: Option<Value>) -> Result<Value, Value> {
        let Self {
            driver, session, ..
        } = self;
        let url = format!("http://127.0.0.1:{}/session/{session}/{path}", driver.port);
        command(&self.client, &url, body).await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let result = self.command(path, Some(body)).await;
        result.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Loads a page in the current tab.
    pub(crate) async fn open(&self, url: &str) {
        self.post("url", json!({ "url": url })).await;
    }

    /// Loads the current tab's page again.
    pub(crate) async fn reload(&self) {
        self.post("refresh", json!({})).await;
    }

    /// The current tab.
    pub(crate) async fn tab(&self) -> String {
        let handle = self.command("window", None).await.expect("a tab");
        handle.as_str().expect("a string").into()
    }

    /// Opens another tab and makes it the current one.
    pub(crate) async fn open_tab(&self) -> String {
        let tab = self.post("window/new", json!({ "type": "tab" })).await;
        let handle = tab["handle"].as_str().expect("a string");
        self.switch_to(handle).await;
        handle.into()
    }

    pub(crate) async fn switch_to(&self, tab: &str) {
        self.post("window", json!({ "handle": tab })).await;
    }

    /// Closes the current tab. Switch to another one after that.
    pub(crate) async fn close_tab(&self) {
        let Self {
            driver, session, ..
        } = self;
        let url = format!("http://127.0.0.1:{}/session/{session}/window", driver.port);
        let closed = within("a closed tab", self.client.delete(url).send()).await;
        let closed = closed.expect("chromedriver answers").error_for_status();
        closed.expect("there is a tab");
    }

    /// What a JavaScript expression is in the current tab.
    pub(crate) async fn eval(&self, expression: &str) -> Value {
        let script = format!("return ({expression});");
        self.post("execute/sync", json!({ "script": script, "args": [] }))
            .await
    }

    /// Waits until a JavaScript expression is true in the current tab. It is looked at again whenever the page changes.
    pub(crate) async fn wait_until(&self, expression: &str) {
        let script = format!(
            "const done = arguments[0];
             const observer = new MutationObserver(look);
             function look() {{
                 if ({expression}) {{ observer.disconnect(); done(true); }}
             }}
             observer.observe(document, {{
                 subtree: true, childList: true, attributes: true, characterData: true,
             }});
             look();"
        );
        let body = json!({ "script": script, "args": [] });
        if let Err(error) = self.command("execute/async", Some(body)).await {
            let page = self.eval("document.body.innerText").await;
            panic!("{expression}: {error}\nthe page shows: {page}");
        }
    }

    /// Presses keys together, and lets go of them in the opposite order.
    pub(crate) async fn press(&self, chord: &[char]) {
        let down = chord.iter().map(|key| key_action("keyDown", *key));
        let up = chord.iter().rev().map(|key| key_action("keyUp", *key));
        self.keys(down.chain(up).collect()).await;
    }

    /// Types text, one key after the other, wherever the focus is.
    pub(crate) async fn type_text(&self, text: &str) {
        let keys = text
            .chars()
            .flat_map(|key| [key_action("keyDown", key), key_action("keyUp", key)]);
        self.keys(keys.collect()).await;
    }

    async fn keys(&self, actions: Vec<Value>) {
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.post("actions", json!({ "actions": [keyboard] })).await;
    }

    /// Calls a method of the [DevTools protocol](https://chromedevtools.github.io/devtools-protocol/).
    pub(crate) async fn devtools(&self, method: &str, params: Value) -> Value {
        let body = json!({ "cmd": method, "params": params });
        self.post("goog/cdp/execute", body).await
    }

    /// Writes what the current tab shows to a PNG file.
    pub(crate) async fn screenshot(&self, path: &Path) {
        let image = self.command("screenshot", None).await.expect("an image");
        let image = base64(image.as_str().expect("a string"));
        assert!(image.starts_with(b"\x89PNG\r\n\x1a\n"));
        std::fs::write(path, image).expect("the file can be written");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // chromedriver takes the browser down when the session is deleted, and answers when it is gone. Killing
        // chromedriver would leave the browser behind. Written by hand, because a drop cannot await.
        let Self {
            driver, session, ..
        } = self;
        let closed = || -> std::io::Result<()> {
            let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, driver.port))?;
            socket.set_read_timeout(Some(Duration::from_secs(10)))?;
            write!(
                socket,
                "DELETE /session/{session} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
            )?;
            // The first byte of the answer will do: chromedriver does not close the connection after the last.
            socket.read_exact(&mut [0])
        };
        if let Err(error) = closed() {
            eprintln!("the browser may still be there: {error}");
        }
    }
}

/// Sends a command and returns its value, or the error that chromedriver tells.
async fn command(client: &Client, url: &str, body: Option<Value>) -> Result<Value, Value> {
    let request = match &body {
        Some(body) => client.post(url).json(body),
        None => client.get(url),
    };
    let answer = async { request.send().await?.json().await };
    let answer: reqwest::Result<Value> = within(url, answer).await;
    let value = answer.expect("chromedriver answers in JSON")["value"].take();
    if value.get("error").is_some() {
        Err(value)
    } else {
        Ok(value)
    }
}

fn key_action(kind: &str, key: char) -> Value {
    json!({ "type": kind, "value": key })
}

fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for digit in text.trim_end_matches('=').bytes() {
        let value = ALPHABET.iter().position(|&letter| letter == digit);
        bits = bits << 6 | value.expect("a digit of base 64") as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

/// A chromedriver on a port of its own.
struct Driver {
    port: u16,
    _child: Child,
    // It must be able to go on writing.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Driver {
    /// It takes the same free port twice, for IPv4 and for IPv6, and gives up when somebody has taken one of them meanwhile.
    async fn start(temp: &Path) -> Self {
        for _ in 0..10 {
            if let Some(driver) = Self::try_start(temp).await {
                return driver;
            }
        }
        panic!("chromedriver ended ten times without having told its port");
    }

    /// `None` if it ended at once.
    async fn try_start(temp: &Path) -> Option<Self> {
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            // The browser has it from here, and does not always clear up what it puts there.
            .env("TMPDIR", temp)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("no chromedriver, {INSTALL}\n{error}"));
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        loop {
            let line = within("chromedriver's port", stdout.next_line()).await;
            let line = line.expect("UTF-8")?;
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                return Some(Self {
                    port: port.trim_end_matches('.').parse().expect("a port"),
                    _child: child,
                    _stdout: stdout,
                });
            }
        }
    }
}

/// A directory for one browser's profile and temporary files.
struct Profile(PathBuf);

impl Profile {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tidings-browser-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a directory of that name is new");
        Self(path)
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        // The browser is gone, but its helper processes may write for a moment longer, and tell nobody when they end.
        for _ in 0..100 {
            match std::fs::remove_dir_all(&self.0) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                _ => return,
            }
        }
        eprintln!("{} is left behind", self.0.display());
    }
}
