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
    /// How many notices of gaps it has seen, with those sent before it began if it sees none of them.
    seen: u64,
    /// The channel's first so many notices have been seen, or covered by a gap. A gap covers all that the channel has sent by then,
    /// though the stream may see some of them later. After a loss or a replay `seen` may be too low: then a known number is reported
    /// as unknown, never an unknown one as known.
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
    /// What the channel could not give the stream, which is read in the log. Its number is known until something was read.
    lost: Option<Gap>,
    /// The log could not be read, and the stream has had nothing since: it does not wait for the log again.
    is_unanswered: bool,
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
                lost: None,
                is_unanswered: false,
            };
            reader.ask();
            reader
        });
        Self {
            seen: if welcome.replays { 0 } else { welcome.notices },
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
        let next = match self.resumption.next() {
            Some(Ok(Item::Event(frame))) => Some(Ok(frame)),
            Some(Ok(Item::Gap(gap))) => Some(Err(gap)),
            Some(Err(lack)) => Some(Err(self.gap(lack))),
            Some(Ok(Item::End)) | None => None,
        };
        if self.resumption.asks().is_none() {
            (self.answer, self.lost) = (None, None);
        }
        next
    }

    /// What to report for what the log does not have either.
    fn gap(&self, lack: Lack) -> Gap {
        match (lack, self.lost) {
            (Lack::Dropped(missed, until), lost) => {
                let reason = lost.map_or(GapReason::Evicted, |lost| lost.reason);
                Gap::new(reason, missed).at(Some(until))
            }
            (Lack::Unanswered(place), lost) => {
                let unread = Gap::new(GapReason::Backplane, None);
                lost.unwrap_or(unread).at(place)
            }
        }
    }

    /// What was asked for was read, or cannot be.
    fn answer(&mut self, stretch: Option<Arc<Stretch<Item>>>) {
        self.is_unanswered = stretch.is_none();
        if let Some(lost) = self.lost.as_mut().filter(|_| stretch.is_some()) {
            lost.missed = None;
        }
        self.resumption.answer(stretch);
        self.ask();
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
            reader.answer(answer.ok().flatten());
        }
    }

    fn has_ended(&self) -> bool {
        let reader = self.reader.as_ref();
        reader.is_some_and(|reader| reader.resumption.has_ended())
    }

    fn has_next(&self) -> bool {
        let reader = self.reader.as_ref();
        reader.is_some_and(|reader| reader.resumption.has_next())
    }

    fn give_up(&mut self) -> bool {
        let lacking = self.reader.as_mut().filter(|reader| reader.lost.is_some());
        lacking.map(|reader| reader.answer(None)).is_some()
    }

    fn lose(&mut self, missed: &Missed, notices: u64) -> Option<Gap> {
        let mut gap = missed.gap;
        if notices > self.notices {
            gap.missed = None;
        }
        if let Some((reader, until)) = self.reader.as_mut().zip(missed.in_log) {
            // It may have read it meanwhile.
            if !reader.resumption.lacks(until) {
                return None;
            }
            // Where newer events stand for these, the client does not want them.
            let wants = missed.told && !reader.is_unanswered;
            if wants && reader.resumption.read_until(until, gap.position) {
                reader.lost = Some(gap);
                reader.ask();
                return None;
            }
        }
        self.notices = self.notices.max(notices);
        self.passes(gap.position);
        Some(gap)
    }

    fn place(&self, channel: Position) -> Option<Position> {
        match &self.reader {
            Some(reader) => reader.resumption.place(channel),
            None => Some(channel),
        }
    }

    fn pass(&mut self, frame: Arc<Frame>) -> Verdict<Arc<Frame>> {
        if let Some(reader) = &mut self.reader {
            reader.is_unanswered = false;
        }
        let told = frame.told();
        self.seen += u64::from(told.is_some());
        self.notices = self.notices.max(self.seen);
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
