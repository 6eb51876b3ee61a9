//! What nodes say on channels.

use bytes::Bytes;
use tidings::backplane::{Place, Position};

use super::known::Seen;

/// What arrived on a channel: a line that says what it is, and a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A message of no log.
    Plain(Bytes),
    /// A message of the log.
    Logged(Place, Seen, Bytes),
    /// What a node has sent itself.
    Fence(u64),
}

impl Heard {
    pub(super) fn parse(payload: Vec<u8>) -> Option<Self> {
        let end = payload.iter().position(|byte| *byte == b'\n')?;
        let mut payload = Bytes::from(payload);
        let line = payload.split_to(end);
        let body = payload.split_off(1);
        let mut words = std::str::from_utf8(&line).ok()?.split(' ');
        let heard = match words.next()? {
            "p" => Self::Plain(body),
            "f" => Self::Fence(words.next()?.parse().ok()?),
            "m" => {
                let epoch = u64::from_str_radix(words.next()?, 16).ok()?;
                let offset = words.next()?.parse().ok()?;
                let previous = words.next()?.parse().ok()?;
                let id = u128::from_str_radix(words.next()?, 16).ok()?;
                let until = words.next()?.parse().ok()?;
                let position = Position { epoch, offset };
                (epoch > 0 && previous < offset).then_some(())?;
                let seen = Seen { offset, id, until };
                Self::Logged(Place { position, previous }, seen, body)
            }
            _ => return None,
        };
        words.next().is_none().then_some(heard)
    }

    pub(super) fn plain(body: &[u8]) -> Vec<u8> {
        [b"p\n", body].concat()
    }

    pub(super) fn fence(number: u64) -> String {
        format!("f {number}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_says_is_read_and_nothing_else() {
        let body = Bytes::from_static(b"a\nb");
        assert_eq!(
            Heard::parse(Heard::plain(&body)),
            Some(Heard::Plain(body.clone()))
        );
        assert_eq!(Heard::parse(Heard::fence(7).into()), Some(Heard::Fence(7)));
        let place = Place {
            position: Position {
                epoch: 10,
                offset: 3,
            },
            previous: 1,
        };
        let seen = Seen {
            offset: 3,
            id: 255,
            until: 99,
        };
        let logged = b"m 000000000000000a 3 1 ff 99\na\nb".to_vec();
        assert_eq!(Heard::parse(logged), Some(Heard::Logged(place, seen, body)));
        for odd in [
            "",
            "\n",
            "p",
            "x\n",
            "p 1\n",
            "f\n",
            "f x\n",
            "m 1 2 3 4 9\n",
            "m 0 2 1 4 9\n",
            "m 1 2\n",
            "m 1 3 1 f\n",
            "m 1 3 1 f 9 9\n",
            "\u{fc}\n",
        ] {
            assert_eq!(Heard::parse(odd.into()), None, "{odd:?}");
        }
    }
}
