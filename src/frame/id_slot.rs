//! The slot at the beginning of a frame for the id that a history assigns.

use crate::position::Position;

/// `id: `, the epoch and `-`: the part of the id that is known beforehand.
pub(super) const PREFIX: usize = b"id: ".len() + Position::EPOCH_LEN + b"-".len();

/// The digits of the largest offset.
const MAX_DIGITS: usize = 20;

/// The prefix, the longest offset and LF.
pub(super) const SLOT: usize = PREFIX + MAX_DIGITS + 1;

pub(super) fn write_slot(epoch: u64, wire: &mut Vec<u8>) {
    wire.extend_from_slice(b"id: ");
    wire.extend_from_slice(&hex(epoch));
    wire.push(b'-');
    wire.resize(SLOT, b'\n');
}

/// The number's sixteen digits. Eight at a time, because this is done for each event.
fn hex(number: u64) -> [u8; Position::EPOCH_LEN] {
    let mut digits = [0; Position::EPOCH_LEN];
    let (high, low) = digits.split_at_mut(8);
    high.copy_from_slice(&half_hex(number >> 32).to_be_bytes());
    low.copy_from_slice(&half_hex(number & 0xFFFF_FFFF).to_be_bytes());
    digits
}

/// Eight digits, the first in the highest byte, of a number of 32 bits.
fn half_hex(number: u64) -> u64 {
    // A byte for each four bits.
    let spread = (number | number << 16) & 0x0000_FFFF_0000_FFFF;
    let spread = (spread | spread << 8) & 0x00FF_00FF_00FF_00FF;
    let spread = (spread | spread << 4) & 0x0F0F_0F0F_0F0F_0F0F;
    // One in each byte that is a letter.
    let letters = (spread + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    spread + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)
}

/// Writes a number so that it ends before `end`, and says where it begins.
pub(super) fn put_number(wire: &mut [u8], end: usize, number: u64) -> usize {
    let mut buffer = [0; MAX_DIGITS];
    let digits = decimal(number, &mut buffer);
    let start = end - digits.len();
    wire[start..end].copy_from_slice(digits);
    start
}

/// The number's digits, at the end of the buffer.
fn decimal(mut number: u64, buffer: &mut [u8; MAX_DIGITS]) -> &[u8] {
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

#[cfg(test)]
mod tests {
    use super::hex;

    #[test]
    fn digits_are_those_of_the_standard_library() {
        let numbers = [
            0,
            1,
            9,
            10,
            15,
            16,
            0x0123_4567_89ab_cdef,
            0xfedc_ba98_7654_3210,
        ];
        for number in numbers.into_iter().chain([u64::MAX, u64::MAX / 3]) {
            assert_eq!(hex(number), *format!("{number:016x}").as_bytes());
        }
    }
}
