//! How a client that is behind its channel gets what the log has after its id: the decisions.

use std::sync::Arc;

use super::stretch::Stretch;
use crate::backplane::Missing;
use crate::channel::{Reading, Seam};
use crate::position::Position;

/// What a stream gets out of the log.
pub(super) trait Entry: Clone {
    /// Whether nothing comes behind it.
    fn is_end(&self) -> bool;
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Resumption<I> {
    seam: Seam,
    /// What comes first.
    lack: Option<Lack>,
    /// What was read, and how much of it the client has.
    stretch: Option<(Arc<Stretch<I>>, usize)>,
    /// The last event, once the log has said that no other comes.
    last: Option<u64>,
    /// Something is being read.
    is_waiting: bool,
}

/// What a client cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Lack {
    /// The log has dropped so many events, if that is known.
    Dropped(Option<u64>),
    /// The log is another one, or has not answered for too long.
    Unanswered,
}

impl<I: Entry> Resumption<I> {
    /// A client has everything up to `from`, and its channel was at `joined` when the stream joined it.
    pub(super) fn new(from: Position, joined: Position) -> Self {
        let seam = Seam::new(from, joined);
        Self {
            is_waiting: !seam.is_closed(),
            seam,
            lack: None,
            stretch: None,
            last: None,
        }
    }

    /// After which place something is to be read, or is being read.
    pub(super) fn asks(&self) -> Option<Position> {
        self.is_waiting.then(|| self.seam.after())
    }

    /// What the client gets next, before anything that its channel has; `None` if it has all of what was read.
    pub(super) fn next(&mut self) -> Option<Result<I, Lack>> {
        if let Some(lack) = self.lack.take() {
            return Some(Err(lack));
        }
        let (stretch, at) = self.stretch.as_mut()?;
        let next = stretch.items.get(*at).map(|(_, item)| item.clone());
        *at += 1;
        match next {
            Some(item) if item.is_end() => {
                let before = (*at).checked_sub(2).map(|at| stretch.items[at].0);
                self.last = Some(before.unwrap_or(stretch.after.offset));
                self.is_waiting = false;
            }
            Some(item) => return Some(Ok(item)),
            None => {}
        }
        self.stretch = None;
        None
    }

    /// What was asked for was read, or cannot be.
    pub(super) fn answer(&mut self, stretch: Option<Arc<Stretch<I>>>) {
        self.is_waiting = false;
        let Some(stretch) = stretch else {
            self.lack = Some(Lack::Unanswered);
            return;
        };
        let after = self.seam.after();
        match stretch.missing {
            Missing::Messages(missed) if stretch.after == after => {
                self.lack = Some(Lack::Dropped(Some(missed)));
            }
            Missing::Unknown if stretch.after == after => self.lack = Some(Lack::Dropped(None)),
            Missing::Nothing | Missing::Messages(_) | Missing::Unknown => {}
        }
        let is_read = |(offset, _): &(u64, _)| *offset <= after.offset;
        let at = stretch.items.partition_point(is_read);
        self.is_waiting = self.seam.read(stretch.through) != Reading::Done;
        self.stretch = Some((stretch, at));
    }

    /// Whether the client has what is at this place.
    pub(super) fn has(&self, place: Position) -> bool {
        !self.seam.is_before(place)
    }

    /// Where the client is that has everything of its channel, which is at this place; `None` if more comes before that.
    pub(super) fn place(&self, channel: Position) -> Option<Position> {
        let stretch = self.stretch.as_ref();
        let is_read = stretch.is_none_or(|(stretch, at)| *at >= stretch.items.len());
        let has_all = !self.is_waiting && self.lack.is_none() && is_read;
        has_all.then(|| self.seam.or(channel))
    }

    /// The user's last event, if the log says that no other comes.
    pub(super) fn last(&self) -> Option<u64> {
        self.last
    }
}
