//! A client of HTTP/1 that reads as much of a stream as it is told to.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// A response that has begun.
pub(crate) struct Stream {
    pub(crate) tcp: TcpStream,
    chunks: Chunks,
    /// What came with the head.
    unread: Vec<u8>,
}

impl Stream {
    /// Asks for a path, on a connection of its own, and reads the head of the response.
    pub(crate) async fn open(addr: SocketAddr, path: &str) -> io::Result<Self> {
        Self::open_on(TcpSocket::new_v4()?, addr, path).await
    }

    /// The same on a socket that was prepared.
    pub(crate) async fn open_on(
        socket: TcpSocket,
        addr: SocketAddr,
        path: &str,
    ) -> io::Result<Self> {
        let mut tcp = socket.connect(addr).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        tcp.write_all(request.as_bytes()).await?;
        let mut unread = Vec::new();
        let head = loop {
            if tcp.read_buf(&mut unread).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if let Some(end) = unread.windows(4).position(|w| w == b"\r\n\r\n") {
                break unread.drain(..end + 4).collect::<Vec<_>>();
            }
        };
        if !head.starts_with(b"HTTP/1.1 200") {
            let head = String::from_utf8_lossy(&head).into_owned();
            return Err(io::Error::other(head));
        }
        Ok(Self {
            tcp,
            chunks: Chunks::default(),
            unread,
        })
    }

    /// Waits for bytes, and passes on those of the body. `false` when the connection has ended.
    pub(crate) async fn read(
        &mut self,
        buf: &mut [u8],
        mut body: impl FnMut(&[u8]),
    ) -> io::Result<bool> {
        if !self.unread.is_empty() {
            self.chunks.push(&std::mem::take(&mut self.unread), body);
            return Ok(true);
        }
        let read = self.tcp.read(buf).await?;
        self.chunks.push(&buf[..read], &mut body);
        Ok(read > 0)
    }

    /// Whether the body has ended as the server ends it, and not by a break.
    pub(crate) fn is_complete(&self) -> bool {
        self.chunks == Chunks::Done
    }
}

/// Takes the chunks of a body apart (RFC 9112, section 7.1), without extensions and trailers, of which there are none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// In the line that says how long the chunk is, so far so long.
    Size(usize),
    /// So much of the chunk is left, the line break after it included.
    Data(usize),
    /// In the line break after the last chunk, with so much left of it.
    End(usize),
    Done,
    Broken,
}

impl Default for Chunks {
    fn default() -> Self {
        Self::Size(0)
    }
}

impl Chunks {
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut body: impl FnMut(&[u8])) {
        while let Some((&byte, rest)) = bytes.split_first() {
            match *self {
                Self::Size(size) => {
                    bytes = rest;
                    *self = match (byte, char::from(byte).to_digit(16)) {
                        (_, Some(digit)) => Self::Size(size * 16 + digit as usize),
                        (b'\r', _) => Self::Size(size),
                        (b'\n', _) if size == 0 => Self::End(2),
                        (b'\n', _) => Self::Data(size + 2),
                        _ => Self::Broken,
                    };
                }
                Self::Data(left) => {
                    let (now, later) = bytes.split_at(left.min(bytes.len()));
                    let data = now.len().min(left.saturating_sub(2));
                    body(&now[..data]);
                    bytes = later;
                    *self = match left - now.len() {
                        0 => Self::Size(0),
                        left => Self::Data(left),
                    };
                }
                Self::End(left) => {
                    bytes = rest;
                    *self = if left == 1 { Self::Done } else { Self::End(1) };
                }
                Self::Done | Self::Broken => {
                    *self = Self::Broken;
                    return;
                }
            }
        }
    }
}
