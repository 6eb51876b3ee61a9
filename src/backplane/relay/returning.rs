//! What stands in front of each stream: a client that is behind what its channel keeps gets what the log has after its id, then
//! what its channel sends.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::Relay;
use super::stretch::{Item, Stretch};
use crate::backplane::Missing;
use crate::channel::{Reading, Seam, Welcome};
use crate::frame::Frame;
use crate::gap::{Gap, GapReason};
use crate::id::UserId;
use crate::position::Position;
use crate::subscription::{ResumeFilter, Verdict};

/// Stands in front of each stream. Gaps that the channel sends to all streams become this one's.
pub(crate) struct Returning {
    /// How many notices of gaps it has seen, or been told that it may have lost.
    notices: u64,
    /// For a client that came back with an id of the log.
    reader: Option<Box<Reader>>,
    shown: Shown,
}

/// Which of the events that were shown before the log had them this stream has had. Numbers rise in the order in which they
/// were shown, which is also the order in which the log returns them.
#[derive(Default)]
struct Shown {
    /// When they were shown: the first and the last. A gap told of those in between that the stream lagged over.
    early: Option<(u64, u64)>,
    /// From the log: the last.
    late: u64,
}

impl Shown {
    /// Notes one, and says whether the stream has had it.
    fn note(&mut self, number: u64, is_early: bool) -> bool {
        if is_early {
            let has = number <= self.late;
            if !has {
                let first = self.early.map_or(number, |(first, _)| first);
                self.early = Some((first, number));
            }
            return has;
        }
        self.late = self.late.max(number);
        let early = self.early;
        early.is_some_and(|(first, last)| (first..=last).contains(&number))
    }
}

struct Reader {
    relay: Arc<Relay>,
    user: UserId,
    seam: Seam,
    /// What comes first.
    gap: Option<Gap>,
    /// What was read, and how much of it the client has.
    stretch: Option<(Arc<Stretch>, usize)>,
    /// The last event, once the log has said that no other comes.
    last: Option<u64>,
    /// What is being read.
    answer: Option<oneshot::Receiver<Option<Arc<Stretch>>>>,
}

impl Returning {
    pub(crate) fn new(relay: Arc<Relay>, user: UserId, welcome: &Welcome) -> Self {
        let reader = welcome.log.map(|(from, joined)| {
            let seam = Seam::new(from, joined);
            let answer = (!seam.is_closed()).then(|| relay.ask(&user, from));
            Box::new(Reader {
                relay,
                user,
                seam,
                gap: None,
                stretch: None,
                last: None,
                answer,
            })
        });
        Self {
            notices: welcome.notices,
            reader,
            shown: Shown::default(),
        }
    }

    /// Whether the client has what is at this place.
    fn has(&self, place: Option<Position>) -> bool {
        let reader = self.reader.as_ref().zip(place);
        reader.is_some_and(|(reader, place)| !reader.seam.is_before(place))
    }
}

impl Reader {
    /// Whether the client has everything that was to be read.
    fn has_all(&self) -> bool {
        let stretch = self.stretch.as_ref();
        let is_read = stretch.is_none_or(|(stretch, at)| *at >= stretch.items.len());
        self.answer.is_none() && self.gap.is_none() && is_read
    }

    fn next(&mut self) -> Option<Result<Arc<Frame>, Gap>> {
        if let Some(gap) = self.gap.take() {
            return Some(Err(gap));
        }
        let (stretch, at) = self.stretch.as_mut()?;
        let next = stretch.items.get(*at).map(|(_, item)| item.clone());
        *at += 1;
        match next {
            Some(Item::Event(frame)) => return Some(Ok(frame)),
            Some(Item::Gap(gap)) => return Some(Err(gap)),
            Some(Item::End) => {
                let before = (*at).checked_sub(2).map(|at| stretch.items[at].0);
                self.last = Some(before.unwrap_or(stretch.after.offset));
                self.answer = None;
            }
            None => {}
        }
        self.stretch = None;
        None
    }

    fn read(&mut self, stretch: Option<Arc<Stretch>>) {
        let Some(stretch) = stretch else {
            return self.tell(GapReason::Backplane, None);
        };
        let after = self.seam.after();
        match stretch.missing {
            Missing::Messages(missed) if stretch.after == after => {
                self.tell(GapReason::Evicted, Some(missed));
            }
            Missing::Unknown if stretch.after == after => self.tell(GapReason::Evicted, None),
            Missing::Nothing | Missing::Messages(_) | Missing::Unknown => {}
        }
        let is_read = |(offset, _): &(u64, _)| *offset <= after.offset;
        let at = stretch.items.partition_point(is_read);
        if self.seam.read(stretch.through) != Reading::Done {
            self.answer = Some(self.relay.ask(&self.user, self.seam.after()));
        }
        self.stretch = Some((stretch, at));
    }

    fn tell(&mut self, reason: GapReason, missed: Option<u64>) {
        self.gap = Some(Gap::new(reason, missed));
    }
}

impl ResumeFilter<Arc<Frame>> for Returning {
    fn poll_before(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Arc<Frame>, Gap>>> {
        let Some(reader) = &mut self.reader else {
            return Poll::Ready(None);
        };
        loop {
            if let Some(item) = reader.next() {
                // It is behind its id: it cannot have had it.
                let number = item.as_ref().ok().and_then(|frame| frame.shown());
                number.map(|number| self.shown.note(number, false));
                return Poll::Ready(Some(item));
            }
            let Some(receiver) = &mut reader.answer else {
                return Poll::Ready(None);
            };
            let Poll::Ready(answer) = Pin::new(receiver).poll(cx) else {
                return Poll::Pending;
            };
            reader.answer = None;
            // Nobody answers when the broadcaster has gone.
            reader.read(answer.ok().flatten());
        }
    }

    fn last(&self) -> Option<u64> {
        self.reader.as_ref()?.last
    }

    fn widen(&mut self, gap: Gap, notices: u64) -> Option<Gap> {
        // The stream read from the log what its channel has lost meanwhile.
        if gap.position.is_some() && self.has(gap.position) {
            return None;
        }
        if notices <= self.notices {
            return Some(gap);
        }
        self.notices = notices;
        Some(Gap {
            missed: None,
            ..gap
        })
    }

    fn place(&self, channel: Position) -> Option<Position> {
        let Some(reader) = &self.reader else {
            return Some(channel);
        };
        reader.has_all().then(|| reader.seam.or(channel))
    }

    fn pass(&mut self, frame: Arc<Frame>) -> Verdict<Arc<Frame>> {
        let told = frame.told();
        self.notices += u64::from(told.is_some());
        let is_early = frame.place().is_none();
        let number = frame.shown();
        let is_known = number.is_some_and(|number| self.shown.note(number, is_early));
        if is_known || self.has(frame.place()) {
            return Verdict::Nothing;
        }
        match told {
            None => Verdict::Event(frame),
            Some(gap) => Verdict::Gap(gap),
        }
    }
}

impl fmt::Debug for Returning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Returning")
            .field("seam", &self.reader.as_ref().map(|reader| &reader.seam))
            .finish_non_exhaustive()
    }
}
