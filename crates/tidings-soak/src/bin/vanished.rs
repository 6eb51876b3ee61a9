//! How soon does a server disconnect clients that vanish without closing, as when they lose power or their network?
//!
//! 10,000 clients of 1,000 users have a stream open, and then send nothing more: no FIN, no RST, no answer of any kind. 100
//! other clients, behind the same cable, stay. Keep-alive sends a probe after 2 s of silence, then each second, 3 in all, so
//! that the server gives up on a client 5 s after its last sign of life; the stall limit is 5 s as well.
//!
//! - `no events`: TCP keep-alive finds them.
//! - `events`: every user gets an event each second; `TCP_USER_TIMEOUT`, which goes with the keep-alive, finds them.
//!
//! In both cases they must be gone from `stats()` and from the kernel within 5 s and one more, with events from the first
//! that they do not answer; and those that stayed must still be there and have every event. Where one of these is missed,
//! the program says so and fails. It wants a machine that does nothing else: the kernel takes half of the extra second, since
//! it counts `TCP_USER_TIMEOUT` from its first retransmission, which comes the later the slower the answers were before.
//!
//! The server and the clients each have a network of their own (a namespace), with a cable between them (veth). To vanish,
//! the clients' network gives up the address of the 10,000 and drops what comes for it, while the server still knows where to
//! send: closing the sockets, or `ss -K`, would tell the server. It takes `unshare` (util-linux), `ip` (iproute2) and either
//! root or unprivileged user namespaces.
//!
//!     cargo run --release -p tidings-soak --bin vanished
//!
//! Without these, the program fails and says so. A tiny round (`-- --test`) then checks only that accepted sockets have the
//! options, and says what it left out.

#[path = "../../../../benches/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::Listener;
use socket2::SockRef;
use support::process::{Process, answer, part, part_command};
use support::{Mode, Numbers, http1, kernel, numbered};
use tidings::serve::{TcpKeepAlive, bind, serve};
use tidings::sse::SseResponse;
use tidings::{GenericBroadcaster, KeepAlive, RegisterError, Text};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinSet;

const STALL_LIMIT: Duration = Duration::from_secs(5);

/// A client is given up after 5 s.
fn keep_alive() -> TcpKeepAlive {
    TcpKeepAlive::default()
        .idle(Duration::from_secs(2))
        .interval(Duration::from_secs(1))
        .retries(3)
}

/// Within so long they must be gone.
fn bound(mode: Mode) -> Duration {
    keep_alive().total().max(STALL_LIMIT) + mode.slack()
}

/// The address of the clients that vanish, and that of those that stay: each in a network of its own on the same cable,
/// of which the server is number 1.
const VANISHING: &str = "10.77.1.";
const STAYING: &str = "10.77.2.";

const EVENT_BYTES: usize = 200;
const EVENT_EVERY: Duration = Duration::from_secs(1);

/// Streams of each user.
const EACH: usize = 10;

// The server

/// Serves, and answers: `event` sends one to each user, `connections` is how many there are.
async fn be_server() {
    type Hub = GenericBroadcaster<Text>;
    async fn stream(
        State(hub): State<Hub>,
        Path(user): Path<String>,
    ) -> Result<impl IntoResponse, RegisterError> {
        Ok(SseResponse::new(hub.register(user)?).keep_alive(&KeepAlive::off()))
    }
    let hub = Hub::new();
    let app = Router::new()
        .route("/{user}", get(stream))
        .with_state(hub.clone());
    let listener = bind("0.0.0.0:0").await.expect("a free port");
    let listener = listener.stall_limit(STALL_LIMIT).keep_alive(keep_alive());
    let addr = listener.local_addr().expect("it is bound");
    let mut number = 0;
    answer(&format!("http://{addr}"), move |question| {
        if question == "event" {
            let event = Text::new(numbered(number, EVENT_BYTES));
            number += 1;
            for user in hub.connected_users() {
                hub.broadcast(&user, &event).expect("text can be encoded");
            }
        }
        hub.stats().connections.to_string()
    });
    serve(listener, app).await;
}

