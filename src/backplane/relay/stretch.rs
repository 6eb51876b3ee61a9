//! Parts of a user's log, as streams get them that come back, and the streams that wait for them.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Relay;
use crate::backplane::{Envelope, Fetched, Missing, Position, What};
use crate::frame::Frame;
use crate::gap::{Gap, GapReason};
use crate::id::UserId;

/// A stream that waits for what the log has after a place.
pub(super) struct Request {
    pub(super) user: UserId,
    pub(super) after: Position,
    pub(super) since: Instant,
    /// Nothing if the log is another one, or has not answered for too long.
    pub(super) answer: oneshot::Sender<Option<Arc<Stretch>>>,
}

/// What streams get, with its offset.
pub(super) type Items = Vec<(u64, Item)>;

#[derive(Clone)]
pub(super) enum Item {
    Event(Arc<Frame>),
    Gap(Gap),
    /// Nothing comes behind it.
    End,
}

/// A part of a user's log.
pub(super) struct Stretch {
    pub(super) after: Position,
    pub(super) through: Position,
    /// Whether something is missing behind `after`, before the first of the items.
    pub(super) missing: Missing,
    pub(super) items: Items,
}

impl Stretch {
    /// Whether it is what a stream at this place lacks next.
    pub(super) fn serves(&self, at: Position) -> bool {
        let first = self.items.first().map(|(offset, _)| *offset);
        let is_within = at.epoch == self.after.epoch
            && (self.after.offset..self.through.offset).contains(&at.offset);
        // Where the missing ones were is not known.
        let lacks_as_much = self.missing == Missing::Nothing
            || at == self.after
            || first.is_some_and(|first| at.offset + 1 >= first);
        is_within && lacks_as_much
    }
}

/// The streams of one user that wait.
#[derive(Default)]
pub(super) struct Waiting(Vec<Request>);

impl Waiting {
    pub(super) fn push(&mut self, request: Request) {
        self.0.push(request);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where the first of them is, of those that still wait.
    pub(super) fn first(&mut self) -> Option<Position> {
        self.0.retain(|request| !request.answer.is_closed());
        let epoch = self.0.first()?.after.epoch;
        let places = self.0.iter().map(|request| request.after);
        let places = places.filter(|place| place.epoch == epoch);
        places.min_by_key(|place| place.offset)
    }

    /// Answers those that `is_meant` picks out.
    pub(super) fn answer(
        &mut self,
        stretch: Option<Arc<Stretch>>,
        is_meant: impl Fn(&Request) -> bool,
    ) {
        let requests = std::mem::take(&mut self.0).into_iter();
        let (meant, left): (Vec<_>, Vec<_>) = requests.partition(is_meant);
        self.0 = left;
        for request in meant {
            // The client may have gone.
            drop(request.answer.send(stretch.clone()));
        }
    }
}

impl Relay {
    /// What messages of the log are for streams that read them there.
    pub(super) fn open(&self, fetched: &Fetched) -> Items {
        let open = |(position, body): &(Position, Bytes)| {
            // What is none of ours was counted when it came.
            let envelope = Envelope::parse(body.clone())?;
            let shown = self.shown(&envelope);
            let item = match envelope.what {
                What::Lost(missed) => {
                    Item::Gap(Gap::new(GapReason::Backplane, missed).at(Some(*position)))
                }
                What::Complete => Item::End,
                What::Event {
                    relay_data, draft, ..
                } => {
                    let draft = self.attach(draft.with_slot(true), relay_data);
                    Item::Event(Arc::new(draft.with_shown(shown).finish(Some(*position))))
                }
            };
            Some((position.offset, item))
        };
        fetched.messages.iter().filter_map(open).collect()
    }
}
