//! Which protocol a client speaks.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, ReadBuf};

use crate::serve::rewind::Rewind;

/// How every HTTP/2 connection begins.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until it is clear whether this is HTTP/2. What was read can be read again.
pub(super) async fn is_http2<T: AsyncRead + Unpin>(io: &mut Rewind<T>) -> io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    let mut end = 0;
    let is_http2 = poll_fn(|cx| {
        while end < PREFACE.len() {
            let mut buf = ReadBuf::new(&mut first[end..]);
            ready!(Pin::new(&mut *io).poll_read(cx, &mut buf))?;
            let read = buf.filled().len();
            end += read;
            if read == 0 || !PREFACE.starts_with(&first[..end]) {
                return Poll::Ready(io::Result::Ok(false));
            }
        }
        Poll::Ready(Ok(true))
    })
    .await?;
    io.first = BytesMut::from(&first[..end]);
    Ok(is_http2)
}
