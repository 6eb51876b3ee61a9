//! A client of HTTP/2 whose streams open their windows when they are told to.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{Builder, Connection, SendRequest};
use tokio::net::TcpStream;

/// A connection whose streams each begin with this window, while its own does not close. Nothing happens on it unless it is
/// polled.
pub(crate) async fn connect(
    addr: SocketAddr,
    window: u32,
) -> io::Result<(SendRequest<Bytes>, Connection<TcpStream>)> {
    let tcp = TcpStream::connect(addr).await?;
    Builder::new()
        .initial_window_size(window)
        .initial_connection_window_size((1 << 31) - 1)
        .handshake(tcp)
        .await
        .map_err(io::Error::other)
}

/// The body of a successful response.
pub(crate) async fn open(requests: &mut SendRequest<Bytes>, path: &str) -> io::Result<RecvStream> {
    let uri = format!("http://test{path}");
    let request = http::Request::get(uri).body(()).expect("a request");
    let (response, _) = requests
        .send_request(request, true)
        .map_err(io::Error::other)?;
    let response = response.await.map_err(io::Error::other)?;
    if response.status() != http::StatusCode::OK {
        return Err(io::Error::other(format!("{path}: {}", response.status())));
    }
    Ok(response.into_body())
}

/// The next bytes, for which the window opens again. `None` at the end.
pub(crate) async fn read(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let bytes = match body.data().await? {
        Ok(bytes) => bytes,
        Err(error) => return Some(Err(error)),
    };
    // Fails on a stream that has been reset, which the next read tells.
    let _ = body.flow_control().release_capacity(bytes.len());
    Some(Ok(bytes))
}
