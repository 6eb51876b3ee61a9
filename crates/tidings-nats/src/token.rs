//! A user's id as one token of a subject.
//!
//! ASCII letters, digits, `-` and `_` stand for themselves; every other byte of the id's UTF-8 is `=` and two hexadecimal
//! digits in upper case; the empty id is `=`. So `ann@example.org` is `ann=40example=2Eorg`. There is one way to write each
//! id, and no other text is read as one.
//!
//! A server takes no subject of more than 4 KB (`max_control_line`), and closes the connection that brings one. What would be
//! longer than [`LONGEST`] is therefore `==` and the SHA-256 of the id in hexadecimal digits: still a token of its own for
//! each id, but one that only somebody who knows the id can recognise.

use std::borrow::Cow;
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// The most characters that an id is written with. Longer ones become digests.
pub(super) const LONGEST: usize = 255;

const DIGEST: &str = "==";

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// An id.
    Id(Cow<'a, str>),
    /// The digest of one, as the whole token.
    Digest(&'a str),
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// Whether the token of this id is a digest.
pub(super) fn is_long(id: &str) -> bool {
    // Most ids are short whatever is in them.
    id.len() * 3 > LONGEST && written_len(id) > LONGEST
}

fn written_len(id: &str) -> usize {
    id.bytes()
        .map(|byte| if is_plain(byte) { 1 } else { 3 })
        .sum()
}

/// The token of an id.
pub(super) fn of(id: &str) -> String {
    let mut token = String::new();
    encode(id, &mut token);
    token
}

/// Writes an id behind what is there.
pub(crate) fn encode(id: &str, out: &mut String) {
    if is_long(id) {
        out.push_str(DIGEST);
        for byte in Sha256::digest(id) {
            push_hex(byte, out);
        }
    } else if id.is_empty() {
        out.push('=');
    } else {
        for byte in id.bytes() {
            if is_plain(byte) {
                out.push(byte.into());
            } else {
                out.push('=');
                push_hex(byte, out);
            }
        }
    }
}

fn push_hex(byte: u8, out: &mut String) {
    write!(out, "{byte:02X}").expect("a String takes everything");
}

/// Reads what [`encode`] wrote, and nothing else.
pub(crate) fn decode(token: &str) -> Option<Token<'_>> {
    if let Some(digits) = token.strip_prefix(DIGEST) {
        let is_digest = digits.len() == 64 && digits.bytes().all(|digit| hex(digit).is_some());
        return is_digest.then_some(Token::Digest(token));
    }
    if token == "=" {
        return Some(Token::Id(Cow::Borrowed("")));
    }
    if token.is_empty() || token.len() > LONGEST {
        return None;
    }
    if token.bytes().all(is_plain) {
        return Some(Token::Id(Cow::Borrowed(token)));
    }
    let mut id = Vec::with_capacity(token.len());
    let mut bytes = token.bytes();
    while let Some(byte) = bytes.next() {
        if is_plain(byte) {
            id.push(byte);
        } else if byte == b'=' {
            let byte = hex(bytes.next()?)? << 4 | hex(bytes.next()?)?;
            if is_plain(byte) {
                return None;
            }
            id.push(byte);
        } else {
            return None;
        }
    }
    String::from_utf8(id)
        .ok()
        .map(|id| Token::Id(Cow::Owned(id)))
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::of as token;
    use super::*;

    fn ids() -> impl Strategy<Value = String> {
        let any = proptest::collection::vec(any::<char>(), 0..120)
            .prop_map(|chars| chars.into_iter().collect());
        prop_oneof!["[a-zA-Z0-9_-]{0,300}", "[=.*>a-f0-9 \0]{0,120}", any]
    }

    proptest! {
        #[test]
        fn an_id_comes_back(id in ids()) {
            let token = token(&id);
            match decode(&token) {
                Some(Token::Id(back)) => prop_assert_eq!(&*back, &*id),
                Some(Token::Digest(digest)) => {
                    prop_assert!(is_long(&id));
                    prop_assert_eq!(digest, &*token);
                }
                None => prop_assert!(false, "{:?} is not read", token),
            }
        }

        #[test]
        fn a_token_is_safe_in_a_subject(id in ids()) {
            let token = token(&id);
            prop_assert!(!token.is_empty() && token.len() <= LONGEST);
            let is_safe = |byte: u8| is_plain(byte) || byte == b'=';
            prop_assert!(token.bytes().all(is_safe), "{:?}", token);
        }

        #[test]
        fn two_ids_have_two_tokens(one in ids(), other in ids()) {
            prop_assert_eq!(one == other, token(&one) == token(&other));
        }

        #[test]
        fn what_is_read_is_written_so(text in "[=0-9A-Fa-f_é.]{0,12}") {
            if let Some(Token::Id(id)) = decode(&text) {
                prop_assert_eq!(token(&id), text);
            }
        }
    }

    #[test]
    fn this_is_what_tokens_look_like() {
        let long = "x".repeat(4096);
        for (id, expected) in [
            ("ann", "ann"),
            ("", "="),
            ("ann@example.org", "ann=40example=2Eorg"),
            ("*", "=2A"),
            (">", "=3E"),
            ("=", "=3D"),
            ("a b\0", "a=20b=00"),
            ("ü", "=C3=BC"),
            (
                &long,
                "==A2E659DACB4691E887AC0139F8893D04764EE197D70FB73D3190D56113D18E3E",
            ),
        ] {
            assert_eq!(token(id), expected, "{id:?}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in [
            "", "a.b", "=2", "=2a", "=41", "=C3", "a=", "==", "==00", "=GG", "ü", "a b", "*",
        ] {
            assert_eq!(decode(text), None, "{text:?}");
        }
        assert_eq!(decode(&"a".repeat(LONGEST + 1)), None);
    }

    #[test]
    fn the_longest_id_that_is_not_a_digest() {
        let plain = "a".repeat(LONGEST);
        assert_eq!(token(&plain), plain);
        assert!(token(&"a".repeat(LONGEST + 1)).starts_with(DIGEST));
        assert_eq!(token(&".".repeat(85)).len(), LONGEST);
        assert!(token(&".".repeat(86)).starts_with(DIGEST));
    }
}
