//! The faults of the engine in memory.

use tidings::UserId;
use tidings::backplane::{Cause, Event, Level};

use super::{InProcess, InProcessNode, Node, new_epoch};

impl InProcess {
    /// The engine stops, as by `kill -9`.
    pub fn stop(&self) {
        let mut state = self.state();
        state.is_up = false;
        state
            .nodes
            .iter()
            .for_each(|node| node.tell(Event::Interrupted));
    }

    /// The engine starts again, with what it had kept.
    pub fn start(&self) {
        let mut state = self.state();
        state.is_up = true;
        let reachable = state.nodes.iter_mut().filter(|node| !node.is_cut);
        reachable.for_each(Node::restore);
    }

    /// The engine starts again, with nothing.
    pub fn start_empty(&self) {
        self.start_without(usize::MAX);
    }

    /// The engine starts again from an older copy, which lacks this many of the last messages. The log has the same
    /// name and a new epoch: its next offsets were used before.
    pub fn start_without(&self, last: usize) {
        let mut state = self.state();
        state.position = state.position.saturating_sub(last as u64);
        state.epoch = new_epoch();
        let end = state.end();
        for log in state.logs.values_mut() {
            log.kept.retain(|(offset, _)| *offset <= end.offset);
            log.dropped.retain(|offset| *offset <= end.offset);
        }
        state.expired = state.expired.min(end.offset);
        state.ids.retain(|_, offset| *offset <= end.offset);
        if self.0.level == Level::Replayable {
            state
                .nodes
                .iter()
                .for_each(|node| node.tell(Event::Reset(end)));
        }
        drop(state);
        self.start();
    }

    /// Everything in the log has become too old and is dropped. The engine then no longer knows what it dropped: a
    /// client that resumes from before this may have missed events.
    pub fn expire(&self) {
        let mut state = self.state();
        state.logs.clear();
        state.expired = state.position;
    }

    /// The network between a node and the engine fails.
    pub fn cut(&self, node: &InProcessNode) {
        let mut state = self.state();
        state.nodes[node.index].is_cut = true;
        state.nodes[node.index].tell(Event::Interrupted);
    }

    /// The network between them works again.
    pub fn mend(&self, node: &InProcessNode) {
        let mut state = self.state();
        state.nodes[node.index].is_cut = false;
        if state.is_up {
            state.nodes[node.index].restore();
        }
    }

    /// The next `count` publications are accepted, but their publishers get no acknowledgement.
    pub fn lose_acknowledgements(&self, count: usize) {
        self.state().unacknowledged = count;
    }

    /// The next `count` messages are appended to the log but sent to no node: the leading server dies in between.
    /// Nothing says so; see [`change_leader`](Self::change_leader).
    pub fn lose_sends(&self, count: usize) {
        self.state().unsent = count;
    }

    /// Nodes learn that another server leads.
    pub fn change_leader(&self) {
        let state = self.state();
        let changed = Event::Changed {
            cause: Cause::Leader,
        };
        state
            .nodes
            .iter()
            .for_each(|node| node.tell(changed.clone()));
    }

    /// Messages of a user are refused from now on, or accepted again with `None`.
    pub fn refuse(&self, user: impl Into<UserId>, permanent: Option<bool>) {
        let mut state = self.state();
        match permanent {
            Some(permanent) => state.refused.insert(user.into(), permanent),
            None => state.refused.remove(&user.into()),
        };
    }

    /// A node may neither publish nor subscribe from now on. It stays connected.
    pub fn deny(&self, node: &InProcessNode) {
        let mut state = self.state();
        let node = &mut state.nodes[node.index];
        node.is_denied = true;
        node.unready = node.interest.iter().cloned().collect();
        node.tell_unheard();
    }

    /// It may do both again.
    pub fn allow(&self, node: &InProcessNode) {
        let mut state = self.state();
        let is_up = state.is_up;
        let node = &mut state.nodes[node.index];
        node.is_denied = false;
        if is_up && !node.is_cut {
            node.tell_ready();
        }
    }
}
