//! What must a server still send its clients when it is told to stop, and how long can they delay it?
//!
//! - `agent_hub`, the example as a process: 5,000 streams of 500 users over HTTP/1. 100 of them do not read and have all
//!   buffers full, 100 other clients have sent half of a request, 100 nothing at all. Each user gets a last event, and then
//!   the process gets SIGTERM.
//! - `HTTP/2`, a server of this benchmark's own in a process: 1,000 streams of 100 users, ten on a connection, and on every
//!   second connection one that withholds its window.
//!
//! Both end their streams over 2 seconds, and wait half a second longer for connections (`tidings::serve::Server::drain`).
//! Every client that reads must see the last event, a `retry:` and a proper end (the last chunk, or END_STREAM). Clients that
//! do not read must be cut by then, a quarter of a second after the streams: the server may abort only clients that have sent
//! half of a request. The process must have exited within the 2 seconds and one more, whatever clients do. If one of these is
//! missed, the program says so and fails.
//!
//!     cargo run --release -p tidings-soak --bin drain

#[path = "../../../../tests/support/example.rs"]
mod example;
#[path = "../../../../benches/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::process::{ExitCode, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use example::example;
use support::process::Process;
use support::{Farewell, Mode, http1, kernel, median};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::{Builder, Runtime};

/// Over how long streams are ended.
const DRAIN: Duration = Duration::from_secs(2);

/// What each user is sent last.
const LAST: &str = "last words";

/// Streams of one user, as many as the hub lets in.
const EACH: usize = 10;

/// More than what the sockets hold for a client that does not read, in a few events.
const FLOOD: usize = 6;
const FLOOD_BYTES: usize = 100_000;

type Farewells = Vec<Arc<Mutex<Farewell>>>;

fn lock(farewell: &Mutex<Farewell>) -> MutexGuard<'_, Farewell> {
    farewell.lock().expect("nothing panics while it is held")
}

/// Reads a stream to its end, in the background.
fn follow(mut stream: http1::Stream) -> Arc<Mutex<Farewell>> {
    let farewell = Arc::<Mutex<Farewell>>::default();
    let noted = Arc::clone(&farewell);
    tokio::spawn(async move {
        let mut buf = vec![0; 16 * 1024];
        let mut push = |bytes: &[u8]| lock(&noted).push(bytes);
        // The connection may stay open after it.
        while !stream.is_complete() && matches!(stream.read(&mut buf, &mut push).await, Ok(true)) {}
        lock(&noted).end(stream.is_complete());
    });
    farewell
}

/// What a server says at its end where it has aborted connections, followed by how many.
const ABORTED: &str = "did not end in time connections=";

/// What became of the clients that read, and of the process, which may abort so many connections.
fn report(process: &mut Process, farewells: &Farewells, abortable: usize, mode: Mode) -> bool {
    let signal = Instant::now();
    process.terminate();
    let exit = process.exit(DRAIN + Duration::from_secs(10));
    let farewells: Vec<_> = farewells.iter().map(|farewell| lock(farewell)).collect();
    let faults: Vec<_> = farewells
        .iter()
        .filter_map(|f| f.check(LAST).err())
        .collect();
    let of = farewells.len();
    let whole = of - faults.len();
    println!("  last event, `retry:` and a proper end   {whole} of {of}");
    let ends = farewells.iter().filter_map(|f| f.ended_at());
    let mut ends: Vec<_> = ends.map(|end| (end - signal).as_secs_f64()).collect();
    if !ends.is_empty() {
        let middle = median(&mut ends);
        println!(
            "  their streams ended after               {:.2} s the first, {middle:.2} s the median, {:.2} s the last",
            ends[0],
            ends[ends.len() - 1]
        );
    }
    for fault in faults.iter().take(10) {
        println!("missed: {fault}");
    }
    let in_time = match exit {
        None => {
            println!("missed: the process has not exited");
            false
        }
        Some((status, at)) => {
            let took = at - signal;
            println!(
                "  the process exited after                {:.2} s, {status}",
                took.as_secs_f64()
            );
            let bound = DRAIN + mode.slack();
            let in_time = took <= bound;
            if !in_time {
                println!("missed: that is more than {bound:?}");
            }
            in_time && status.success()
        }
    };
    let said = process.rest();
    let aborted = said.rsplit_once(ABORTED).map_or(0, |(_, count)| {
        let count = count.split_whitespace().next();
        count
            .and_then(|count| count.parse().ok())
            .expect("a number")
    });
    println!("  connections that were aborted           {aborted}");
    if aborted > abortable {
        println!("missed: that is more than the {abortable} with half a request");
    }
    println!();
    faults.is_empty() && in_time && aborted <= abortable
}

