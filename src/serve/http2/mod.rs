//! HTTP/2 streams that cannot be held up by a client that withholds their window.
//!
//! HTTP/2 lets a client stop a single stream: it grants no window, and goes on with the others. What the stream wants to
//! send stays in the connection's buffers, its body is not polled any more, and nothing inside the stream can end it.
//! hyper polls each stream in a task that our [`executor`] starts, so the stream is ended there: dropping its future resets
//! it. Whether it is stuck is seen by the [bytes](chunk) it handed over: they are ours, and tell when they leave. Because
//! of that a [body](body) must not end before its bytes have left; a stream that has ended has no task that could be
//! dropped.
//!
//! A client can also hold up streams through others: unread bytes use up the window of the connection. The [IO](wire) parses the
//! [frames] that pass through it, which shows the [streams] that hold the window, heads that are not completed, and connections
//! without a stream.

mod body;
mod chunk;
mod executor;
mod frames;
mod service;
mod streams;
mod timely;
mod wire;

pub(super) use service::serve_either;
