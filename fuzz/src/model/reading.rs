//! What a stream yields.

use super::{Model, Phase, Place, Restart, Why};
use crate::script::Policy;

/// A stream takes so many events out of a history in one go, and then has them whatever becomes of the history.
const HANDFUL: u64 = 32;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reason {
    Lagged,
    Evicted,
    Epoch,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gap {
    pub reason: Reason,
    pub missed: Option<u64>,
    pub place: Option<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Polled {
    Event { number: u64, place: Option<Place> },
    Gap(Gap),
    End,
    Pending,
}

impl Model {
    pub(super) fn place(&self, channel: usize, offset: u64) -> Option<Place> {
        self.settings
            .history
            .as_ref()
            .map(|_| Place { channel, offset })
    }

    /// Where a stream is that has yielded everything, so that its client may come back with that.
    pub fn stands(&self, number: usize) -> Option<Place> {
        let stream = &self.streams[&number];
        let channel = &self.channels[stream.channel];
        let has_read = stream.gap.is_none()
            && stream.handful.is_empty()
            && (stream.next, stream.live) == (channel.next(), channel.next());
        let place = self.place(stream.channel, stream.next - 1);
        place.filter(|_| has_read && stream.phase != Phase::Ended)
    }

    pub fn poll(&mut self, number: usize) -> Polled {
        let now = self.now;
        let stream = self.streams.get_mut(&number).expect("it was not dropped");
        if stream.deadline.is_some_and(|deadline| deadline <= now) {
            stream.end_for(Why::Overdue);
        }
        if let Some(gap) = stream.gap.take()
            && let Some(polled) = self.tell(number, gap)
        {
            return polled;
        }
        loop {
            let stream = self.streams.get_mut(&number).expect("it is there");
            if stream.last.is_some_and(|last| stream.done >= last) {
                stream.phase = Phase::Ended;
            }
            if stream.phase == Phase::Ended {
                return Polled::End;
            }
            if let Some(polled) = self.step(number) {
                return polled;
            }
            let stream = self.streams.get_mut(&number).expect("it is there");
            let channel = &self.channels[stream.channel];
            if stream.handful.is_empty() && stream.next == stream.end(channel) {
                if stream.phase == Phase::Open {
                    return Polled::Pending;
                }
                stream.phase = Phase::Ended;
            }
        }
    }

    /// One step towards the next item; `None` if there is none yet.
    fn step(&mut self, number: usize) -> Option<Polled> {
        let stream = self.streams.get_mut(&number).expect("it is there");
        let index = stream.channel;
        let channel = &self.channels[index];
        let end = stream.end(channel);
        if let Some(offset) = stream.handful.pop_front() {
            return Some(self.give(number, offset));
        }
        if stream.next < stream.live {
            return self.read_history(number);
        }
        if stream.live == end {
            return None;
        }
        // The ring has the last ones of those that are not read.
        let oldest = end.saturating_sub(self.settings.ring()).max(1);
        if stream.live >= oldest {
            let offset = stream.live;
            stream.live += 1;
            stream.next = stream.live;
            return Some(self.give(number, offset));
        }
        let missed = oldest - stream.live;
        stream.live = oldest;
        if self.settings.has_log() {
            return None;
        }
        stream.next = oldest;
        self.miss(
            number,
            Gap {
                reason: Reason::Lagged,
                missed: Some(missed),
                place: None,
            },
            true,
        )
    }

    fn give(&mut self, number: usize, offset: u64) -> Polled {
        self.get_done(number, 1);
        let stream = self.streams.get_mut(&number).expect("it is there");
        stream.knows = false;
        let channel = stream.channel;
        Polled::Event {
            number: self.channels[channel].sent[offset as usize - 1].number,
            place: self.place(channel, offset),
        }
    }

    /// The stream has yielded or missed so many events more.
    fn get_done(&mut self, number: usize, events: u64) {
        let stream = self.streams.get_mut(&number).expect("it is there");
        stream.done += events;
        if stream.phase == Phase::Finishing && stream.last.is_none() {
            let head = self.channels[stream.channel].sent.len() as u64;
            stream.last = Some(stream.done.max(head) + self.settings.ring());
        }
    }

    fn read_history(&mut self, number: usize) -> Option<Polled> {
        let index = self.streams[&number].channel;
        self.forget_old(index);
        let stream = self.streams.get_mut(&number).expect("it is there");
        let channel = &self.channels[index];
        let was_away = stream.next < stream.joined;
        let count = if was_away {
            &mut self.counted.replayed
        } else {
            &mut self.counted.healed
        };
        let end = if was_away { stream.joined } else { stream.live };
        let from = stream.next;
        if from >= channel.first {
            stream.next = end.min(from + HANDFUL);
            stream.handful = (from..stream.next).collect();
            *count += stream.handful.len() as u64;
            return None;
        }
        // Gone, but newer events may stand for them.
        stream.next = end.min(channel.first);
        let mut standing: Vec<u64> = Vec::new();
        let coalesces = stream.policy == Policy::Coalesce && self.settings.keys() > 0;
        if coalesces {
            let gone = from..stream.next;
            standing.extend(
                channel
                    .newest
                    .values()
                    .filter(|offset| gone.contains(offset)),
            );
            standing.sort_unstable();
        }
        *count += standing.len() as u64;
        let missed = stream.next - from - standing.len() as u64;
        let is_told = !(coalesces && channel.unaccounted < from);
        let before = standing.first().copied().unwrap_or(stream.next) - 1;
        stream.handful = standing.into();
        if missed == 0 {
            return None;
        }
        let reason = if was_away {
            Reason::Evicted
        } else {
            Reason::Lagged
        };
        let gap = Gap {
            reason,
            missed: Some(missed),
            place: self.place(index, before),
        };
        self.miss(number, gap, is_told)
    }

    fn miss(&mut self, number: usize, gap: Gap, is_told: bool) -> Option<Polled> {
        let missed = gap.missed.unwrap_or(0);
        self.get_done(number, missed);
        let stream = self.streams.get_mut(&number).expect("it is there");
        if gap.reason == Reason::Lagged {
            // These were broadcast after it began.
            stream.knows = false;
            stream.lagged += missed;
            self.channels[stream.channel].lagged += missed;
            self.counted.lagged += missed;
        } else {
            self.counted.evicted += missed;
        }
        if is_told {
            self.tell(number, gap)
        } else {
            None
        }
    }

    /// What the stream yields at a gap; `None` if it goes on, for a client that knows of it.
    fn tell(&mut self, number: usize, gap: Gap) -> Option<Polled> {
        let stream = self.streams.get_mut(&number).expect("it is there");
        match gap.reason {
            Reason::Lagged => self.counted.gaps_lagged += 1,
            Reason::Evicted => self.counted.gaps_evicted += 1,
            Reason::Epoch => self.counted.gaps_epoch += 1,
        }
        if stream.knows {
            return None;
        }
        if stream.policy == Policy::End {
            stream.phase = Phase::Ended;
            stream.restart = stream.has_id.then_some(Restart(gap.place));
            return Some(Polled::End);
        }
        if stream.policy == Policy::Disconnect && gap.reason == Reason::Lagged {
            stream.phase = Phase::Ended;
        }
        Some(Polled::Gap(gap))
    }

    /// Whether a stream that waits has something to wake up for.
    pub fn has_news(&self, stream: usize) -> bool {
        let stream = &self.streams[&stream];
        let is_over = stream.deadline.is_some_and(|deadline| deadline <= self.now);
        let has_events = stream.next < stream.end(&self.channels[stream.channel]);
        stream.phase != Phase::Open || is_over || has_events
    }
}