// The clients

type Stayers = Arc<Mutex<Vec<Arc<Mutex<Numbers>>>>>;

/// Answers: `plug` connects the cable, `vanish PORT COUNT` and `stay PORT COUNT` open streams, `gone` is the moment of
/// which this is about, `there` is how many of those that stay are and have missed nothing, `read` is how many events each
/// of them has at least.
async fn be_clients() {
    let runtime = Handle::current();
    let vanishing = Mutex::new(Vec::new());
    let staying = Stayers::default();
    answer("ready", move |question| {
        let words: Vec<_> = question.split(' ').collect();
        let number = |n: usize| words[n].parse::<usize>().expect("a number");
        match words[0] {
            "plug" => {
                ip(&format!("addr add {VANISHING}2/24 dev client0"));
                ip(&format!("addr add {STAYING}2/24 dev client0"));
                ip("link set client0 up");
            }
            "vanish" => {
                let opened = runtime.block_on(open(VANISHING, number(1), number(2)));
                vanishing.lock().expect("one thread").extend(opened);
            }
            "stay" => {
                for stream in runtime.block_on(open(STAYING, number(1), number(2))) {
                    let numbers = Arc::new(Mutex::new(Numbers::of_size(EVENT_BYTES)));
                    staying
                        .lock()
                        .expect("one thread")
                        .push(Arc::clone(&numbers));
                    runtime.spawn(follow(stream, numbers));
                }
            }
            "gone" => ip(&format!("addr del {VANISHING}2/24 dev client0")),
            _ => {}
        }
        let staying = staying.lock().expect("one thread");
        let lock = |numbers: &Arc<Mutex<Numbers>>| {
            let numbers = numbers.lock().expect("nothing panics while it is held");
            (numbers.fault.is_none(), numbers.count)
        };
        let stayers = staying.iter().map(lock);
        match words[0] {
            "there" => stayers
                .filter(|(is_whole, _)| *is_whole)
                .count()
                .to_string(),
            "read" => stayers
                .map(|(_, count)| count)
                .min()
                .unwrap_or(0)
                .to_string(),
            _ => String::new(),
        }
    });
    std::future::pending().await
}

async fn follow(mut stream: http1::Stream, numbers: Arc<Mutex<Numbers>>) {
    let lock = || numbers.lock().expect("nothing panics while it is held");
    let mut buf = vec![0; 4096];
    while let Ok(true) = stream.read(&mut buf, |bytes| lock().push(bytes)).await {}
    lock().fault.get_or_insert("the stream ended".to_owned());
}

/// Opens so many streams, some at a time.
async fn open(network: &'static str, port: usize, count: usize) -> Vec<http1::Stream> {
    let addr: SocketAddr = format!("{network}1:{port}").parse().expect("an address");
    let (mut streams, mut opening) = (Vec::new(), JoinSet::new());
    for n in 0..count {
        opening.spawn(async move {
            let path = format!("/{network}{}", n / EACH);
            http1::Stream::open(addr, &path).await
        });
        if opening.len() >= 64 || n + 1 == count {
            for stream in std::mem::take(&mut opening).join_all().await {
                streams.push(stream.expect("the server serves"));
            }
        }
    }
    streams
}

fn ip(args: &str) {
    let status = Command::new("ip").args(args.split(' ')).status();
    assert!(status.expect("ip runs").success(), "ip {args}");
}

// The measurement

