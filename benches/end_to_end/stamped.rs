//! Events that say which they are, and when they were published.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};
use tidings::{Data, EncodeError, ToSse};

/// Ten digits, a colon, twenty digits and a colon.
const LEAST: usize = 32;

/// Nanoseconds by the clock that all processes of a machine share. `Instant` cannot be sent to another one.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos() as u64)
}

/// An event, written anew for each number: what publishers allocate and throw away is no part of fan-out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stamped(String);

impl Stamped {
    /// The event of this number, at the present time, of this size.
    pub(crate) fn at(&mut self, number: u64, size: usize) -> &Self {
        self.0.clear();
        write!(self.0, "{number:010}:{:020}:", now()).expect("a string takes everything");
        self.0
            .extend(std::iter::repeat_n('x', size.saturating_sub(LEAST)));
        self
    }

    pub(crate) fn data(&self) -> &str {
        &self.0
    }
}

impl ToSse for Stamped {
    fn data(&self, data: &mut Data<'_>) -> Result<(), EncodeError> {
        data.text(&self.0);
        Ok(())
    }
}

/// How many events are missing, if this is the data of a gap that says so.
pub(crate) fn gap(data: &[u8]) -> Option<u64> {
    let gap: serde_json::Value = serde_json::from_slice(data).ok()?;
    gap.get("missed")?.as_u64()
}

/// The number and the time in an event's data, if it is whole.
pub(crate) fn parse(data: &[u8], size: usize) -> Option<(u64, u64)> {
    let whole = data.len() == size.max(LEAST) && data[10] == b':' && data[31] == b':';
    let digits = |digits: &[u8]| {
        digits.iter().try_fold(0u64, |number, &digit| {
            let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
            number.checked_mul(10)?.checked_add(digit)
        })
    };
    whole.then_some(())?;
    Some((digits(&data[..10])?, digits(&data[11..31])?))
}
