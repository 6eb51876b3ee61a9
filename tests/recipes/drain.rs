//! The process of `agent_hub` gets SIGTERM while 200 streams are open, some of whose clients do not read.
//!
//! The short version of `drain` of `crates/tidings-soak`, with its clients.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::load::farewell::Farewell;
use crate::load::http1;
use crate::support::example;

const DRAIN: Duration = Duration::from_secs(1);
/// The hub adds half a second for connections that hold it up, and a busy machine its own.
const MORE: Duration = Duration::from_secs(2);

const USERS: usize = 20;
const EACH: usize = 10;
/// Of each kind of client that does not listen.
const IDLE: usize = 10;

const LAST: &str = "last words";

async fn start() -> (Child, SocketAddr) {
    let drain = DRAIN.as_millis().to_string();
    let mut child = Command::from(example::example("agent_hub"))
        .args(["--addr", "127.0.0.1:0", "--drain-ms", &drain])
        .env("RUST_LOG", "error")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    stdout.read_line(&mut line).await.expect("UTF-8");
    // It prints more, which nobody reads: the pipe has room for it, and must stay.
    tokio::spawn(async move { stdout.read_to_end(&mut Vec::new()).await });
    let addr = line.trim_end().rsplit("http://").next();
    let addr = addr.and_then(|addr| addr.parse().ok());
    (
        child,
        addr.unwrap_or_else(|| panic!("no address in {line:?}")),
    )
}

/// Posts an event to a user, all of whose streams must be there.
async fn send(addr: SocketAddr, user: usize, text: &str) {
    let body = format!(r#"{{"text":"{text}"}}"#);
    let len = body.len();
    let request = format!(
        "POST /users/{user}/events/text HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n{body}"
    );
    let mut tcp = TcpStream::connect(addr).await.expect("the hub listens");
    tcp.write_all(request.as_bytes())
        .await
        .expect("it is taken");
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).await.expect("an answer");
    assert!(
        answer.ends_with(&format!(r#"{{"reached":{EACH}}}"#)),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_that_reads_gets_a_proper_end_and_none_delays_the_exit() {
    let (mut child, addr) = start().await;
    let (mut stalled, mut half, mut silent) = (Vec::new(), Vec::new(), Vec::new());
    let mut reading = JoinSet::new();
    for user in 0..USERS {
        let path = format!("/users/{user}/streams/text");
        for n in 0..EACH {
            let socket = TcpSocket::new_v4().expect("a socket");
            let stalls = n == 0 && user < IDLE;
            if stalls {
                socket.set_recv_buffer_size(4096).expect("it can be set");
            }
            let opened = http1::Stream::open_on(socket, addr, &path).await;
            let mut stream = opened.expect("a stream");
            if stalls {
                stalled.push(stream);
                continue;
            }
            reading.spawn(async move {
                let mut farewell = Farewell::default();
                let mut buf = vec![0; 16 * 1024];
                let mut push = |bytes: &[u8]| farewell.push(bytes);
                // The connection may stay open after it.
                while !stream.is_complete()
                    && matches!(stream.read(&mut buf, &mut push).await, Ok(true))
                {}
                farewell.end(stream.is_complete());
                farewell
            });
        }
    }
    for _ in 0..IDLE {
        let mut begun = TcpStream::connect(addr).await.expect("the hub listens");
        let request = b"POST /users/ann/events/text HTTP/1.1\r\nhost: localh";
        begun.write_all(request).await.expect("it is taken");
        half.push(begun);
        silent.push(TcpStream::connect(addr).await.expect("the hub listens"));
    }
    // More than the buffers between the hub and a client that does not read.
    let flood = "x".repeat(100_000);
    for user in 0..IDLE {
        for _ in 0..6 {
            send(addr, user, &flood).await;
        }
    }
    for user in 0..USERS {
        send(addr, user, LAST).await;
    }

    let pid = child.id().expect("it runs").to_string();
    let start = Instant::now();
    let kill = Command::new("kill").args(["-s", "TERM", &pid]).status();
    assert!(kill.await.expect("kill runs").success());
    let exit = timeout(Duration::from_secs(30), child.wait()).await;
    let took = start.elapsed();
    let status = exit.expect("it exits").expect("it can be waited for");
    assert_eq!(status.code(), Some(0));
    assert!(took <= DRAIN + MORE, "{took:?}");

    let mut told = 0;
    while let Some(farewell) = reading.join_next().await {
        let farewell = farewell.expect("no panic");
        assert_eq!(farewell.check(LAST), Ok(()));
        told += 1;
    }
    assert_eq!(told, USERS * EACH - IDLE);
    drop((stalled, half, silent));
}