/// In a network of its own: connects it to one of clients, and has these vanish. Says whether all went as promised.
fn be_host(with_events: bool, vanishing: usize, staying: usize) -> bool {
    const MAC: &str = "02:00:00:00:00:02";
    let bound = bound(Mode::of_program());
    let mut server = Process::start(part_command(["server"]));
    let mut clients = Process::start(unshare(&["--net"], &part_command(["clients"])));
    let pid = clients.pid().to_string();
    ip(&format!(
        "link add server0 type veth peer name client0 address {MAC}"
    ));
    ip(&format!("link set client0 netns {pid}"));
    ip("link set server0 up");
    for network in [VANISHING, STAYING] {
        ip(&format!("addr add {network}1/24 dev server0"));
        // For good: the server's own kernel must not find out that nobody answers at the address.
        ip(&format!(
            "neigh replace {network}2 lladdr {MAC} dev server0 nud permanent"
        ));
    }
    clients.ask("plug");

    let port = server.addr().port();
    clients.ask(&format!("vanish {port} {vanishing}"));
    clients.ask(&format!("stay {port} {staying}"));
    assert_eq!(server.ask_number("connections"), vanishing + staying);
    for _ in 0..2 {
        if with_events {
            server.ask("event");
        }
        sleep(Duration::from_millis(500));
    }
    assert_eq!(server.ask_number("connections"), vanishing + staying);

    let local = format!("{VANISHING}1:{port}").parse().expect("an address");
    let in_kernel = |server: &Process| kernel::clients_of(server.pid(), local).len();
    assert_eq!(in_kernel(&server), vanishing);
    let mut start = Instant::now();
    clients.ask("gone");
    let mut events = 0;
    if with_events {
        start = Instant::now();
        server.ask("event");
        events = 1;
    }
    let (mut first, mut half, mut stats, mut sockets) = (None, None, None, None);
    while (stats.is_none() || sockets.is_none()) && start.elapsed() < bound * 3 {
        sleep(Duration::from_millis(20));
        if with_events && start.elapsed() > events * EVENT_EVERY {
            server.ask("event");
            events += 1;
        }
        let left = server.ask_number("connections").saturating_sub(staying);
        let now = start.elapsed();
        if left < vanishing {
            first.get_or_insert(now);
        }
        if left <= vanishing / 2 {
            half.get_or_insert(now);
        }
        if left == 0 {
            stats.get_or_insert(now);
        }
        if in_kernel(&server) == 0 {
            sockets.get_or_insert(start.elapsed());
        }
    }
    let there = clients.ask_number("there");
    let read = clients.ask_number("read");
    let connections = server.ask_number("connections");

    let seconds = |time: Option<Duration>| match time {
        Some(time) => format!("{:.2} s", time.as_secs_f64()),
        None => "never".to_owned(),
    };
    println!(
        "{:10} {:>8} {:>8} {:>8} {:>8} {:>12} {:>12}",
        if with_events { "events" } else { "no events" },
        seconds(first),
        seconds(half),
        seconds(stats),
        seconds(sockets),
        format!("{there} of {staying}"),
        read
    );
    let in_time = |time: Option<Duration>| time.is_some_and(|time| time <= bound);
    let mut missed = Vec::new();
    if !in_time(stats) || !in_time(sockets) {
        missed.push(format!("they were not gone within {bound:?}"));
    }
    if there != staying || connections != staying {
        missed.push(format!(
            "of {staying} that stayed, the server has {connections}, and {there} have all events"
        ));
    }
    if with_events && read == 0 {
        missed.push("those that stayed got no events".to_owned());
    }
    for what in &missed {
        println!("missed: {what}");
    }
    missed.is_empty()
}

/// How a program is run in a network of its own, or why it cannot be.
fn in_own_network() -> Result<&'static [&'static str], String> {
    let ways: [&[&str]; 2] = [&["--user", "--map-root-user", "--net"], &["--net"]];
    let mut reasons = String::new();
    for way in ways {
        let mut probe = Command::new("ip");
        probe.args("link add server0 type veth peer name client0".split(' '));
        match unshare(way, &probe).output() {
            Ok(output) if output.status.success() => return Ok(way),
            Ok(output) => reasons += &String::from_utf8_lossy(&output.stderr),
            Err(error) => reasons += &format!("unshare: {error}\n"),
        }
    }
    Err(reasons)
}

