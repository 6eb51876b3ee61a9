//! Events, and what is kept of them.

use super::{Channel, Model, Phase, Sent, Stream};

/// What an event counts in a history besides its data: `data: `, its end, an id at its longest, and 192 more.
const OVERHEAD: usize = 6 + 2 + 42 + 192;

impl Model {
    /// Sends an event, and says how many streams it reaches.
    pub fn broadcast(&mut self, user: usize, number: u64, len: usize, key: Option<u8>) -> usize {
        let Some(index) = self.channel_to_send_to(user) else {
            return 0;
        };
        let channel = &mut self.channels[index];
        let sent = Sent {
            number,
            size: OVERHEAD + len,
            at: self.now,
        };
        channel.sent.push(sent);
        channel.note_key(key, self.settings.keys());
        self.keep_last(index);
        let reads = |stream: &&Stream| stream.channel == index && stream.phase != Phase::Ended;
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

    /// Makes room for the event that was sent last, or keeps nothing.
    fn keep_last(&mut self, index: usize) {
        let Some(history) = self.settings.history.clone() else {
            self.channels[index].first = self.channels[index].next();
            return;
        };
        let others: usize = {
            let is_other = |(i, channel): &(usize, &Channel)| *i != index && channel.away.is_some();
            let others = self.channels.iter().enumerate().filter(is_other);
            others.map(|(_, channel)| channel.bytes()).sum()
        };
        let channel = &mut self.channels[index];
        let room = match channel.away {
            Some(_) => history.bytes.min(history.away_bytes - others),
            None => history.bytes,
        };
        while channel.next() - channel.first > history.events as u64 || channel.bytes() > room {
            channel.first += 1;
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
    }
}

impl Channel {
    /// The offset of the next event.
    pub(super) fn next(&self) -> u64 {
        self.sent.len() as u64 + 1
    }

    pub(super) fn bytes(&self) -> usize {
        self.sent[self.first as usize - 1..]
            .iter()
            .map(|sent| sent.size)
            .sum()
    }

    /// Notes the newest event under its key, and forgets the key whose newest event is the oldest if these are too many.
    pub(super) fn note_key(&mut self, key: Option<u8>, cap: usize) {
        let offset = self.sent.len() as u64;
        match key {
            Some(key) if cap > 0 => self.newest.insert(key, offset),
            _ => {
                self.unaccounted = offset;
                None
            }
        };
        if self.newest.len() > cap {
            let oldest = self.newest.iter().min_by_key(|(_, offset)| **offset);
            let (key, offset) = oldest
                .map(|(key, offset)| (*key, *offset))
                .expect("too many");
            self.newest.remove(&key);
            self.unaccounted = self.unaccounted.max(offset);
        }
    }
}
