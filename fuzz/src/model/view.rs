//! What can be seen from outside.

use super::{Channel, Model};
use crate::script::USERS;

/// What can be seen from outside at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    pub users: usize,
    pub away: usize,
    pub away_bytes: usize,
    pub history_bytes: usize,
    pub connections: usize,
    pub each: [UserView; USERS],
    pub counted: Counted,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct UserView {
    pub lagged: u64,
    /// Connection, age in milliseconds, lagged, behind.
    pub connections: Vec<(u8, u64, u64, u64)>,
}

/// What [`Stats`](tidings::Stats) count.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counted {
    pub shutting_down: u64,
    pub total_full: u64,
    pub user_full: u64,
    pub id_in_use: u64,
    pub behind: u64,
    pub overdue: u64,
    pub gaps_lagged: u64,
    pub gaps_evicted: u64,
    pub gaps_epoch: u64,
    pub lagged: u64,
    pub evicted: u64,
    pub healed: u64,
    pub replayed: u64,
    pub deliveries: u64,
}

impl Model {
    pub fn view(&self) -> View {
        let is_there = |channel: usize| {
            let is_read = self
                .streams
                .values()
                .any(|stream| stream.channel == channel);
            is_read || self.of_user[self.channels[channel].user] == Some(channel)
        };
        let all = (0..self.channels.len()).filter(|channel| is_there(*channel));
        View {
            users: self.of_user.iter().flatten().count() - self.away_users(),
            away: self.away_users(),
            away_bytes: self.away_bytes(),
            history_bytes: all.map(|channel| self.channels[channel].bytes()).sum(),
            connections: self.connections,
            each: self.of_user.map(|channel| match channel {
                None => UserView::default(),
                Some(channel) => self.user_view(&self.channels[channel]),
            }),
            counted: self.counted.clone(),
        }
    }

    fn user_view(&self, channel: &Channel) -> UserView {
        let info = |stream: &usize| {
            let stream = &self.streams[stream];
            let age = self.now - stream.since;
            (
                stream.connection,
                age,
                stream.lagged,
                stream.behind(channel),
            )
        };
        UserView {
            lagged: channel.lagged,
            connections: channel.members.values().map(info).collect(),
        }
    }
}
