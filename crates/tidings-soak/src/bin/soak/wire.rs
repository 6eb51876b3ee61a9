//! Connections as clients have them: streams over HTTP/1 and over HTTP/2, read as slowly as it pleases.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{BufMut, Bytes};
use h2::RecvStream;
use h2::client::SendRequest;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::http1::Chunks;

/// What can be waited for takes no longer, also on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The window of an HTTP/2 stream.
const WINDOW: u32 = 1 << 16;

/// A request for a stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    /// With the query.
    pub(crate) path: String,
    pub(crate) last_event_id: Option<Vec<u8>>,
    /// A receive buffer so small that a client that stops reading is noticed.
    pub(crate) is_narrow: bool,
}

/// The head of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// What the server says of where the stream begins; `None` if it is no stream of a subscription.
    pub(crate) begins: Option<(u64, u64)>,
}

/// A stream that is open.
pub(crate) enum Wire {
    Http1 {
        tcp: TcpStream,
        chunks: Chunks,
        unread: Vec<u8>,
    },
    Http2 {
        body: RecvStream,
        connection: Connection,
        /// Another stream of the connection, whose window is shut because nobody reads it.
        _held: Option<RecvStream>,
    },
}

pub(crate) async fn connect(addr: SocketAddr, is_narrow: bool) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if is_narrow {
        socket.set_recv_buffer_size(4096)?;
    }
    timeout(PATIENCE, socket.connect(addr)).await?
}

/// Closes by a reset, as the system of a process that crashed does.
pub(crate) fn reset(tcp: TcpStream) {
    let _ = SockRef::from(&tcp).set_linger(Some(Duration::ZERO));
}

impl Wire {
    pub(crate) async fn http1(addr: SocketAddr, request: &Request) -> io::Result<(Head, Self)> {
        let mut tcp = connect(addr, request.is_narrow).await?;
        let mut text = format!("GET {} HTTP/1.1\r\nhost: test\r\n", request.path).into_bytes();
        if let Some(id) = &request.last_event_id {
            text.extend_from_slice(b"last-event-id: ");
            text.extend_from_slice(id);
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"\r\n");
        tcp.write_all(&text).await?;
        let mut unread = Vec::new();
        let head = loop {
            if timeout(PATIENCE, tcp.read_buf(&mut unread)).await?? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if let Some(end) = unread.windows(4).position(|w| w == b"\r\n\r\n") {
                break unread.drain(..end + 4).collect::<Vec<_>>();
            }
        };
        let head = String::from_utf8_lossy(&head);
        let number = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name))?;
            line.strip_prefix(": ")?.parse::<u64>().ok()
        };
        let status = head.get(9..12).and_then(|status| status.parse().ok());
        let head = Head {
            status: status.ok_or(ErrorKind::InvalidData)?,
            begins: number("x-from").zip(number("x-until")),
        };
        let wire = Self::Http1 {
            tcp,
            chunks: Chunks::default(),
            unread,
        };
        Ok((head, wire))
    }

    /// What comes next of the body; `None` at an end as the server ends a response. An error is an end that is none.
    /// May be given up at any time.
    pub(crate) async fn read(&mut self, most: usize) -> io::Result<Option<Bytes>> {
        match self {
            Self::Http1 {
                tcp,
                chunks,
                unread,
            } => loop {
                let mut body = Vec::new();
                chunks.push(unread, |bytes| body.extend_from_slice(bytes));
                unread.clear();
                if *chunks == Chunks::Broken {
                    return Err(io::Error::new(
                        ErrorKind::InvalidData,
                        "chunks that are none",
                    ));
                }
                if !body.is_empty() {
                    return Ok(Some(body.into()));
                }
                if *chunks == Chunks::Done {
                    return Ok(None);
                }
                unread.reserve(most);
                if tcp.read_buf(&mut (&mut *unread).limit(most)).await? == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            },
            Self::Http2 { body, .. } => match body.data().await {
                None => Ok(None),
                Some(Err(error)) => Err(io::Error::other(error)),
                Some(Ok(bytes)) => {
                    // Fails on a stream that has been reset, which the next read tells.
                    let _ = body.flow_control().release_capacity(bytes.len());
                    Ok(Some(bytes))
                }
            },
        }
    }

    /// Leaves without a word.
    pub(crate) fn reset(self) {
        match self {
            Self::Http1 { tcp, .. } => reset(tcp),
            Self::Http2 { connection, .. } => connection.task.abort(),
        }
    }
}

/// An HTTP/2 connection. It closes when it is dropped.
pub(crate) struct Connection {
    requests: SendRequest<Bytes>,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    /// Its own window does not close before those of its streams.
    pub(crate) async fn open(addr: SocketAddr) -> io::Result<Self> {
        let tcp = connect(addr, false).await?;
        let handshake = h2::client::Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(1 << 24)
            .handshake(tcp);
        let (requests, connection) = timeout(PATIENCE, handshake)
            .await?
            .map_err(io::Error::other)?;
        let task = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { requests, task })
    }

    /// Opens a stream. Unless it is read, its window is soon shut.
    pub(crate) async fn stream(&mut self, request: &Request) -> io::Result<(Head, RecvStream)> {
        let uri = format!("http://test{}", request.path);
        let mut head = http::Request::get(uri);
        if let Some(id) = &request.last_event_id {
            head = head.header("last-event-id", &id[..]);
        }
        let head = head.body(()).map_err(io::Error::other)?;
        poll_fn(|cx| self.requests.poll_ready(cx))
            .await
            .map_err(io::Error::other)?;
        let sent = self.requests.send_request(head, true);
        let (response, _) = sent.map_err(io::Error::other)?;
        let response = timeout(PATIENCE, response)
            .await?
            .map_err(io::Error::other)?;
        let number = |name: &str| response.headers().get(name)?.to_str().ok()?.parse().ok();
        let head = Head {
            status: response.status().as_u16(),
            begins: number("x-from").zip(number("x-until")),
        };
        Ok((head, response.into_body()))
    }

    /// Makes one stream the one that the connection goes with.
    pub(crate) fn with(self, body: RecvStream, held: Option<RecvStream>) -> Wire {
        Wire::Http2 {
            body,
            connection: self,
            _held: held,
        }
    }
}
