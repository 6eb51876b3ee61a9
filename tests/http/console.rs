//! The console's routes: their responses, their refusals, and that nothing runs while no console is open.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use serde_json::{Value, json};
use tidings::{ConnectionId, GenericBroadcaster, History, LagPolicy, Text};
use tidings_console::Console;
use tidings_testkit::{SseClient, SseRequest};
use tokio::runtime::Handle;
use tower::ServiceExt;

type Hub = GenericBroadcaster<Text>;

const HOSTILE: &str = "<img src=x onerror=alert(1)>&\"'\u{2028}/../#?%00";

fn console(hub: &Hub) -> Console {
    Console::new().broadcaster_with("chat", hub, |text| Text::new(text).event("test"))
}

fn app(hub: &Hub) -> Router {
    let console = console(hub).hosts(["ops.example:8443"]);
    Router::new().nest("/ops/console", console.router())
}

async fn ask(app: &Router, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
    let response = app.clone().oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.expect("a body");
    let body = String::from_utf8(body.into()).expect("UTF-8");
    (parts.status, parts.headers, body)
}

async fn get(app: &Router, path: &str) -> (StatusCode, HeaderMap, String) {
    let request = Request::get(path).header("host", "localhost");
    ask(app, request.body(Body::empty()).expect("a request")).await
}

async fn act(app: &Router, action: &str, body: Value) -> (StatusCode, Value) {
    let request = Request::post(format!("/ops/console/{action}"))
        .header("host", "localhost")
        .header("x-tidings-console", "1")
        .body(body.to_string().into());
    let (status, _, body) = ask(app, request.expect("a request")).await;
    (status, serde_json::from_str(&body).expect("JSON"))
}

