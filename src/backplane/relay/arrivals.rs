//! Decides what to do when the engine says that messages arrive, or may not.
//!
//! At [`Level::Replayable`](crate::backplane::Level::Replayable) the log has what did not arrive, and channels are compared with
//! it. At [`Level::AtMostOnce`](crate::backplane::Level::AtMostOnce) nobody has it, and streams are told.

/// What the engine says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said<U> {
    /// Messages of these users arrive. Of each, whether a stream has begun before.
    Ready(Vec<(U, bool)>),
    /// They do not. Of each, whether that is new.
    Unheard(Vec<(U, bool)>),
    /// Messages of anybody may not have arrived.
    MayLack,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Follows<U> {
    /// Compare these users' channels with the log.
    Compare(Vec<U>),
    CompareAll,
    /// Tell these users' streams of a gap.
    Tell(Vec<U>),
    TellAll,
}

pub(super) fn follows<U>(is_replayable: bool, said: Said<U>) -> Follows<U> {
    let those = |users: Vec<(U, bool)>| {
        let users = users.into_iter().filter(|(_, is_meant)| *is_meant);
        users.map(|(user, _)| user).collect()
    };
    let all = |users: Vec<(U, bool)>| users.into_iter().map(|(user, _)| user).collect();
    match (is_replayable, said) {
        (true, Said::Ready(users)) => Follows::Compare(all(users)),
        // A stream that has just begun gets at least what the log has now. The next round brings the rest.
        (true, Said::Unheard(users)) => Follows::Compare(those(users)),
        (true, Said::MayLack) => Follows::CompareAll,
        (false, Said::Ready(users)) => Follows::Tell(those(users)),
        (false, Said::Unheard(users)) => Follows::Tell(all(users)),
        (false, Said::MayLack) => Follows::TellAll,
    }
}
