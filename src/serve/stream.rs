//! An event stream on its socket.

use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::thread;

use bytes::buf::Chain;
use bytes::{Buf, Bytes};
use http_body::Body;
use tokio::io::AsyncWrite;

use super::app::{AppBody, Io};
use super::handover::Handed;
use super::pass::Pass;
use super::rewind::Rewind;
use crate::channel::Plain;
use crate::frame::Frame;
use crate::sse::{JOINED, finish_sample, is_plain};
use crate::subscription::StreamHandle;
use crate::sync::keep_waker;

/// One chunk on the wire: its length, its bytes, a line break; after the last one also the end.
type Wire<D> = Chain<Chain<Length, D>, &'static [u8]>;

/// Sends a body in chunks (RFC 9112, section 7.1), each after the previous one is written, and watches for the client to
/// close. Its output is whether the connection may serve another request.
///
/// If the body fails, it is cut off, so that the client sees that it is incomplete.
pub(super) struct Stream<I, B: Body> {
    io: Rewind<I>,
    body: Pin<Box<B>>,
    is_reusable: bool,
    state: State<B::Data>,
    attended: Option<Attended>,
}

/// What an attendant needs.
struct Attended {
    handle: StreamHandle,
    /// The stream's own task.
    task: Option<Waker>,
}

enum State<D> {
    /// The body is asked for the next chunk.
    Asking,
    Writing {
        chunk: Wire<D>,
        is_last: bool,
    },
    Ending(&'static [u8]),
    /// The rest of a chunk that an attendant has begun to write.
    Rest(Bytes),
    Failed(io::Error),
    Flushing,
    Closing,
}

// Nothing in it is pinned in place: the body has a box.
impl<I: Unpin, B: Body> Unpin for Stream<I, B> {}

impl<I, B: Body> Stream<I, B> {
    pub(super) fn new(io: Rewind<I>, handed: Handed<B>) -> Self {
        Self {
            io,
            body: Box::pin(handed.body),
            is_reusable: handed.is_reusable,
            state: State::Asking,
            attended: None,
        }
    }

    /// Lets an attendant write events as well.
    pub(super) fn attended(mut self, handle: StreamHandle) -> Self {
        self.attended = Some(Attended { handle, task: None });
        self
    }

    /// The upper bound of its body's size hint.
    pub(super) fn most(&self) -> Option<u64> {
        self.body.size_hint().upper()
    }

    pub(super) fn close_at_end(&mut self) {
        self.is_reusable = false;
    }

    /// The connection, for the next request.
    pub(super) fn into_io(self) -> Rewind<I> {
        self.io
    }
}

impl<I: Io, B: AppBody> Stream<I, B> {
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.state {
                State::Asking => {
                    let frame = match self.body.as_mut().poll_frame(cx) {
                        Poll::Ready(frame) => frame.transpose().map_err(io::Error::other)?,
                        // Bytes that were written may still wait in the IO, if that is TLS.
                        Poll::Pending => {
                            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
                            return Poll::Pending;
                        }
                    };
                    // Trailers are the end. They are not sent: a response that announces some is left to hyper.
                    let data = frame.and_then(|frame| frame.into_data().ok());
                    // Not every body may be polled again after it has said that it ended.
                    let is_last = data.is_none() || self.body.is_end_stream();
                    self.state = match data {
                        Some(data) if data.has_remaining() => {
                            if let Some(attended) = &self.attended {
                                let chunk = data.chunk();
                                let is_whole = chunk.len() == data.remaining();
                                let chunk = is_whole.then_some(chunk);
                                attended.handle.exchange().arrived(chunk);
                            }
                            let chunk = in_chunks(data, is_last);
                            State::Writing { chunk, is_last }
                        }
                        // An empty chunk would end the body.
                        _ if is_last => State::Ending(LAST),
                        _ => State::Asking,
                    };
                }
                State::Writing { chunk, is_last } => {
                    ready!(poll_write_all(&mut self.io, chunk, cx))?;
                    self.state = match is_last {
                        true => State::Flushing,
                        false => State::Asking,
                    };
                }
                State::Ending(end) => {
                    ready!(poll_write_all(&mut self.io, end, cx))?;
                    self.state = State::Flushing;
                }
                State::Rest(rest) => {
                    ready!(poll_write_all(&mut self.io, rest, cx))?;
                    self.state = State::Asking;
                }
                State::Failed(error) => {
                    return Poll::Ready(Err(mem::replace(error, ErrorKind::BrokenPipe.into())));
                }
                State::Flushing => {
                    ready!(Pin::new(&mut self.io).poll_flush(cx))?;
                    if self.is_reusable {
                        return Poll::Ready(Ok(()));
                    }
                    self.state = State::Closing;
                }
                State::Closing => return Pin::new(&mut self.io).poll_shutdown(cx),
            }
        }
    }
}

