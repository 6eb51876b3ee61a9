//! The errors of a client.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::Response;

pub(super) type Source = Box<dyn Error + Send + Sync>;

/// Why a client did not get what it waited for.
#[derive(Debug)]
#[non_exhaustive]
pub enum SseError {
    /// The request could not be written: for example, not every id that a stream sends is valid in a header.
    Request(http::Error),
    /// The response is not an event stream: its status is not 200, or its content type not `text/event-stream`. As much
    /// of the body as came within the bound, at most 64 KiB, as text.
    Refused(Box<Response<String>>),
    /// It did not come in time.
    TimedOut {
        /// What was waited for, and what came instead.
        awaited: String,
        /// For so long.
        limit: Duration,
    },
    /// The stream ended cleanly before that.
    Ended {
        /// What was waited for, and what came instead.
        awaited: String,
    },
    /// The connection, the service or its body failed.
    Broken(Source),
}

impl fmt::Display for SseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(_) => f.write_str("the request could not be written"),
            Self::Refused(response) => {
                let status = response.status();
                let body = response.body();
                match response.headers().get(http::header::CONTENT_TYPE) {
                    Some(what) => write!(f, "no event stream, but {status}, {what:?}: {body:?}"),
                    None => write!(
                        f,
                        "no event stream, but {status}, no content type: {body:?}"
                    ),
                }
            }
            Self::TimedOut { awaited, limit } => write!(f, "waited {limit:?} for {awaited}"),
            Self::Ended { awaited } => {
                write!(f, "the stream ended while waiting for {awaited}")
            }
            Self::Broken(source) => write!(f, "the stream broke: {source}"),
        }
    }
}

impl Error for SseError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Request(source) => Some(source),
            Self::Broken(source) => Some(&**source),
            Self::Refused(_) | Self::TimedOut { .. } | Self::Ended { .. } => None,
        }
    }
}