fn agent_hub(runtime: &Runtime, mode: Mode) -> bool {
    let users = mode.pick(500, 10);
    let idle = mode.pick(100, 5);
    let mut command = example("agent_hub");
    let drain = DRAIN.as_millis().to_string();
    command.args(["--addr", "127.0.0.1:0", "--drain-ms", &drain]);
    command.args(["--history", "0"]);
    command.env("RUST_LOG", "error,agent_hub=warn");
    command.env("NO_COLOR", "1").stderr(Stdio::piped());
    let mut process = Process::start(command);
    let addr = process.addr();
    println!(
        "agent_hub: {} streams of {users} users, {idle} of which do not read; {idle} clients with half a request, {idle} silent",
        users * EACH
    );
    let (farewells, kept) = runtime.block_on(async {
        let mut farewells = Vec::new();
        let mut kept: (Vec<http1::Stream>, Vec<TcpStream>) = Default::default();
        for user in 0..users {
            let path = format!("/users/{user}/streams/text");
            for n in 0..EACH {
                let socket = TcpSocket::new_v4().expect("a socket");
                let stalls = n == 0 && user < idle;
                if stalls {
                    socket.set_recv_buffer_size(4096).expect("it can be set");
                }
                let stream = http1::Stream::open_on(socket, addr, &path).await;
                let stream = stream.expect("the hub serves");
                if stalls {
                    kept.0.push(stream);
                } else {
                    farewells.push(follow(stream));
                }
            }
        }
        for _ in 0..idle {
            let mut half = TcpStream::connect(addr).await.expect("the hub listens");
            let request = b"POST /users/ann/events/text HTTP/1.1\r\nhost: localh";
            half.write_all(request).await.expect("it is taken");
            kept.1.push(half);
            let silent = TcpStream::connect(addr).await;
            kept.1.push(silent.expect("the hub listens"));
        }
        let flood = "x".repeat(FLOOD_BYTES);
        for user in 0..idle {
            for _ in 0..FLOOD {
                send(addr, user, &flood).await;
            }
        }
        for user in 0..users {
            send(addr, user, LAST).await;
        }
        (farewells, kept)
    });
    let kept_its_word = report(&mut process, &farewells, idle, mode);
    drop(kept);
    kept_its_word
}

