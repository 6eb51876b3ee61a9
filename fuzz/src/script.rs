//! What the state machine is told to do.

use arbitrary::{Arbitrary, Unstructured};

/// How many users there are.
pub const USERS: usize = 3;

/// Settings of a broadcaster, and what is done with it.
#[derive(Debug, Arbitrary)]
pub struct Script {
    pub settings: Settings,
    pub operations: Vec<Operation>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub capacity: usize,
    pub per_user: Option<usize>,
    pub total: Option<usize>,
    pub history: Option<Kept>,
    pub policy: Policy,
    pub coalesce_keys: Option<usize>,
    /// How far behind, and for how many milliseconds.
    pub patience: Option<(u64, u64)>,
}

/// The settings of a history. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    pub events: usize,
    pub bytes: usize,
    pub age: Option<u64>,
    pub linger: u64,
    pub away_users: usize,
    pub away_bytes: usize,
    pub keeps_for_unconnected: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Arbitrary)]
pub enum Policy {
    Gap,
    Disconnect,
    Coalesce,
    End,
}

impl Settings {
    /// A ring has a power of two of places.
    pub fn ring(&self) -> u64 {
        self.capacity.next_power_of_two() as u64
    }

    /// Of how many keys the newest event is kept.
    pub fn keys(&self) -> usize {
        let default = if self.policy == Policy::Coalesce {
            64
        } else {
            0
        };
        self.coalesce_keys.unwrap_or(default)
    }

    /// Whether a stream that lagged has somewhere to look.
    pub fn has_log(&self) -> bool {
        self.history.is_some() || self.keys() > 0
    }

    pub fn patience(&self) -> (u64, u64) {
        let kept = self.history.as_ref().map_or(0, |history| history.events);
        self.patience
            .unwrap_or((self.ring().max(kept as u64), 30_000))
    }
}

impl<'a> Arbitrary<'a> for Settings {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(Self {
            capacity: u.int_in_range(1..=17)?,
            per_user: maybe(u, |u| u.int_in_range(1..=4))?,
            total: maybe(u, |u| u.int_in_range(1..=8))?,
            history: maybe(u, Kept::arbitrary)?,
            policy: u.arbitrary()?,
            coalesce_keys: maybe(u, |u| u.int_in_range(0..=3))?,
            patience: maybe(u, |u| {
                Ok((u.int_in_range(0..=40)?, u.int_in_range(0..=2000)?))
            })?,
        })
    }
}

impl<'a> Arbitrary<'a> for Kept {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        Ok(Self {
            events: u.int_in_range(1..=48)?,
            bytes: u.int_in_range(1..=20_000)?,
            age: maybe(u, |u| u.int_in_range(0..=2000))?,
            linger: u.int_in_range(0..=2000)?,
            away_users: u.int_in_range(0..=USERS)?,
            away_bytes: u.int_in_range(0..=20_000)?,
            keeps_for_unconnected: u.arbitrary()?,
        })
    }
}

fn maybe<'a, T>(
    u: &mut Unstructured<'a>,
    make: impl FnOnce(&mut Unstructured<'a>) -> arbitrary::Result<T>,
) -> arbitrary::Result<Option<T>> {
    Ok(if u.arbitrary()? { Some(make(u)?) } else { None })
}

/// Numbers choose among what there is.
#[derive(Debug, Arbitrary)]
pub enum Operation {
    Open {
        user: u8,
        connection: u8,
        comes_with: Token,
        policy: Option<Policy>,
        /// Milliseconds from now.
        deadline: Option<u8>,
    },
    Broadcast {
        user: u8,
        times: u8,
        filling: u8,
        key: Option<u8>,
    },
    /// An event that cannot be encoded.
    Fail {
        user: u8,
    },
    Poll {
        stream: u8,
        times: u8,
    },
    Drop {
        stream: u8,
    },
    Unregister {
        user: u8,
        connection: u8,
    },
    Disconnect {
        user: u8,
    },
    Drain {
        user: u8,
    },
    Forget {
        user: u8,
    },
    Sweep,
    Advance {
        millis: u16,
    },
    Shutdown {
        over: u8,
    },
    /// Drops the future of a shutdown.
    Abandon,
}

/// What a client says that it has seen.
#[derive(Debug, Arbitrary)]
pub enum Token {
    Nothing,
    /// An id that was given to some client, of this user or another, now or long ago.
    Seen(u8),
    /// Such an id with another offset.
    Moved {
        seen: u8,
        offset: u8,
        form: Form,
    },
    /// Anything at all.
    Garbage(String),
}

/// The forms of an id, see `src/id.rs`.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub enum Form {
    Plain,
    /// With an offset that is not written as we write it.
    Padded,
    /// As a stream leaves it behind that ends at a gap.
    Restart,
    /// With the end of such an id twice.
    RestartTwice,
    /// With something behind it that no id has.
    Longer,
}