/// A program in a network of its own.
fn unshare(way: &[&str], program: &Command) -> Command {
    let mut command = Command::new("unshare");
    command.args(way).arg(program.get_program());
    command.args(program.get_args());
    command
}

/// What of it can be seen without a network of one's own: that accepted sockets have the options.
async fn check_options() {
    let listener = bind("127.0.0.1:0").await.expect("a free port");
    let mut listener = listener.stall_limit(STALL_LIMIT).keep_alive(keep_alive());
    let addr = listener.local_addr().expect("it is bound");
    for _ in 0..5 {
        let (client, (io, _)) = tokio::join!(TcpStream::connect(addr), listener.accept());
        let _client = client.expect("the listener listens");
        let socket = SockRef::from(io.get_ref());
        assert!(socket.keepalive().expect("it can be read"));
        let seconds = |time: std::io::Result<Duration>| time.expect("it can be read").as_secs();
        assert_eq!(seconds(socket.tcp_keepalive_time()), 2);
        assert_eq!(seconds(socket.tcp_keepalive_interval()), 1);
        assert_eq!(socket.tcp_keepalive_retries().expect("it can be read"), 3);
        let user_timeout = socket.tcp_user_timeout().expect("it can be read");
        assert_eq!(user_timeout, Some(keep_alive().total()));
    }
}

fn main() -> ExitCode {
    let mode = Mode::of_program();
    let as_promised = |yes| {
        if yes {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    };
    let runtime = || Runtime::new().expect("threads can be started");
    match part().as_deref() {
        None => {}
        Some([host, events, vanishing, staying, _mode]) if host == "host" => {
            let number = |text: &String| text.parse().expect("a number");
            let (vanishing, staying) = (number(vanishing), number(staying));
            return as_promised(be_host(events == "events", vanishing, staying));
        }
        Some([server]) if server == "server" => {
            runtime().block_on(be_server());
            return ExitCode::SUCCESS;
        }
        Some(_) => {
            let mut runtime = Builder::new_multi_thread();
            let runtime = runtime.worker_threads(1).enable_all().build();
            runtime
                .expect("a thread can be started")
                .block_on(be_clients());
            return ExitCode::SUCCESS;
        }
    }

    let (vanishing, staying) = mode.pick((10_000, 100), (50, 5));
    kernel::allow_files(vanishing + staying);
    let way = match in_own_network() {
        Ok(way) => way,
        Err(reasons) => {
            eprintln!(
                "vanished: this needs networks of its own: `unshare` (util-linux), `ip` (iproute2), and root or unprivileged user namespaces. It got:\n{reasons}"
            );
            if mode == Mode::Measure {
                return ExitCode::FAILURE;
            }
            runtime().block_on(check_options());
            println!(
                "left out: clients that vanish, since networks of their own are not to be had (see above)"
            );
            println!(
                "checked: accepted sockets have the keep-alive and the user time-out that are asked for"
            );
            return ExitCode::SUCCESS;
        }
    };
    println!(
        "{vanishing} clients vanish, {staying} stay; keep-alive gives up after {:?}, stall limit {STALL_LIMIT:?}\n",
        keep_alive().total()
    );
    println!(
        "{:10} {:>8} {:>8} {:>8} {:>8} {:>12} {:>12}",
        "", "first", "half", "stats", "sockets", "stayed", "events each"
    );
    let mut kept = true;
    for events in ["no events", "events"] {
        let counts = [vanishing, staying].map(|n| n.to_string());
        let host = part_command(["host", events, &counts[0], &counts[1], mode.flag()]);
        kept &= unshare(way, &host)
            .status()
            .expect("unshare runs")
            .success();
    }
    as_promised(kept)
}
