//! What stands in front of each stream: a client that lacks more than its channel keeps gets it from the log, then what its
//! channel sends.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::Relay;
use super::reads::Item;
use super::resumption::{Lack, Resumption};
use super::stretch::{Entry, Stretch};
use crate::channel::{Missed, Welcome};
use crate::frame::Frame;
use crate::gap::{Gap, GapReason};
use crate::id::UserId;
use crate::position::Position;
use crate::subscription::{ResumeFilter, Verdict};

/// Stands in front of each stream. Gaps that the channel sends to all streams become this one's.
pub(crate) struct Returning {
    /// How many notices of gaps it has seen, or been told that it may have lost.
    notices: u64,
    /// Where there is a log.
    reader: Option<Reader>,
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
    resumption: Resumption<Item>,
    /// What is being read.
    answer: Option<oneshot::Receiver<Option<Arc<Stretch<Item>>>>>,
}

impl Entry for Item {
    fn is_end(&self) -> bool {
        matches!(self, Self::End)
    }
}

impl Returning {
    pub(crate) fn new(relay: Arc<Relay>, user: UserId, welcome: &Welcome) -> Self {
        let reader = welcome.log.map(|(from, joined)| {
            let mut reader = Reader {
                relay,
                user,
                resumption: Resumption::new(from, joined),
                answer: None,
            };
            reader.ask();
            reader
        });
        Self {
            notices: welcome.notices,
            reader,
            shown: Shown::default(),
        }
    }

    /// Whether the client gets what its channel has at this place; `false` if it has that.
    fn passes(&mut self, place: Option<Position>) -> bool {
        let reader = self.reader.as_mut().zip(place);
        reader.is_none_or(|(reader, place)| reader.resumption.pass(place))
    }
}

impl Reader {
    /// Asks for what is to be read, if something is.
    fn ask(&mut self) {
        let after = self.resumption.asks();
        self.answer = after.map(|after| self.relay.ask(&self.user, after));
    }

    fn next(&mut self) -> Option<Result<Arc<Frame>, Gap>> {
        let gap = |reason, missed| Some(Err(Gap::new(reason, missed)));
        let next = match self.resumption.next() {
            Some(Ok(Item::Event(frame))) => Some(Ok(frame)),
            Some(Ok(Item::Gap(gap))) => Some(Err(gap)),
            Some(Err(Lack::Dropped(missed))) => gap(GapReason::Evicted, missed),
            Some(Err(Lack::Unanswered)) => gap(GapReason::Backplane, None),
            Some(Ok(Item::End)) | None => None,
        };
        if self.resumption.asks().is_none() {
            self.answer = None;
        }
        next
    }
}

impl ResumeFilter<Arc<Frame>> for Returning {
    fn poll_before(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Arc<Frame>, Gap>>> {
        let Some(reader) = &mut self.reader else {
            return Poll::Ready(None);
        };
        loop {
            if let Some(item) = reader.next() {
                let number = item.as_ref().ok().and_then(|frame| frame.shown());
                if number.is_some_and(|number| self.shown.note(number, false)) {
                    continue;
                }
                return Poll::Ready(Some(item));
            }
            let Some(receiver) = &mut reader.answer else {
                return Poll::Ready(None);
            };
            let Poll::Ready(answer) = Pin::new(receiver).poll(cx) else {
                return Poll::Pending;
            };
            // Nobody answers when the broadcaster has gone.
            reader.resumption.answer(answer.ok().flatten());
            reader.ask();
        }
    }

    fn has_ended(&self) -> bool {
        let reader = self.reader.as_ref();
        reader.is_some_and(|reader| reader.resumption.has_ended())
    }

    fn recover(&mut self, missed: &Missed) -> bool {
        let Some((reader, until)) = self.reader.as_mut().zip(missed.in_log) else {
            return false;
        };
        // It may have read it meanwhile. Where newer events stand for these, the client does not want them.
        let has = !reader.resumption.lacks(until);
        let reads = !has && missed.told && reader.resumption.read_until(until);
        if reads {
            reader.ask();
        }
        has || reads
    }

    fn widen(&mut self, gap: Gap, notices: u64) -> Gap {
        self.passes(gap.position);
        if notices <= self.notices {
            return gap;
        }
        self.notices = notices;
        Gap {
            missed: None,
            ..gap
        }
    }

    fn place(&self, channel: Position) -> Option<Position> {
        match &self.reader {
            Some(reader) => reader.resumption.place(channel),
            None => Some(channel),
        }
    }

    fn pass(&mut self, frame: Arc<Frame>) -> Verdict<Arc<Frame>> {
        let told = frame.told();
        self.notices += u64::from(told.is_some());
        let is_early = frame.place().is_none();
        let number = frame.shown();
        let is_known = number.is_some_and(|number| self.shown.note(number, is_early));
        if !self.passes(frame.place()) || is_known {
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
            .field(
                "place",
                &self.reader.as_ref().map(|reader| reader.resumption.asks()),
            )
            .finish_non_exhaustive()
    }
}
