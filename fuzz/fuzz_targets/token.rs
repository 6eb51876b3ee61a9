//! A user's id is one word of a subject, and no two ids are the same one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidings_nats::fuzzing::{read_token, write_token};

/// The longest, in bytes.
const LONGEST: usize = 255;

fuzz_target!(|ids: (&str, &str)| {
    let (one, other) = ids;
    let token = write_token(one);
    assert_eq!(
        write_token(other) == token,
        one == other,
        "two ids have one token"
    );
    assert!(
        (1..=LONGEST).contains(&token.len()),
        "{} bytes",
        token.len()
    );
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte);
    assert!(token.bytes().all(is_legal), "{token:?}");
    match read_token(&token).expect("it was written so") {
        Ok(id) => assert_eq!(id, one),
        Err(digest) => {
            assert_eq!(digest, token);
            assert!(one.len() * 3 > LONGEST, "a short id became a digest");
        }
    }
    // There is one way to write an id, and nothing else is read as one.
    if let Some(Ok(id)) = read_token(one) {
        assert_eq!(write_token(&id), one);
    }
});
