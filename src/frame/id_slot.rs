//! The slot at the beginning of a frame for the id that a history assigns.

use crate::position::Position;

/// The digits of the largest offset.
const MAX_DIGITS: usize = 20;

/// The longest line of an id: `id: `, the epoch, `-`, the offset and LF.
pub(super) const SLOT: usize = b"id: ".len() + Position::EPOCH_LEN + b"-".len() + MAX_DIGITS + 1;

/// Writes the line of the id so that it ends where the slot ends, and returns where it begins.
///
/// This is done under a log's lock, right after the frame was copied. So it only writes: a processor that reads again what it
/// has just written in smaller pieces waits until all of it is in its cache.
pub(super) fn put_id(slot: &mut [u8], id: Position) -> usize {
    let mut start = SLOT - 1;
    slot[start] = b'\n';
    let mut number = id.offset;
    loop {
        start -= 1;
        // One digit.
        slot[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    let mut put = |bytes: &[u8]| {
        let end = start;
        start -= bytes.len();
        slot[start..end].copy_from_slice(bytes);
    };
    put(b"-");
    put(&half_hex(id.epoch & 0xFFFF_FFFF).to_be_bytes());
    put(&half_hex(id.epoch >> 32).to_be_bytes());
    put(b"id: ");
    start
}

/// The eight hexadecimal digits of a number of 32 bits, the first in the highest byte. All at a time, because this is done
/// for each event.
fn half_hex(number: u64) -> u64 {
    // A byte for each four bits.
    let spread = (number | number << 16) & 0x0000_FFFF_0000_FFFF;
    let spread = (spread | spread << 8) & 0x00FF_00FF_00FF_00FF;
    let spread = (spread | spread << 4) & 0x0F0F_0F0F_0F0F_0F0F;
    // One in each byte that is a letter.
    let letters = (spread + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
    spread + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)
}

#[cfg(test)]
mod tests {
    use super::{SLOT, put_id};
    use crate::position::Position;

    #[test]
    fn the_line_is_what_a_position_displays() {
        let numbers = [
            0,
            1,
            9,
            10,
            15,
            16,
            0x0123_4567_89ab_cdef,
            0xfedc_ba98_7654_3210,
            u64::MAX,
            u64::MAX / 3,
        ];
        for epoch in numbers {
            for offset in numbers {
                let id = Position { epoch, offset };
                let mut slot = [0; SLOT];
                let start = put_id(&mut slot, id);
                assert_eq!(slot[start..], *format!("id: {id}\n").as_bytes());
            }
        }
    }
}
