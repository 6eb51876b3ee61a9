//! A socket for each request.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::{HeaderValue, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::error::{Source, SseError};
use super::http1::{Framing, Step, take_head, write_request};
use super::transport::{Body, Chunks, Transport};

/// What is read at once, at most.
const READ: usize = 8 * 1024;

pub(super) struct Tcp {
    pub(super) addr: SocketAddr,
    pub(super) receive_buffer: Option<u32>,
}

impl Tcp {
    async fn exchange(&self, mut request: Request<String>) -> io::Result<Response<Received>> {
        let socket = match self.addr {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(size) = self.receive_buffer {
            // Before the connection: it decides how much the client lets be sent at first.
            socket.set_recv_buffer_size(size)?;
        }
        let mut tcp = socket.connect(self.addr).await?;
        let host = HeaderValue::try_from(self.addr.to_string());
        let host = host.expect("an address has no control characters");
        request.headers_mut().entry(HOST).or_insert(host);
        tcp.write_all(&write_request(&request)).await?;
        let mut unread = BytesMut::new();
        loop {
            if let Some(head) = take_head(&mut unread)? {
                return Ok(head.map(|framing| Received {
                    tcp,
                    unread,
                    framing,
                }));
            }
            if read(&mut tcp, &mut unread).await? == 0 {
                return Err(closed("before the response"));
            }
        }
    }
}

#[async_trait]
impl Transport for Tcp {
    async fn send(&mut self, request: Request<String>) -> Result<Response<Body>, SseError> {
        let response = self.exchange(request).await;
        let response = response.map_err(|error| SseError::Broken(error.into()))?;
        Ok(response.map(|body| -> Body { Box::new(body) }))
    }

    fn has_sockets(&self) -> bool {
        true
    }
}

/// A response, of which so much has been read that is not used yet.
struct Received {
    tcp: TcpStream,
    unread: BytesMut,
    framing: Framing,
}

impl Received {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            match self.framing.step(&mut self.unread)? {
                Step::Data(bytes) => return Ok(Some(bytes)),
                Step::Done => return Ok(None),
                Step::More => {}
            }
            if read(&mut self.tcp, &mut self.unread).await? == 0 {
                return match self.framing.may_close() {
                    true => Ok(None),
                    false => Err(closed("inside the response")),
                };
            }
        }
    }
}

#[async_trait]
impl Chunks for Received {
    async fn chunk(&mut self) -> Option<Result<Bytes, Source>> {
        self.next().await.map_err(Source::from).transpose()
    }
}

/// Nothing is lost if the future is dropped.
async fn read(tcp: &mut TcpStream, unread: &mut BytesMut) -> io::Result<usize> {
    unread.reserve(READ);
    tcp.read_buf(unread).await
}

fn closed(when: &str) -> io::Error {
    let what = format!("the connection was closed {when}");
    io::Error::new(ErrorKind::UnexpectedEof, what)
}