/// For an attendant.
impl<I: Io, B: AppBody> Stream<I, B> {
    /// Writes the next events, a chunk at most. `true` if there may be more, for the next pass.
    ///
    /// Its own task waits for the socket, and polls the body for what is not plain.
    pub(super) fn attend(&mut self, pass: &mut Pass) -> bool {
        // Otherwise its task waits for the socket and polls the body then, or has yet to poll it for the first time.
        let (State::Asking, Some(attended)) = (&self.state, &self.attended) else {
            return false;
        };
        let Some(task) = &attended.task else {
            return false;
        };
        let handle = &attended.handle;
        pass.begin();
        let now = pass.now();
        if !handle.exchange().is_plain() || handle.expires().is_some_and(|at| at <= now) {
            handle.wake();
            return false;
        }
        // If anything panics from here on, events that were read are not written, or a chunk is written in part: the stream
        // fails, and its task is woken to end it.
        self.state = State::Failed(ErrorKind::BrokenPipe.into());
        let _woken = WokenByPanic(task);
        // A larger event is not copied into a chunk: the stream's own task writes the bytes that all users share.
        let is_plain = |frame: &Arc<Frame>| frame.as_bytes().len() < JOINED && is_plain(frame);
        let has_more = loop {
            match handle.next_plain(is_plain) {
                Plain::Event(frame, number) => {
                    finish_sample(&frame, || handle.age());
                    if !pass.push(frame, number) {
                        // Other members come first.
                        break true;
                    }
                    if pass.is_enough() {
                        break false;
                    }
                }
                Plain::Nothing => {
                    pass.settle();
                    break false;
                }
                Plain::Other => {
                    handle.wake();
                    break false;
                }
            }
        };
        if let Some(mut chunk) = pass.chunk() {
            handle.exchange().wrote(now, pass.position());
            let mut cx = Context::from_waker(task);
            let written = Pin::new(&mut self.io).poll_write(&mut cx, &chunk);
            self.state = match written {
                Poll::Ready(Ok(0)) => State::Failed(ErrorKind::WriteZero.into()),
                Poll::Ready(Err(error)) => State::Failed(error),
                Poll::Ready(Ok(count)) if count == chunk.len() => {
                    // Bytes that were written may still wait in the IO, if that is TLS.
                    match Pin::new(&mut self.io).poll_flush(&mut cx) {
                        Poll::Ready(Ok(())) => State::Asking,
                        Poll::Ready(Err(error)) => State::Failed(error),
                        Poll::Pending => {
                            task.wake_by_ref();
                            State::Asking
                        }
                    }
                }
                Poll::Ready(Ok(count)) => {
                    chunk.advance(count);
                    State::Rest(chunk)
                }
                Poll::Pending => State::Rest(chunk),
            };
            if !matches!(self.state, State::Asking) {
                task.wake_by_ref();
                return false;
            }
        } else {
            self.state = State::Asking;
        }
        has_more
    }
}

/// Wakes a task if it is dropped by a panic.
struct WokenByPanic<'a>(&'a Waker);

impl Drop for WokenByPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.wake_by_ref();
        }
    }
}

impl<I: Io, B: AppBody> Future for Stream<I, B> {
    type Output = io::Result<bool>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some(attended) = &mut this.attended {
            keep_waker(&mut attended.task, cx);
        }
        if this.poll_write(cx)?.is_ready() {
            return Poll::Ready(Ok(this.is_reusable));
        }
        let ahead = ready!(this.io.poll_ahead(cx))?;
        Poll::Ready(ahead.into_result().map(|()| false))
    }
}

/// The end of a body.
const LAST: &[u8] = b"0\r\n\r\n";

fn in_chunks<D: Buf>(data: D, is_last: bool) -> Wire<D> {
    let end: &[u8] = match is_last {
        true => b"\r\n0\r\n\r\n",
        false => b"\r\n",
    };
    Length::of(data.remaining()).chain(data).chain(end)
}

fn poll_write_all<I: AsyncWrite + Unpin>(
    io: &mut I,
    bytes: &mut impl Buf,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while bytes.has_remaining() {
        let mut slices = [IoSlice::new(&[]); 8];
        let count = bytes.chunks_vectored(&mut slices);
        let written = ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices[..count]))?;
        if written == 0 {
            return Poll::Ready(Err(ErrorKind::WriteZero.into()));
        }
        bytes.advance(written);
    }
    Poll::Ready(Ok(()))
}

/// The line in front of a chunk: how many bytes it has, in hexadecimal digits, as hyper writes them.
pub(super) struct Length {
    line: [u8; Self::ROOM],
    start: u8,
}

impl Length {
    /// Sixteen digits, CR and LF.
    const ROOM: usize = 18;

    pub(super) fn of(mut len: usize) -> Self {
        let mut line = [0; Self::ROOM];
        line[Self::ROOM - 2..].copy_from_slice(b"\r\n");
        let mut start = Self::ROOM - 2;
        loop {
            start -= 1;
            line[start] = b"0123456789ABCDEF"[len % 16];
            len /= 16;
            if len == 0 {
                break;
            }
        }
        Self {
            line,
            start: start as u8,
        }
    }

    pub(super) fn line(&self) -> &[u8] {
        &self.line[usize::from(self.start)..]
    }
}

impl Buf for Length {
    fn remaining(&self) -> usize {
        self.chunk().len()
    }

    fn chunk(&self) -> &[u8] {
        self.line()
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining(), "there is no more");
        self.start += count as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_have_the_form_of_the_standard() {
        let wire = |len, is_last| {
            let data = vec![b'x'; len];
            let mut chunk = in_chunks(&data[..], is_last);
            let bytes = chunk.copy_to_bytes(chunk.remaining());
            String::from_utf8(bytes.to_vec()).unwrap()
        };
        assert_eq!(wire(1, false), "1\r\nx\r\n");
        assert_eq!(wire(10, true), "A\r\nxxxxxxxxxx\r\n0\r\n\r\n");
        for len in [15, 16, 17, 255, 256, 4095, 4096, 70_000] {
            assert_eq!(
                wire(len, false),
                format!("{len:X}\r\n{}\r\n", "x".repeat(len))
            );
        }
        assert_eq!(
            Length::of(usize::MAX).chunk(),
            format!("{:X}\r\n", usize::MAX).as_bytes()
        );
    }
}