/// Posts an event to a user of the hub, all of whose streams must be there.
async fn send(addr: SocketAddr, user: usize, text: &str) {
    // A connection for each post: there are few, and the hub gets to know both kinds.
    let body = format!(r#"{{"text":"{text}"}}"#);
    let head = format!(
        "POST /users/{user}/events/text HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut tcp = TcpStream::connect(addr).await.expect("the hub listens");
    tcp.write_all(head.as_bytes()).await.expect("it is taken");
    tcp.write_all(body.as_bytes()).await.expect("it is taken");
    let mut answer = String::new();
    let read = tcp.read_to_string(&mut answer).await;
    read.expect("an answer");
    let reached = format!(r#"{{"reached":{EACH}}}"#);
    assert!(answer.ends_with(&reached), "{answer}");
}

mod over_http2 {
    use std::time::Duration;

    use axum::Router;
    use axum::extract::{Path, State};
    use axum::routing::get;
    use tidings::serve::{bind, serve};
    use tidings::{GenericBroadcaster, RegisterError, Subscription, Text};
    use tokio::signal::unix::{SignalKind, signal};

    use super::support::http2::{connect, open, read};
    use super::support::process::{answer, part_command};
    use super::*;

    type Hub = GenericBroadcaster<Text>;

    /// Serves until SIGTERM, and answers `users kind` with how many streams were reached.
    pub(super) async fn be_server() {
        async fn stream(
            State(hub): State<Hub>,
            Path(user): Path<String>,
        ) -> Result<Subscription, RegisterError> {
            hub.register(user)
        }
        let hub = Hub::new();
        let app = Router::new()
            .route("/{user}", get(stream))
            .with_state(hub.clone());
        let listener = bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it is bound");
        let mut stop = signal(SignalKind::terminate()).expect("a handler");
        let sender = hub.clone();
        answer(&format!("http://{addr}"), move |question| {
            let (users, kind) = question.split_once(' ').expect("two words");
            let users: usize = users.parse().expect("a number");
            let (times, text) = match kind {
                "flood" => (FLOOD, "x".repeat(FLOOD_BYTES)),
                _ => (1, LAST.to_owned()),
            };
            let event = Text::new(text);
            let send = |n: usize| sender.broadcast(&(n % users).to_string(), &event);
            let reached = (0..users * times).map(|n| send(n).expect("it is text"));
            reached.sum::<usize>().to_string()
        });
        let drained = serve(listener, app)
            .http2(true)
            .with_graceful_shutdown(async move {
                stop.recv().await;
                hub.shutdown(DRAIN).await;
            })
            .drain(Duration::from_millis(500))
            .await;
        if drained.aborted > 0 {
            println!("{ABORTED}{}", drained.aborted);
        }
    }

    fn follow_http2(mut body: h2::RecvStream) -> Arc<Mutex<Farewell>> {
        let farewell = Arc::<Mutex<Farewell>>::default();
        let noted = Arc::clone(&farewell);
        tokio::spawn(async move {
            let is_complete = loop {
                match read(&mut body).await {
                    Some(Ok(bytes)) => lock(&noted).push(&bytes),
                    Some(Err(_)) => break false,
                    None => break true,
                }
            };
            lock(&noted).end(is_complete);
        });
        farewell
    }

    pub(super) fn run(runtime: &Runtime, mode: Mode) -> bool {
        let users = mode.pick(100, 6);
        let idle = users / 2;
        println!(
            "HTTP/2: {} streams of {users} users, {idle} of which withhold their window",
            users * EACH
        );
        let mut process = Process::start(part_command(["http2"]));
        let addr = process.addr();
        let (farewells, kept) = runtime.block_on(async {
            let (mut farewells, mut kept) = (Vec::new(), Vec::new());
            for user in 0..users {
                let connected = connect(addr, 1 << 16).await;
                let (mut requests, connection) = connected.expect("the server speaks HTTP/2");
                tokio::spawn(connection);
                let path = format!("/{user}");
                for n in 0..EACH {
                    let opened = open(&mut requests, &path).await;
                    let body = opened.expect("the server serves");
                    if n == 0 && user < idle {
                        kept.push(body);
                        continue;
                    }
                    farewells.push(follow_http2(body));
                }
            }
            (farewells, kept)
        });
        let reached = process.ask_number(&format!("{idle} flood"));
        assert_eq!(reached, idle * FLOOD * EACH);
        let reached = process.ask_number(&format!("{users} last"));
        assert_eq!(reached, users * EACH);
        let kept_its_word = report(&mut process, &farewells, 0, mode);
        drop(kept);
        kept_its_word
    }
}

fn main() -> ExitCode {
    let mode = Mode::of_program();
    if support::process::part().is_some() {
        let runtime = Runtime::new().expect("threads can be started");
        runtime.block_on(over_http2::be_server());
        return ExitCode::SUCCESS;
    }
    kernel::allow_files(mode.pick(5_200, 200));
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a thread can be started");
    let kept_their_word = [agent_hub(&runtime, mode), over_http2::run(&runtime, mode)];
    if kept_their_word.contains(&false) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