/// The list, for a search that needs no percent-encoding.
async fn list(app: &Router, search: &str) -> Value {
    let path = format!("/ops/console/users?broadcaster=chat&search={search}");
    let (status, _, body) = get(app, &path).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

async fn open(app: &Router, path: &str) -> SseClient {
    let opened = SseRequest::get(format!("/ops/console/{path}"))
        .header("host", "localhost")
        .open(app.clone())
        .await;
    opened.expect("a stream")
}

#[tokio::test]
async fn the_page_is_found_wherever_the_router_is_nested() {
    let hub = Hub::new();
    for (prefix, location) in [
        ("/console", "./console/page"),
        ("/a/b:c", "./b:c/page"),
        ("/x%20y", "./x%20y/page"),
        ("/z/", "./page"),
    ] {
        let app = Router::new().nest(prefix, console(&hub).router());
        let (status, headers, _) = get(&app, prefix).await;
        assert_eq!(status, StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(headers[header::LOCATION], location);
        let base = prefix.trim_end_matches('/');
        let (status, headers, page) = get(&app, &format!("{base}/page")).await;
        assert_eq!(status, StatusCode::OK, "{prefix}");
        assert_eq!(headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(page.contains("href=\"console.css\"") && page.contains("src=\"console.js\""));
    }
    let service = Router::new().nest_service("/console", console(&hub).router::<()>());
    for (path, location) in [("/console", "./console/page"), ("/console/", "./page")] {
        assert_eq!(get(&service, path).await.1[header::LOCATION], location);
    }
    let alone: Router = console(&hub).router();
    assert_eq!(get(&alone, "/").await.1[header::LOCATION], "./page");
    assert_eq!(get(&alone, "/nothing").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn every_answer_says_what_a_browser_may_do_with_it() {
    let app = app(&Hub::new());
    for path in [
        "",
        "/page",
        "/console.css",
        "/console.js",
        "/nothing",
        "/users?broadcaster=chat",
    ] {
        let (_, headers, _) = get(&app, &format!("/ops/console{path}")).await;
        let policy = headers[header::CONTENT_SECURITY_POLICY]
            .to_str()
            .expect("text");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"));
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"));
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[header::REFERRER_POLICY], "no-referrer");
        assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    }
    let live = open(&app, "live").await;
    assert_eq!(live.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert_eq!(
        live.headers()[header::CACHE_CONTROL],
        "no-cache, no-transform"
    );
}

#[tokio::test]
async fn the_page_has_nothing_inline_and_names_no_other_host() {
    let app = app(&Hub::new());
    for path in ["/page", "/console.css", "/console.js"] {
        let (_, _, text) = get(&app, &format!("/ops/console{path}")).await;
        let text = text.replace("http://www.w3.org/2000/svg", "");
        for not_there in [
            "http:",
            "https:",
            "//cdn",
            "<style",
            "style=",
            "onclick=",
            "innerHTML",
            "eval(",
        ] {
            assert!(!text.contains(not_there), "{path} has {not_there}");
        }
        assert!(!text.contains("<script>"));
    }
}

#[tokio::test]
async fn an_action_of_another_site_is_refused() {
    let hub = Hub::new();
    let app = app(&hub);
    let _tab = hub.register("ann").expect("room");
    let foreign: &[&[(&str, &str)]] = &[
        &[],
        &[("sec-fetch-site", "same-origin")],
        &[("x-tidings-console", "1"), ("sec-fetch-site", "cross-site")],
        &[("x-tidings-console", "1"), ("sec-fetch-site", "same-site")],
        &[
            ("x-tidings-console", "1"),
            ("host", "ops.example"),
            ("origin", "https://evil.example"),
        ],
        &[
            ("x-tidings-console", "1"),
            ("host", "ops.example"),
            ("origin", "null"),
        ],
        &[
            ("x-tidings-console", "1"),
            ("host", "ops.example"),
            ("origin", "https://ops.example:8443"),
        ],
    ];
    for headers in foreign {
        for action in ["disconnect", "send"] {
            let mut request = Request::post(format!("/ops/console/{action}"));
            if headers.iter().all(|(name, _)| *name != "host") {
                request = request.header("host", "localhost");
            }
            for (name, value) in *headers {
                request = request.header(*name, *value);
            }
            let body = json!({ "broadcaster": "chat", "user": "ann", "text": "x" });
            let request = request.body(body.to_string().into()).expect("a request");
            let (status, _, _) = ask(&app, request).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{action} {headers:?}");
        }
    }
    // Nor may it take a place under the caps.
    for stream in ["live", "watch?broadcaster=chat&user=ann"] {
        let request = Request::get(format!("/ops/console/{stream}"));
        let request = request
            .header("host", "localhost")
            .header("sec-fetch-site", "cross-site")
            .body(Body::empty());
        let (status, _, _) = ask(&app, request.expect("a request")).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }
    assert_eq!(hub.connection_count("ann"), 1);
    assert_eq!(hub.stats().broadcasts, 0);

    let own = Request::post("/ops/console/disconnect")
        .header("x-tidings-console", "1")
        .header("host", "ops.example:8443")
        .header("origin", "https://ops.example:8443")
        .body(
            json!({ "broadcaster": "chat", "user": "ann" })
                .to_string()
                .into(),
        );
    assert_eq!(ask(&app, own.expect("a request")).await.0, StatusCode::OK);
    assert_eq!(hub.connection_count("ann"), 0);
}

#[tokio::test]
async fn one_connection_or_all_of_a_user_are_disconnected() {
    let hub = Hub::new();
    let app = app(&hub);
    let _tabs = ["a", "b", "c"].map(|id| hub.register_as("ann", id).expect("room"));
    let _bob = hub.register("bob").expect("room");
    let one = json!({ "broadcaster": "chat", "user": "ann", "connection": "b" });
    assert_eq!(
        act(&app, "disconnect", one.clone()).await,
        (StatusCode::OK, json!({ "ended": 1 }))
    );
    let left: Vec<_> = hub
        .connection_info_of("ann")
        .into_iter()
        .map(|info| info.connection)
        .collect();
    assert_eq!(left, ["a", "c"].map(ConnectionId::from));

    let (status, answer) = act(&app, "disconnect", one).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(answer["error"], "There is no such connection any more.");

    let all = json!({ "broadcaster": "chat", "user": "ann" });
    assert_eq!(
        act(&app, "disconnect", all.clone()).await.1,
        json!({ "ended": 2 })
    );
    assert_eq!(act(&app, "disconnect", all).await.0, StatusCode::NOT_FOUND);
    assert_eq!(hub.total_connections(), 1);
}

#[tokio::test]
async fn what_is_not_there_gets_a_clear_answer() {
    let app = app(&Hub::new());
    for (action, body, status, sentence) in [
        (
            "disconnect",
            json!({ "broadcaster": "other", "user": "ann" }),
            404,
            "There is no such broadcaster.",
        ),
        (
            "disconnect",
            json!({ "broadcaster": "chat", "user": "nobody" }),
            404,
            "There is no such connection any more.",
        ),
        (
            "send",
            json!({ "broadcaster": "other", "user": "ann", "text": "" }),
            404,
            "There is no such broadcaster.",
        ),
        (
            "disconnect",
            json!({ "broadcaster": "chat" }),
            400,
            "The body is invalid: missing field `user`",
        ),
    ] {
        let (found, answer) = act(&app, action, body).await;
        assert_eq!(found, status);
        let error = answer["error"].as_str().expect("a sentence");
        assert!(error.starts_with(sentence), "{error}");
    }
    for path in [
        "users?broadcaster=other",
        "watch?broadcaster=other&user=ann",
    ] {
        assert_eq!(
            get(&app, &format!("/ops/console/{path}")).await.0,
            StatusCode::NOT_FOUND
        );
    }
    for path in ["users", "watch?broadcaster=chat"] {
        assert_eq!(
            get(&app, &format!("/ops/console/{path}")).await.0,
            StatusCode::BAD_REQUEST
        );
    }
}

#[tokio::test]
async fn a_test_event_reaches_the_user_where_the_service_says_how_it_is_made() {
    let (hub, silent) = (Hub::new(), Hub::new());
    let console = console(&hub).broadcaster("silent", &silent);
    let app = Router::new().nest("/ops/console", console.router());
    let mut watched = open(&app, "watch?broadcaster=chat&user=ann").await;
    assert_eq!(watched.next().await.event, "watching");
    let body = json!({ "broadcaster": "chat", "user": "ann", "text": HOSTILE });
    assert_eq!(
        act(&app, "send", body).await,
        (StatusCode::OK, json!({ "reached": 1 }))
    );
    let seen = watched.next().await;
    assert_eq!(seen.event, "seen");
    let seen: Value = seen.json();
    assert_eq!(
        (&seen["event"], &seen["data"]),
        (&json!("test"), &json!(HOSTILE))
    );

    let _tab = silent.register("ann").expect("room");
    let body = json!({ "broadcaster": "silent", "user": "ann", "text": "x" });
    assert_eq!(act(&app, "send", body).await.0, StatusCode::NOT_FOUND);
    assert_eq!(silent.stats().broadcasts, 0);
}

#[tokio::test]
async fn a_test_event_that_is_not_sent_gets_the_status_of_its_error() {
    let hub = Hub::builder().history(History::new(10)).build();
    let hub = hub.expect("valid settings");
    let _held = hub.hold("ann").expect("there is a history");
    hub.complete("ann").expect("there is a history");
    let body = json!({ "broadcaster": "chat", "user": "ann", "text": "x" });
    let (status, body) = act(&app(&hub), "send", body).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
}

#[tokio::test]
async fn the_list_is_searched_and_capped_and_says_so() {
    let hub = Hub::builder()
        .connections_per_user(None)
        .total_connections(None)
        .build()
        .expect("valid");
    let app = Router::new().nest("/ops/console", console(&hub).rows(5).router());
    let mut tabs: Vec<_> = (0..100)
        .map(|n| hub.register(format!("user-{n:03}")).expect("room"))
        .collect();

    let listing = list(&app, "").await;
    assert_eq!(
        (&listing["total"], &listing["found"], &listing["capped"]),
        (&json!(100), &json!(100), &json!(true))
    );
    let users = |listing: &Value| -> Vec<String> {
        let users = listing["users"].as_array().expect("a list").iter();
        users
            .map(|user| user["user"].as_str().expect("a string").into())
            .collect()
    };
    assert_eq!(
        users(&listing),
        ["user-000", "user-001", "user-002", "user-003", "user-004"]
    );

    let listing = list(&app, "R-09").await;
    assert_eq!(
        (&listing["found"], &listing["capped"]),
        (&json!(10), &json!(true))
    );
    let listing = list(&app, "r-042").await;
    assert_eq!(
        (&listing["found"], &listing["capped"]),
        (&json!(1), &json!(false))
    );
    assert_eq!(users(&listing), ["user-042"]);
    assert_eq!(list(&app, "eve").await["users"], json!([]));

    // One user's connections are capped as well.
    tabs.extend((0..7).map(|_| hub.register("user-000").expect("room")));
    let listing = list(&app, "user-000").await;
    assert_eq!(listing["users"][0]["total"], 8);
    assert_eq!(
        listing["users"][0]["connections"]
            .as_array()
            .expect("a list")
            .len(),
        5
    );
    assert_eq!(listing["capped"], true);
}

#[tokio::test]
async fn ids_that_look_like_markup_or_paths_come_through_as_they_are() {
    let hub = Hub::new();
    let app = app(&hub);
    let _tab = hub.register_as(HOSTILE, HOSTILE).expect("room");
    let listing = list(&app, "").await;
    assert_eq!(listing["users"][0]["user"], HOSTILE);
    assert_eq!(listing["users"][0]["connections"][0]["connection"], HOSTILE);
    let body = json!({ "broadcaster": "chat", "user": HOSTILE, "connection": HOSTILE });
    assert_eq!(act(&app, "disconnect", body).await.0, StatusCode::OK);
    assert_eq!(hub.total_connections(), 0);
}

#[tokio::test]
async fn watching_takes_no_place_of_the_users_and_shows_gaps_whatever_the_policy_is() {
    let hub = Hub::builder()
        .ring_capacity(2)
        .connections_per_user(1)
        .lag_policy(LagPolicy::End)
        .build()
        .expect("valid");
    let app = app(&hub);
    let mut watched = open(&app, "watch?broadcaster=chat&user=ann").await;
    assert_eq!(watched.next().await.event, "watching");
    let info = &hub.connection_info_of("ann")[0];
    assert!(info.connection.starts_with("console-"), "{info:?}");

    // It is seen, and the user's own place is free; one who has taken it is watched as well.
    let tab = hub.register("ann").expect("the user's own place");
    hub.register("ann").expect_err("the user has but one");
    let second = open(&app, "watch?broadcaster=chat&user=ann").await;
    assert_eq!(hub.connection_count("ann"), 3);
    hub.register("ann")
        .expect_err("those who watch make no room");
    drop(tab);
    drop(second);
    let _tab = hub.register("ann").expect("the place is free again");

    for n in 0..10 {
        hub.broadcast("ann", &Text::new(n.to_string()))
            .expect("text");
    }
    let gap = watched.next().await.gap().expect("a gap");
    assert_eq!((&*gap.reason, gap.missed), ("lagged", Some(8)));
    let seen: Value = watched.next().await.json();
    assert_eq!(seen["data"], "8");
    drop(watched);
    assert_eq!(hub.total_connections(), 1);
}

#[tokio::test]
async fn sixteen_streams_are_watched_at_a_time_and_no_more() {
    let hub = Hub::new();
    let app = app(&hub);
    let mut watched = Vec::new();
    for _ in 0..16 {
        watched.push(open(&app, "watch?broadcaster=chat&user=ann").await);
    }
    let path = "/ops/console/watch?broadcaster=chat&user=bob";
    assert_eq!(get(&app, path).await.0, StatusCode::TOO_MANY_REQUESTS);
    let _tabs: Vec<_> = (0..10)
        .map(|_| hub.register("ann").expect("room"))
        .collect();
    watched.pop();
    open(&app, "watch?broadcaster=chat&user=bob").await;
}

#[tokio::test]
async fn a_host_name_that_is_not_known_is_refused_whatever_is_asked_for() {
    let hub = Hub::new();
    let app = app(&hub);
    let _tab = hub.register("ann").expect("room");
    let request = |method: &str, path: &str| {
        Request::builder()
            .method(method)
            .uri(format!("/ops/console/{path}"))
            .header("x-tidings-console", "1")
    };
    let routes = [
        ("GET", "page"),
        ("GET", "console.js"),
        ("GET", "live"),
        ("GET", "users?broadcaster=chat"),
        ("GET", "watch?broadcaster=chat&user=ann"),
        ("POST", "disconnect"),
        ("POST", "send"),
        ("GET", "nothing"),
    ];
    let body = json!({ "broadcaster": "chat", "user": "ann", "text": "x" }).to_string();
    for (method, path) in routes {
        for host in [
            "evil.example",
            "evil.example:3000",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil-localhost",
            "ops.example.evil.example",
            "ops.example@evil.example",
            "evil.example@ops.example:x",
            "10.0.0.1",
            "[::2]:3000",
            "",
        ] {
            let request = request(method, path).header("host", host);
            let request = request.body(body.clone().into()).expect("a request");
            let (status, _, answer) = ask(&app, request).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path} {host:?}");
            assert!(answer.contains("host name"), "{answer}");
        }
        // Nor one that says none, or another one beside.
        let none = request(method, path).body(body.clone().into());
        assert_eq!(
            ask(&app, none.expect("a request")).await.0,
            StatusCode::FORBIDDEN
        );
        let two = request(method, path)
            .header("host", "localhost")
            .header("host", "evil.example")
            .body(body.clone().into());
        assert_eq!(
            ask(&app, two.expect("a request")).await.0,
            StatusCode::FORBIDDEN
        );
    }
    assert_eq!(
        (hub.connection_count("ann"), hub.stats().broadcasts),
        (1, 0)
    );
}

#[tokio::test]
async fn names_and_addresses_of_loopback_are_known_and_those_that_the_service_says() {
    let hub = Hub::new();
    let console = console(&hub).hosts(["Ops.Example", "10.0.0.7:9000", "[fd00::1]"]);
    let app = Router::new().nest("/ops/console", console.router());
    for host in [
        "localhost",
        "LocalHost:3000",
        "localhost.:3000",
        "hub.localhost:3000",
        "127.0.0.1",
        "127.1.2.3:3000",
        "[::1]:3000",
        "ops.example",
        "OPS.EXAMPLE.:8443",
        "10.0.0.7",
        "10.0.0.7:3000",
        "[FD00::1]:3000",
    ] {
        let request = Request::get("/ops/console/page").header("host", host);
        let request = request.body(Body::empty()).expect("a request");
        assert_eq!(ask(&app, request).await.0, StatusCode::OK, "{host}");
    }
    // HTTP/2 says it in the request's own address, and so may a proxy.
    for (uri, status) in [
        ("http://localhost:3000/ops/console/page", StatusCode::OK),
        ("https://ops.example/ops/console/page", StatusCode::OK),
        (
            "http://evil.example/ops/console/page",
            StatusCode::FORBIDDEN,
        ),
    ] {
        let request = Request::get(uri).body(Body::empty()).expect("a request");
        assert_eq!(ask(&app, request).await.0, status, "{uri}");
        let request = Request::get(uri).header("host", "localhost");
        let request = request.body(Body::empty()).expect("a request");
        assert_eq!(ask(&app, request).await.0, status, "{uri} with a host");
    }
    // Its origin is compared with that.
    for (origin, status) in [
        ("https://ops.example", StatusCode::NOT_FOUND),
        ("https://evil.example", StatusCode::FORBIDDEN),
    ] {
        let body = json!({ "broadcaster": "chat", "user": "nobody" });
        let request = Request::post("https://ops.example/ops/console/disconnect")
            .header("x-tidings-console", "1")
            .header("origin", origin)
            .body(body.to_string().into());
        assert_eq!(
            ask(&app, request.expect("a request")).await.0,
            status,
            "{origin}"
        );
    }
}

#[tokio::test]
async fn a_console_that_is_read_only_shows_and_does_nothing() {
    let hub = Hub::new();
    let console = console(&hub).read_only(true);
    let app = Router::new().nest("/ops/console", console.router());
    let _tab = hub.register("ann").expect("room");
    for action in ["disconnect", "send"] {
        let body = json!({ "broadcaster": "chat", "user": "ann", "text": "x" });
        let (status, answer) = act(&app, action, body).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{action}");
        assert_eq!(answer["error"], "The console is read-only.");
    }
    assert_eq!(
        (hub.connection_count("ann"), hub.stats().broadcasts),
        (1, 0)
    );
    assert_eq!(list(&app, "").await["total"], 1);
    let mut live = open(&app, "live").await;
    assert_eq!(live.next().await.json::<Value>()["acts"], false);
    let mut watched = open(&app, "watch?broadcaster=chat&user=ann").await;
    assert_eq!(watched.next().await.event, "watching");
}

#[tokio::test(start_paused = true)]
async fn counters_are_read_while_a_page_is_open_and_not_otherwise() {
    let hub = Hub::new();
    let app = app(&hub);
    let idle = Handle::current().metrics().num_alive_tasks();
    let _tab = hub.register("ann").expect("room");

    for round in 0..2 {
        let mut first = open(&app, "live").await;
        let mut second = open(&app, "live").await;
        // One task for both.
        assert_eq!(
            Handle::current().metrics().num_alive_tasks(),
            idle + 1,
            "{round}"
        );
        let snapshots = first.collect(3).await;
        let at = |n: usize| {
            snapshots[n].json::<Value>()["at_ms"]
                .as_u64()
                .expect("a number")
        };
        assert_eq!([at(0), at(1), at(2)], [0, 1000, 2000]);
        let snapshot: Value = second.next().await.json();
        assert_eq!(snapshot["broadcasters"][0]["name"], "chat");
        assert_eq!(snapshot["broadcasters"][0]["sends"], true);
        assert_eq!(snapshot["broadcasters"][0]["stats"]["connections"], 1);

        drop(first);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(Handle::current().metrics().num_alive_tasks(), idle + 1);
        drop(second);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(
            Handle::current().metrics().num_alive_tasks(),
            idle,
            "{round}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_gets_figures_immediately_however_long_the_interval_is() {
    let hub = Hub::new();
    let console = console(&hub).interval(Duration::from_secs(60));
    let app = Router::new().nest("/ops/console", console.router());
    let mut first = open(&app, "live").await;
    first.next().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let mut second = open(&app, "live").await;
    let snapshot = tokio::time::timeout(Duration::from_secs(1), second.next()).await;
    let snapshot: Value = snapshot.expect("a snapshot within a second").json();
    assert_eq!(snapshot["at_ms"], 10_000);
    tokio::time::sleep(Duration::from_secs(45)).await;
    assert_eq!(second.next().await.json::<Value>()["at_ms"], 60_000);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_the_pages_streams() {
    let hub = Hub::new();
    let console = console(&hub);
    let app = Router::new().nest("/ops/console", console.router());
    let mut live = open(&app, "live").await;
    live.next().await;
    console.shutdown().await;
    live.collect_to_end().await;
    // Nobody is let in again: the stream of a refusal only says why, and when to come back.
    let mut late = open(&app, "live").await;
    let told = late.collect_to_end().await;
    let events: Vec<_> = told.iter().map(|message| message.event.as_str()).collect();
    assert_eq!(events, ["refused"]);
}
