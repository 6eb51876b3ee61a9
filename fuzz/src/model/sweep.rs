//! The sweep.

use super::{Model, Why};
use crate::script::USERS;

impl Model {
    /// Takes out who is too far behind for too long or overdue, forgets who was away for too long and what is too old. Users are looked
    /// at one after another in no order that is promised: `None` if the order decides who finds room.
    pub fn sweep(&mut self) -> Option<usize> {
        const ORDERS: [[usize; USERS]; 6] = [
            [0, 1, 2],
            [0, 2, 1],
            [1, 0, 2],
            [1, 2, 0],
            [2, 0, 1],
            [2, 1, 0],
        ];
        let mut outcomes = ORDERS.iter().map(|order| {
            let mut swept = self.clone();
            let count: usize = order.iter().map(|user| swept.sweep_user(*user)).sum();
            (swept, count)
        });
        let (swept, count) = outcomes.next().expect("there are six");
        if outcomes.any(|(other, _)| other != swept) {
            return None;
        }
        *self = swept;
        Some(count)
    }

    fn sweep_user(&mut self, user: usize) -> usize {
        let Some(index) = self.of_user[user] else {
            return 0;
        };
        let (may_be_behind, for_millis) = self.settings.patience();
        let mut count = 0;
        for number in self.channels[index].everybody() {
            let now = self.now;
            let stream = self.streams.get_mut(&number).expect("a member");
            let is_behind = stream.behind(&self.channels[index]) > may_be_behind;
            let since = if is_behind {
                stream.behind_since.or(Some(now))
            } else {
                None
            };
            stream.behind_since = since;
            let is_stuck = since.is_some_and(|since| now - since >= for_millis);
            let is_overdue = stream.deadline.is_some_and(|deadline| deadline <= now);
            if is_stuck || is_overdue {
                stream.end_for(if is_stuck { Why::Behind } else { Why::Overdue });
                count += 1;
                self.cut(number);
            }
        }
        self.forget_old(index);
        let linger = self
            .settings
            .history
            .as_ref()
            .map_or(0, |history| history.linger);
        let away = self.channels[index].away;
        if away.is_some_and(|since| self.now - since >= linger) {
            self.close(index);
        }
        count
    }
}
