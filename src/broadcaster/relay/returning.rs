//! A client that is behind what its channel keeps: it gets what the log has after its id, then what its channel sends.

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
use super::calls::guarded;
use crate::backplane::{Envelope, Fetched, Missing, What};
use crate::channel::{Reading, Seam, Welcome};
use crate::frame::Frame;
use crate::gap::{Gap, GapReason};
use crate::id::{Position, UserId};
use crate::subscription::{Gate, Pass};

/// Messages that are read at a time.
pub(super) const CHUNK: usize = 256;
/// How long it waits before it asks again.
const RETRY: Duration = Duration::from_millis(100);

/// Stands in front of each stream. Gaps that the channel sends to all streams become this one's.
pub(in crate::broadcaster) struct Returning {
    /// How many notices of gaps it has seen, or been told that it may have lost.
    notices: u64,
    /// For a client that came back with an id of the log.
    seam: Option<Box<Reader>>,
}

struct Reader {
    relay: Arc<Relay>,
    user: UserId,
    seam: Seam,
    ready: VecDeque<Result<Arc<Frame>, Gap>>,
    /// What the engine is asked for.
    asked: Option<oneshot::Receiver<Option<Fetched>>>,
}

impl Returning {
    pub(in crate::broadcaster) fn new(
        relay: Arc<Relay>,
        user: UserId,
        from: Option<Position>,
        welcome: &Welcome,
    ) -> Self {
        let seam = from.zip(welcome.log).map(|(from, joined)| {
            let mut reader = Reader {
                relay,
                user,
                seam: Seam::new(from, joined),
                ready: VecDeque::new(),
                asked: None,
            };
            if !reader.seam.is_closed() {
                reader.ask();
            }
            Box::new(reader)
        });
        Self {
            notices: welcome.notices,
            seam,
        }
    }

    /// Whether the client has what is at this place.
    fn has(&self, place: Option<Position>) -> bool {
        let seam = self.seam.as_ref().zip(place);
        seam.is_some_and(|(reader, place)| !reader.seam.is_before(place))
    }
}

impl Reader {
    /// Asks the engine for what comes next.
    fn ask(&mut self) {
        let (mut answer, asked) = oneshot::channel();
        self.asked = Some(asked);
        let (relay, user) = (self.relay.clone(), self.user.clone());
        let after = self.seam.after();
        self.relay.runtime.spawn(async move {
            let fetched = tokio::select! {
                fetched = relay.read(&user, after) => fetched,
                // The client has gone.
                () = answer.closed() => return,
            };
            drop(answer.send(fetched));
        });
    }

    fn read(&mut self, fetched: Option<Fetched>) {
        let Some(fetched) = fetched else {
            return self.gap(GapReason::Backplane, None);
        };
        match fetched.missing {
            Missing::Nothing => {}
            Missing::Messages(missed) => self.gap(GapReason::Evicted, Some(missed)),
            Missing::Unknown => self.gap(GapReason::Evicted, None),
        }
        for (position, body) in fetched.messages {
            // What is none of ours was counted when it came.
            if let Some(envelope) = Envelope::parse(body) {
                self.ready.push_back(self.relay.open(envelope, position));
            }
        }
        if self.seam.read(fetched.through) != Reading::Done {
            self.ask();
        }
    }

    fn gap(&mut self, reason: GapReason, missed: Option<u64>) {
        self.ready.push_back(Err(Gap {
            reason,
            missed,
            position: None,
        }));
    }
}

impl Relay {
    /// What the log has after a place: something, or that there is nothing. `None` if the log is another one, or has not
    /// answered for too long.
    ///
    /// As many are read at a time as there are permits, in the order in which they asked. The engine may be slow because
    /// very many ask: an answer to anybody renews the patience of all.
    async fn read(&self, user: &UserId, after: Position) -> Option<Fetched> {
        let began = Instant::now();
        loop {
            let permit = self.readers.acquire().await.ok()?;
            let fetched = guarded(self.backplane.fetch(user, after, CHUNK)).await;
            drop(permit);
            match fetched {
                Ok(fetched) if fetched.head.epoch != after.epoch => return None,
                Ok(fetched) => {
                    self.answered();
                    let is_further = fetched.through.offset > after.offset;
                    if is_further {
                        self.counters.fetched.add(fetched.messages.len() as u64);
                        return Some(fetched);
                    }
                    // Not yet: the caller knows that there is more. Not the engine's silence either, but that of one server.
                    if began.elapsed() >= self.patience {
                        return None;
                    }
                }
                Err(error) if error.is_closed() => return None,
                Err(_) if self.is_silent_since(began) >= self.patience => return None,
                Err(_) => {}
            }
            sleep(RETRY).await;
        }
    }

    /// What a message of the log is for a stream that reads it there.
    fn open(&self, envelope: Envelope, position: Position) -> Result<Arc<Frame>, Gap> {
        match envelope.what {
            What::Lost(missed) => Err(Gap {
                reason: GapReason::Backplane,
                missed,
                position: Some(position),
            }),
            What::Event { note, draft, .. } => {
                let tag = self.tag(&draft, note.as_deref());
                let draft = draft.with_epoch(Some(position.epoch)).with_tag(tag);
                Ok(Arc::new(draft.finish(Some(position))))
            }
        }
    }
}

impl Gate<Arc<Frame>> for Returning {
    fn poll_before(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Arc<Frame>, Gap>>> {
        let Some(reader) = &mut self.seam else {
            return Poll::Ready(None);
        };
        loop {
            if let Some(item) = reader.ready.pop_front() {
                return Poll::Ready(Some(item));
            }
            let Some(asked) = &mut reader.asked else {
                return Poll::Ready(None);
            };
            let Poll::Ready(fetched) = Pin::new(asked).poll(cx) else {
                return Poll::Pending;
            };
            reader.asked = None;
            // A task that was dropped with its runtime has no answer.
            reader.read(fetched.ok().flatten());
        }
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
        let Some(reader) = &self.seam else {
            return Some(channel);
        };
        let has_all = reader.asked.is_none() && reader.ready.is_empty();
        has_all.then(|| reader.seam.or(channel))
    }

    fn pass(&mut self, frame: Arc<Frame>) -> Pass<Arc<Frame>> {
        let told = frame.told();
        self.notices += u64::from(told.is_some());
        if self.has(frame.place()) {
            return Pass::Nothing;
        }
        match told {
            None => Pass::Event(frame),
            Some((reason, missed)) => Pass::Gap(Gap {
                reason,
                missed,
                position: frame.place(),
            }),
        }
    }
}

impl fmt::Debug for Returning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Returning")
            .field("seam", &self.seam.as_ref().map(|reader| &reader.seam))
            .finish_non_exhaustive()
    }
}
