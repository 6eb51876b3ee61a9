//! What the fuzz target `token` reaches of the inside (`fuzz/`). Not part of the API, and not there unless it is built.
#![allow(missing_docs)]

use crate::token::{self, Token};

/// A user's id as one token of a subject.
pub fn write_token(id: &str) -> String {
    token::of(id)
}

/// The id that a token stands for, or the token itself if it is a digest; `None` if it is no token.
pub fn read_token(token: &str) -> Option<Result<String, String>> {
    match token::decode(token)? {
        Token::Id(id) => Some(Ok(id.into_owned())),
        Token::Digest(digest) => Some(Err(digest.to_owned())),
    }
}
