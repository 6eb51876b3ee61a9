//! One client's way from node to node.
//!
//! What its id says that it has seen is all of the engine's log up to a position, and the first so many events of some
//! channels, which may be in the log behind that position, or not yet. What it gets here:
//!
//! 1. From the log, what is behind the position.
//! 2. From the channel, what was sent here first and is not in the log yet, and then what comes.
//!
//! All of it but what it has seen. Two things say that: an event from the log is one that the log was read up to, or it is
//! one of those that a channel it was with has sent first.
//!
//! The ids that its events have for everybody here would lose that. As long as it matters, the client gets events under
//! ids of its own.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::Relay;
use super::repair::CHUNK;
use crate::backplane::{Envelope, Fetched, Missing, What};
use crate::channel::Welcome;
use crate::frame::{Frame, Ids};
use crate::gap::{Gap, GapReason};
use crate::id::{Composite, LastEventId, Position, Seen, UserId};
use crate::subscription::{Gate, Pass};

/// How long it waits before it asks again.
const RETRY: Duration = Duration::from_millis(100);

pub(in crate::broadcaster) struct Crossing {
    relay: Arc<Relay>,
    user: UserId,
    /// The channel that it is with now.
    channel: u64,
    epoch: u64,
    /// Up to here it has the log.
    through: u64,
    /// What it has seen besides.
    seen: Vec<Seen>,
    ready: VecDeque<Result<Arc<Frame>, Gap>>,
    /// What the engine is asked for.
    asked: Option<oneshot::Receiver<Option<Fetched>>>,
    /// How many notices of gaps it has seen, or been told that it may have lost.
    notices: u64,
}

impl Crossing {
    pub(in crate::broadcaster) fn new(
        relay: Arc<Relay>,
        user: UserId,
        from: &LastEventId,
        welcome: &Welcome,
    ) -> Self {
        let mut crossing = Self {
            relay,
            user,
            channel: welcome.channel,
            epoch: 0,
            through: 0,
            seen: Vec::new(),
            ready: VecDeque::new(),
            asked: None,
            notices: welcome.notices,
        };
        if let Some(position) = from.position().filter(|_| welcome.asks) {
            crossing.epoch = position.epoch;
            crossing.through = position.offset;
            let own = position.own.filter(|_| !position.settled);
            crossing.seen = own.into_iter().chain(from.also()).collect();
            crossing.seen.retain(|seen| seen.count > 0);
            crossing.ask();
        }
        crossing
    }

    /// Asks the engine for what comes next.
    fn ask(&mut self) {
        let (answer, asked) = oneshot::channel();
        self.asked = Some(asked);
        let relay = self.relay.clone();
        let user = self.user.clone();
        let after = crate::backplane::Position {
            epoch: self.epoch,
            offset: self.through,
        };
        // From now: the client may have taken its time for what it got before.
        let until = Instant::now() + self.relay.patience;
        self.relay.runtime.spawn(async move {
            let mut answer = answer;
            let fetched = tokio::select! {
                fetched = fetch(&relay, &user, after, until) => fetched,
                // The client has gone.
                () = answer.closed() => return,
            };
            drop(answer.send(fetched));
        });
    }

    fn take(&mut self, fetched: Option<Fetched>) {
        let Some(fetched) = fetched else {
            self.ready.push_back(Err(Gap {
                reason: GapReason::Backplane,
                missed: None,
                position: None,
            }));
            return;
        };
        let missed = match fetched.missing {
            Missing::Nothing => None,
            // What it has seen may be among them.
            Missing::Messages(missed) => Some(Some(missed).filter(|_| self.seen.is_empty())),
            Missing::Unknown => Some(None),
        };
        if let Some(missed) = missed {
            self.ready.push_back(Err(Gap {
                reason: GapReason::Evicted,
                missed,
                position: None,
            }));
        }
        let has_more = !fetched.is_complete();
        for (position, body) in fetched.messages {
            // What is none of ours was counted when it came.
            if let Some(envelope) = Envelope::parse(body) {
                let item = self.read(position.offset, envelope);
                self.ready.extend(item);
            }
        }
        self.through = self.through.max(fetched.through.offset);
        if has_more {
            self.ask();
        }
    }

