//! The room that a frame has for the id that a history gives it.

use crate::id::Position;

/// What is known of a frame's id beforehand: everything but the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) epoch: u64,
    /// The channel, where several nodes have the history in common; see [`Position`].
    pub(crate) channel: Option<u64>,
}

impl Ids {
    /// Those of a channel, by what it says that they begin with.
    pub(crate) fn of((epoch, channel): (u64, Option<u64>)) -> Self {
        Self { epoch, channel }
    }

    /// `id: `, the epoch and `-`, or twice that.
    pub(super) fn prefix(&self) -> usize {
        b"id: ".len() + self.fixed() * (Position::EPOCH_LEN + b"-".len())
    }

    /// The longest number and LF, or two numbers with `-` between.
    pub(super) fn room(&self) -> usize {
        self.prefix() + self.fixed() * (NUMBER_ROOM + 1)
    }

    fn fixed(&self) -> usize {
        1 + usize::from(self.channel.is_some())
    }

    pub(super) fn write(&self, wire: &mut Vec<u8>) {
        wire.extend_from_slice(b"id: ");
        for number in [Some(self.epoch), self.channel].into_iter().flatten() {
            wire.extend_from_slice(&hex(number));
            wire.push(b'-');
        }
        wire.resize(self.room(), b'\n');
    }

    pub(super) fn fit(&self, id: &Position) -> bool {
        id.epoch == self.epoch && id.own.map(|own| own.channel) == self.channel
    }
}

/// The longest number.
const NUMBER_ROOM: usize = 20;

/// The number's sixteen digits. Written out, because this is done for each event.
fn hex(number: u64) -> [u8; Position::EPOCH_LEN] {
    let bytes = number.to_be_bytes();
    std::array::from_fn(|at| {
        let byte = bytes[at / 2];
        let digit = if at % 2 == 0 { byte >> 4 } else { byte & 15 };
        b"0123456789abcdef"[usize::from(digit)]
    })
}

/// Writes a number so that it ends before `end`, and says where it begins.
pub(super) fn put_number(wire: &mut [u8], end: usize, number: u64) -> usize {
    let mut buffer = [0; NUMBER_ROOM];
    let digits = decimal(number, &mut buffer);
    let start = end - digits.len();
    wire[start..end].copy_from_slice(digits);
    start
}

/// The number's digits, at the end of the buffer.
fn decimal(mut number: u64, buffer: &mut [u8; NUMBER_ROOM]) -> &[u8] {
    let mut start = buffer.len();
    loop {
        start -= 1;
        // One digit.
        buffer[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &buffer[start..];
        }
    }
}
