//! The errors of this crate.

use std::error::Error;
use std::fmt;

use redis::RedisError;
use tidings::backplane::BackplaneError;

/// A node could not be connected.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// A setting has a value that it cannot have.
    Settings(&'static str),
    /// The server cannot be reached, refuses the credentials, or lacks a permission that every node needs.
    Connect(RedisError),
    /// The server did not answer in time.
    NotInTime,
    /// The server is a replica. It takes no messages for a log, and what it publishes does not reach its primary.
    Replica,
    /// The server would drop keys of the log when its memory is full: `maxmemory-policy` must be `noeviction`.
    Evicts(String),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(what) => write!(f, "the settings are invalid: {what}"),
            Self::Connect(_) => f.write_str("Redis cannot be used"),
            Self::NotInTime => f.write_str("Redis did not answer in time"),
            Self::Replica => f.write_str("this Redis is a replica"),
            Self::Evicts(policy) => write!(
                f,
                "this Redis drops keys when it is full: maxmemory-policy is {policy}, and a log needs noeviction"
            ),
        }
    }
}

impl Error for ConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Connect(error) => Some(error),
            _ => None,
        }
    }
}

/// What an error of the server means for what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// This node lacks the permission.
    Denied,
    /// The server does not take it now: it is full, or cannot write its files.
    Later,
    /// The server does not lead, or is not ready: another connection may lead to one that does.
    Elsewhere,
    /// The connection is of no use any more, or the answer did not come.
    Gone,
}

/// By its words, since scripts wrap errors of commands in their own.
pub(super) fn fault(error: &RedisError) -> Fault {
    // Redis and Valkey differ in capitals.
    let text = error.to_string().to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if error.is_io_error() || error.is_timeout() || error.is_unrecoverable_error() {
        Fault::Gone
    } else if has(&[
        "noperm",
        "acl failure",
        "no permissions",
        "the user executing the script can't",
    ]) {
        Fault::Denied
    } else if has(&[
        "readonly",
        "read only",
        "loading",
        "masterdown",
        "noscript",
        "noauth",
        "matching script",
    ]) {
        Fault::Elsewhere
    } else {
        Fault::Later
    }
}

pub(super) fn failed(error: RedisError) -> BackplaneError {
    BackplaneError::other(error)
}

#[cfg(test)]
mod tests {
    use redis::{ErrorKind, ServerErrorKind};

    use super::*;

    #[test]
    fn what_a_server_refuses_is_recognized_in_the_words_of_redis_and_valkey() {
        for (said, expected) in [
            (
                "this user has no permissions to access one of the channels used as arguments",
                Fault::Denied,
            ),
            ("No permissions to access a channel", Fault::Denied),
            (
                "ACL failure in script: No permissions to access a channel",
                Fault::Denied,
            ),
            (
                "The user executing the script can't publish to the channel mentioned in the command",
                Fault::Denied,
            ),
            (
                "You can't write against a read only replica.",
                Fault::Elsewhere,
            ),
            ("Redis is loading the dataset in memory", Fault::Elsewhere),
            (
                "command not allowed when used memory > 'maxmemory'.",
                Fault::Later,
            ),
        ] {
            let kind = ErrorKind::Server(ServerErrorKind::ResponseError);
            let error = RedisError::from((kind, "it says", said.to_owned()));
            assert_eq!(fault(&error), expected, "{said}");
        }
    }
}
