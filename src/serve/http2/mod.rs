//! Ends HTTP/2 streams whose client withholds their window.
//!
//! HTTP/2 lets a client stop a single stream: the client grants it no window, and goes on with the others. What the stream
//! has to send stays in the connection's buffers, its body is not polled any more, and nothing inside the stream can end it.
//! hyper polls each stream in a task that our [`executor`] starts, so the executor ends the stream: dropping its future
//! resets it. A stream is stuck if the [bytes](chunk) it handed over do not leave; they are of a type of ours, which notes
//! when they do. For this, a [body](body) must not end before its bytes have left: a stream that has ended has no task that
//! could be dropped.
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
