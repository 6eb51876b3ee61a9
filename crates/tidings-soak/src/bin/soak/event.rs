//! What is broadcast: events that say whose they are, which, and how long, and of which everything else follows.

use tidings::{Data, EncodeError, Meta, ToSse};

/// How many keys the events of one user have, for streams that coalesce.
const KEYS: u64 = 8;

/// What fills an event: whatever a decoder could trip over.
const PIECES: [&str; 6] = [
    "plain words, ",
    "two\nlines, ",
    "a return\r\nand\ra lone one, ",
    "é ü 漢字 😀, ",
    "\u{85}\u{2028}\u{2029}\u{feff}, ",
    "\ndata: id: 5\nretry: 1\n\n: no comment, ",
];

/// An event of a topic, which is a user of a broadcaster or of several that are nodes of one cluster.
pub(crate) struct News {
    text: String,
    key: Option<String>,
}

impl News {
    pub(crate) fn new(topic: &str, number: u64, size: usize, is_keyed: bool) -> Self {
        Self {
            text: text(topic, number, size),
            key: is_keyed.then(|| key(number).to_string()),
        }
    }
}

impl ToSse for News {
    fn meta(&self) -> Meta<'_> {
        let mut meta = Meta::default();
        meta.key = self.key.as_deref();
        meta
    }

    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        data.text(&self.text);
        Ok(())
    }
}

/// Which key the event of this number has.
pub(crate) fn key(number: u64) -> u64 {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32 & (KEYS - 1)
}

fn text(topic: &str, number: u64, size: usize) -> String {
    let mut text = format!("{topic} {number} {size}\n");
    // It fits: there are six.
    let first = (number % PIECES.len() as u64) as usize;
    for piece in PIECES.iter().cycle().skip(first) {
        if text.len() >= size {
            return text;
        }
        text.push_str(piece);
    }
    unreachable!("a cycle does not end")
}

/// The number of an event by the data that came, and whether it is of this topic and whole.
pub(crate) fn read(topic: &str, data: &str) -> Result<u64, String> {
    let head = data.split_once('\n').map_or(data, |(head, _)| head);
    let mut words = head.split(' ');
    let of = words.next().unwrap_or_default();
    let mut number = || words.next()?.parse::<u64>().ok();
    let (Some(number), Some(size)) = (number(), number()) else {
        return Err(format!("data that nobody has broadcast: {head:?}"));
    };
    if of != topic {
        return Err(format!("an event of somebody else: {head:?}"));
    }
    // It fits: it comes from a `usize`, and a wrong one makes another text.
    let whole = text(topic, number, size.min(1 << 20) as usize);
    if data != whole.replace("\r\n", "\n").replace('\r', "\n") {
        return Err(format!(
            "event {number} is not what was broadcast: {data:?}"
        ));
    }
    Ok(number)
}
