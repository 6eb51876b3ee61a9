//! The test kit's decoder reads any bytes as the standard has it, and wherever they are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidings_testkit::Item;
use tidings_fuzz::decoders::{Dispatched, by_standard, cut, dispatched, items};

fuzz_target!(|bytes: &[u8]| {
    let whole = items(&[bytes]);
    assert_eq!(items(&cut(bytes, &[0])), whole, "byte by byte");
    // Lengths that the input chooses, so that it stays a stream that can be read.
    assert_eq!(items(&cut(bytes, bytes)), whole, "in pieces");

    let text: usize = whole
        .iter()
        .map(|item| match item {
            Item::Message(message) => message.data.len(),
            Item::Comment(comment) => comment.len(),
            _ => 0,
        })
        .sum();
    // A byte that is no UTF-8 becomes one character of three.
    assert!(text <= 3 * bytes.len(), "it makes more of it than there is");

    let without_comments = |events: Vec<Dispatched>| -> Vec<Dispatched> {
        events
            .into_iter()
            .map(|event| Dispatched {
                // Too many digits are the longest time there is to the one, and to the other any number.
                retry: event.retry.map(|retry| retry.min(u64::MAX.into())),
                // One forgets those of a block that is no event, the other does not.
                comments: Vec::new(),
                ..event
            })
            .collect()
    };
    let expected = without_comments(by_standard(&[bytes]));
    assert_eq!(without_comments(dispatched(whole)), expected);
});
