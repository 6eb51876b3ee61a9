//! Events, and what is kept of them.

use super::{Channel, Model, Phase, Sent, Stream};

/// What an event counts besides its data: `data: `, its end, and 192 more.
const OVERHEAD: usize = 6 + 2 + 192;
/// In a history it has an id, and counts that at its longest.
const ID: usize = 42;
/// What a key counts: one byte, and 256 more.
const KEY: usize = 1 + 256;

impl Model {
    /// Sends an event, and says how many streams it reaches.
    pub fn broadcast(&mut self, user: usize, number: u64, len: usize, key: Option<u8>) -> usize {
        let Some(index) = self.channel_to_send_to(user) else {
            return 0;
        };
        let id = self.settings.history.as_ref().map_or(0, |_| ID);
        let channel = &mut self.channels[index];
        let sent = Sent {
            number,
            size: OVERHEAD + len + id,
            at: self.now,
        };
        channel.sent.push(sent);
        self.keep_last(index, key);
        let reads = |stream: &&Stream| {
            stream.channel == index && stream.phase != Phase::Ended && stream.until.is_none()
        };
        let reached = self.streams.values().filter(reads).count();
        self.counted.deliveries += reached as u64;
        reached
    }

    /// An event that cannot be encoded. A user who is not there is given a history all the same, where that is asked for.
    pub fn broadcast_broken(&mut self, user: usize) -> bool {
        self.channel_to_send_to(user).is_some()
    }

    fn channel_to_send_to(&mut self, user: usize) -> Option<usize> {
        if self.of_user[user].is_none() {
            let history = self.settings.history.as_ref();
            let history = history.filter(|history| history.keeps_for_unconnected)?;
            if self.away_users() >= history.away_users {
                return None;
            }
            let channel = self.new_channel(user);
            self.channels[channel].away = Some(self.now);
            self.channels[channel].is_unclaimed = true;
        }
        self.of_user[user]
    }

    /// Makes room for the event that was sent last, oldest first, or keeps nothing of it.
    fn keep_last(&mut self, index: usize, key: Option<u8>) {
        let history = self.settings.history.clone();
        let others: usize = {
            let is_other = |(i, channel): &(usize, &Channel)| *i != index && channel.away.is_some();
            let others = self.channels.iter().enumerate().filter(is_other);
            others.map(|(_, channel)| channel.bytes()).sum()
        };
        let keys = self.settings.keys();
        let channel = &mut self.channels[index];
        let most = history.as_ref().map_or(usize::MAX, |history| history.bytes);
        let room = match (&history, channel.away) {
            (Some(history), Some(_)) => most.min(history.away_bytes - others),
            _ => most,
        };
        let window = history.map_or(0, |history| history.events as u64);
        let last = channel.next() - 1;
        let key = key.filter(|_| keys > 0);
        let mut cost = channel.sent[last as usize - 1].size;
        if let Some(key) = key {
            channel.newest.remove(&key);
            cost += KEY;
        }
        let is_kept = (window > 0 || key.is_some()) && cost <= most;
        if is_kept {
            channel.first = channel.first.max((last + 1).saturating_sub(window.max(1)));
            if key.is_some() && channel.newest.len() == keys {
                channel.forget_key();
            }
            while channel.bytes_before(last) + cost > room && channel.forget_oldest(last) {}
        }
        if !is_kept || channel.bytes_before(last) + cost > room {
            channel.first = last + 1;
            channel.unaccounted = last;
            return;
        }
        match key {
            Some(key) => drop(channel.newest.insert(key, last)),
            None => channel.unaccounted = last,
        }
        if window == 0 {
            channel.first = last + 1;
        }
    }

    pub(super) fn forget_old(&mut self, channel: usize) {
        let age = self
            .settings
            .history
            .as_ref()
            .and_then(|history| history.age);
        let (now, channel) = (self.now, &mut self.channels[channel]);
        let is_old = |sent: &Sent| age.is_some_and(|age| now - sent.at > age);
        while channel
            .sent
            .get(channel.first as usize - 1)
            .is_some_and(is_old)
        {
            channel.first += 1;
        }
        while channel
            .oldest_held()
            .is_some_and(|offset| is_old(&channel.sent[offset as usize - 1]))
        {
            channel.forget_key();
        }
    }
}

impl Channel {
    /// The streams that are in, those that were drained among them.
    pub(super) fn everybody(&self) -> Vec<usize> {
        let members = self.members.values();
        members.chain(&self.leaving).copied().collect()
    }

    /// The offset of the next event.
    pub(super) fn next(&self) -> u64 {
        self.sent.len() as u64 + 1
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes_before(self.next())
    }

    /// What the events before this one take: those of the window, those that are older and the newest of their keys, and
    /// the keys.
    fn bytes_before(&self, end: u64) -> usize {
        let size = |offset: u64| self.sent[offset as usize - 1].size;
        let held = self.newest.values().filter(|offset| **offset < self.first);
        let held: usize = held.map(|offset| size(*offset)).sum();
        let window: usize = (self.first..end).map(size).sum();
        window + held + KEY * self.newest.len()
    }

    fn oldest_held(&self) -> Option<u64> {
        let oldest = self.newest.values().min().copied();
        oldest.filter(|offset| *offset < self.first)
    }

    /// Forgets the oldest event before this one, or takes it out of the window; `false` if there is none.
    pub(super) fn forget_oldest(&mut self, end: u64) -> bool {
        if self.oldest_held().is_some() {
            self.forget_key();
        } else if self.first < end {
            self.first += 1;
        } else {
            return false;
        }
        true
    }

    /// Forgets the key whose newest event is the oldest.
    fn forget_key(&mut self) {
        let oldest = self.newest.iter().min_by_key(|(_, offset)| **offset);
        let (key, offset) = oldest
            .map(|(key, offset)| (*key, *offset))
            .expect("there is one");
        self.newest.remove(&key);
        self.unaccounted = self.unaccounted.max(offset);
    }
}
