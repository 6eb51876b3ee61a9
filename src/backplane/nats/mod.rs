//! A backplane over [NATS](https://nats.io), version 2.9 or newer.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use async_nats::ConnectOptions;
//! use tidings::backplane::nats::{Log, Nats, Settings};
//!
//! let options = ConnectOptions::with_credentials("...")?.name("chat, node 1");
//! let settings = Settings::new("chat").replayable(Log::new("CHAT"));
//! let backplane = Nats::connect("nats://127.0.0.1:4222", options, settings).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # TLS
//!
//! A connection takes TLS if its address begins with `tls://`, the options say so, or the server asks for it. TLS needs one of
//! rustls's crypto providers, and which is the application's choice: two of them among the features of one program make
//! rustls panic unless one is installed. In its `Cargo.toml`:
//!
//! ```toml
//! # The features `ring` or `aws-lc-rs`, or `fips` for the latter. The version is that of `cargo tree -p async-nats`.
//! async-nats = { version = "0.51", default-features = false, features = ["aws-lc-rs"] }
//! ```
//!
//! or a call of `CryptoProvider::install_default` before the first connection. Without either, [`Nats::connect`] returns
//! [`ConnectError::NoCryptoProvider`], below the panic that async-nats prints; in a program that aborts on panics it aborts,
//! and with `retry_on_initial_connect` the panic is in async-nats's task. Without TLS no provider is needed.
//!
//! # Subjects
//!
//! Each user has a subject, `<scope>.live.<buckets>.<bucket>.<token>`. The token is the user's id: ASCII letters, digits, `-`
//! and `_` as they are, every other byte of its UTF-8 as `=` and two hexadecimal digits; an id that would be longer than 255
//! characters so is `==` and its SHA-256. A node's server needs to let it subscribe to `<scope>.live.>` and its inbox, and
//! publish to the same and, with a log, `<scope>.log.>` and `$JS.API.>`. What it may not publish is not reported: the
//! server tells the client of it later, and async-nats logs that.
//!
//! # At most once
//!
//! Plain messages. `publish` returns when the server has handled all of them, which a message to the node itself shows that
//! comes back behind them. A node that was disconnected, or was too slow to read, says that messages may be lost. In a
//! cluster of NATS servers, messages can also be lost between two servers, and for a moment after a subscription the other
//! servers do not know of it; neither can be seen from here. Where that matters, keep a log.
//!
//! # Replayable
//!
//! Messages go to a stream of JetStream, which confirms each and sends it on to the nodes with its place in the log and that
//! of the same user's message before. A user is ready when the server that leads the stream knows of the subscription. The
//! epoch is made of the stream's name and the time of its creation, so that all nodes agree on it.
//!
//! When a stream is deleted while nodes are connected, they make a new one and say so within ten seconds, or at the next
//! message that does not fit.

mod adapter;
mod error;
mod feeds;
mod fence;
mod fetch;
mod interest;
mod link;
mod log;
mod settings;
mod subjects;
pub(crate) mod token;

pub use adapter::Nats;
pub use error::ConnectError;
pub use settings::{Interest, Log, Settings, Storage};