    /// Makes of what the log has what the client gets, if it has not seen it.
    fn read(&mut self, offset: u64, envelope: Envelope) -> Option<Result<Arc<Frame>, Gap>> {
        let Envelope { first, what, .. } = envelope;
        self.through = offset;
        if self.has_seen(first) {
            self.settle(first);
            return None;
        }
        // What it is told later by the channel as well, it has seen then.
        if let Some(first) = first.filter(|first| first.channel == self.channel) {
            self.see(first);
        }
        let id = Position {
            epoch: self.epoch,
            offset,
            own: None,
            settled: false,
        };
        Some(match what {
            What::Lost(missed) => Err(Gap {
                reason: GapReason::Backplane,
                missed,
                position: Some(id).filter(|_| self.seen.is_empty()),
            }),
            What::Event { note, draft, .. } => {
                let tag = self.relay.tag(&draft, note.as_deref());
                let ids = Ids {
                    epoch: self.epoch,
                    channel: None,
                };
                let frame = draft.with_ids(Some(ids)).with_tag(tag).finish(Some(id));
                Ok(Arc::new(match self.seen.is_empty() {
                    true => frame,
                    false => frame.under(&self.composite(offset, &self.seen).to_id()),
                }))
            }
        })
    }

    fn composite<'a>(&self, offset: u64, seen: &'a [Seen]) -> Composite<'a> {
        Composite {
            epoch: self.epoch,
            offset,
            seen,
        }
    }

    fn has_seen(&self, first: Option<Seen>) -> bool {
        first.is_some_and(|first| {
            let is_it = |seen: &Seen| seen.channel == first.channel && first.count <= seen.count;
            self.seen.iter().any(is_it)
        })
    }

    fn see(&mut self, first: Seen) {
        match self
            .seen
            .iter_mut()
            .find(|seen| seen.channel == first.channel)
        {
            Some(seen) => seen.count = seen.count.max(first.count),
            None => self.seen.push(first),
        }
    }

    /// The log has all that the client has seen of a channel: that need not be remembered. Of the channel here it must, for
    /// those events are still in it.
    fn settle(&mut self, first: Option<Seen>) {
        let Some(first) = first.filter(|first| first.channel != self.channel) else {
            return;
        };
        self.seen
            .retain(|seen| seen.channel != first.channel || seen.count > first.count);
    }

    /// The event under the id that says where this client is.
    fn stamp(&self, frame: Arc<Frame>) -> Arc<Frame> {
        if self.through == 0 && self.seen.is_empty() {
            return frame;
        }
        let Some(position) = frame.position() else {
            return frame;
        };
        let Some(own) = position.own.filter(|_| position.epoch == self.epoch) else {
            return frame;
        };
        let mut seen: Vec<Seen> = self.seen.clone();
        seen.retain(|seen| seen.channel != self.channel);
        if position.offset >= self.through && seen.is_empty() {
            return frame;
        }
        // What it has seen of the channel here comes last, so that it is the last to be left out.
        if !position.settled {
            seen.push(own);
        }
        let offset = position.offset.max(self.through);
        Arc::new(frame.under(&self.composite(offset, &seen).to_id()))
    }
}

async fn fetch(
    relay: &Relay,
    user: &UserId,
    after: crate::backplane::Position,
    until: Instant,
) -> Option<Fetched> {
    loop {
        match relay.backplane.fetch(user, after, CHUNK).await {
            Ok(fetched) if fetched.head.epoch != after.epoch => return None,
            Ok(fetched) => {
                let count = fetched.messages.len() as u64;
                relay.counters.fetched.add(count);
                return Some(fetched);
            }
            Err(error) if error.is_closed() || Instant::now() >= until => return None,
            Err(_) => sleep(RETRY).await,
        }
    }
}

impl Gate<Arc<Frame>> for Crossing {
    fn poll_before(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Arc<Frame>, Gap>>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Poll::Ready(Some(item));
            }
            let Some(asked) = &mut self.asked else {
                return Poll::Ready(None);
            };
            let Poll::Ready(fetched) = Pin::new(asked).poll(cx) else {
                return Poll::Pending;
            };
            self.asked = None;
            // A task that was dropped with its runtime has no answer.
            self.take(fetched.ok().flatten());
        }
    }

    fn widen(&mut self, gap: Gap, notices: u64) -> Gap {
        if notices <= self.notices {
            return gap;
        }
        self.notices = notices;
        Gap {
            missed: None,
            ..gap
        }
    }

    fn pass(&mut self, frame: Arc<Frame>) -> Pass<Arc<Frame>> {
        let (first, place, told) = (frame.first(), frame.place(), frame.told());
        if told.is_some() {
            self.notices += 1;
        }
        let is_read = place.is_some_and(|place| place <= self.through);
        let has_seen = is_read || self.has_seen(first);
        if place.is_some() {
            self.settle(first);
        }
        if has_seen {
            return Pass::Nothing;
        }
        let frame = self.stamp(frame);
        match told {
            None => Pass::Event(frame),
            Some((reason, missed)) => Pass::Gap(Gap {
                reason,
                missed,
                position: frame.position().filter(|position| position.own.is_some()),
            }),
        }
    }
}

impl fmt::Debug for Crossing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crossing")
            .field("channel", &self.channel)
            .field("through", &self.through)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}
