//! Why a node could not join.

use std::error::Error;
use std::fmt;

/// A node could not be connected.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The settings are invalid, and why.
    Settings(&'static str),
    /// The servers' addresses are not URLs with commas between them.
    Servers(std::io::Error),
    /// Another node of the same scope has another level or number of buckets.
    Disagreement,
    /// No server could be reached in the [time to wait for one](super::Settings::wait_for_server).
    NotInTime,
    /// The server cannot be reached, or refused the client.
    Connect(async_nats::ConnectError),
    /// The connection needs TLS, but rustls has no crypto provider, or two without a choice between them: see
    /// [TLS](crate#tls).
    NoCryptoProvider,
    /// A stream of that name exists, but is not the log that the settings describe; and what is different.
    Contradiction(&'static str),
    /// The log could not be created or inspected.
    Log(Box<dyn Error + Send + Sync>),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(what) => write!(f, "the settings are not valid: {what}"),
            Self::Servers(_) => f.write_str("the addresses of the servers are not valid"),
            Self::Disagreement => f.write_str(
                "another node of this scope has another level or number of buckets; give it another scope, or end it first",
            ),
            Self::NotInTime => f.write_str("no NATS server could be reached in time"),
            Self::Connect(_) => f.write_str("there is no connection to NATS"),
            Self::NoCryptoProvider => f.write_str(
                "TLS needs a crypto provider: enable the feature `ring` or `aws-lc-rs` of async-nats, or install one",
            ),
            Self::Contradiction(what) => {
                write!(f, "the stream does not match the settings: {what}")
            }
            Self::Log(_) => f.write_str("JetStream did not provide the log"),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Connect(error) => Some(error),
            Self::Log(error) => Some(error.as_ref()),
            Self::Servers(error) => Some(error),
            Self::Settings(_)
            | Self::NotInTime
            | Self::NoCryptoProvider
            | Self::Contradiction(_)
            | Self::Disagreement => None,
        }
    }
}
