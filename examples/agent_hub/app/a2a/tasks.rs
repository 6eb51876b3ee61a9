//! The last that is known of each task.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use tidings::protocol::a2a::{
    A2aEvent, StreamResponse, Task, TaskArtifactUpdateEvent, TaskStatusUpdateEvent,
};

/// Of each user. One too many takes the place of the oldest that has ended, or else of the oldest.
const MOST_TASKS: usize = 100;

/// Whose tasks are remembered. One too many takes the place of another one, whichever that is.
const MOST_USERS: usize = 10_000;

/// Of the artifacts of a task. What comes on top is sent, and not remembered.
const MOST_PARTS: usize = 1_000;

type TasksOfUser = VecDeque<Task>;

/// Each user's tasks, the oldest first, those that have ended among them: clients are told so.
///
/// One lock for all, and it is held while an event is sent, so that a client that looks at a task and then follows it
/// neither misses an event nor gets one that it has seen. A service with many users would have a lock for each.
#[derive(Default)]
pub(crate) struct Tasks(Mutex<HashMap<String, TasksOfUser>>);

impl Tasks {
    /// Sends an event, and does to its task what it says.
    pub(crate) fn update<T, E>(
        &self,
        user: &str,
        event: &A2aEvent,
        send: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let mut users = self.lock();
        let sent = send()?;
        if let (Some(response), Some(_)) = (event.response(), event.task_id()) {
            if users.len() >= MOST_USERS && !users.contains_key(user) {
                let other = users.keys().next().cloned();
                other.and_then(|other| users.remove(&other));
            }
            apply(users.entry(user.into()).or_default(), response);
        }
        Ok(sent)
    }

    /// Looks at a task. Nothing is sent meanwhile.
    pub(super) fn look<T>(&self, user: &str, id: &str, look: impl FnOnce(Option<&Task>) -> T) -> T {
        let users = self.lock();
        look(users.get(user).and_then(|tasks| find(tasks, id)))
    }

    pub(crate) fn get(&self, user: &str, id: &str) -> Option<Task> {
        self.look(user, id, |task| task.cloned())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, TasksOfUser>> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

fn find<'a>(tasks: &'a TasksOfUser, id: &str) -> Option<&'a Task> {
    tasks.iter().find(|task| task.id == id)
}

fn apply(tasks: &mut TasksOfUser, response: &StreamResponse) {
    match response {
        StreamResponse::Task(task) => match tasks.iter_mut().find(|known| known.id == task.id) {
            Some(known) => known.clone_from(task),
            None => add(tasks, task.clone()),
        },
        StreamResponse::StatusUpdate(update) => {
            let known = tasks.iter_mut().find(|task| task.id == update.task_id);
            match known {
                Some(task) if task.status.state.is_terminal() => {}
                Some(task) => task.status.clone_from(&update.status),
                None => add(tasks, begun_by(update)),
            }
        }
        StreamResponse::ArtifactUpdate(update) => {
            let known = tasks.iter_mut().find(|task| task.id == update.task_id);
            if let Some(task) = known.filter(|task| !task.status.state.is_terminal()) {
                add_artifact(task, update);
            }
        }
        StreamResponse::Message(_) => {}
    }
}

fn add(tasks: &mut TasksOfUser, task: Task) {
    if tasks.len() >= MOST_TASKS {
        let ended = tasks
            .iter()
            .position(|task| task.status.state.is_terminal());
        tasks.remove(ended.unwrap_or_default());
    }
    tasks.push_back(task);
}

/// What is known of a task of which only the status is.
fn begun_by(update: &TaskStatusUpdateEvent) -> Task {
    Task {
        id: update.task_id.clone(),
        context_id: update.context_id.clone(),
        status: update.status.clone(),
        artifacts: None,
        history: None,
        metadata: None,
    }
}

fn add_artifact(task: &mut Task, update: &TaskArtifactUpdateEvent) {
    let artifacts = task.artifacts.get_or_insert_default();
    let parts: usize = artifacts.iter().map(|artifact| artifact.parts.len()).sum();
    if parts + update.artifact.parts.len() > MOST_PARTS || artifacts.len() >= MOST_PARTS {
        return;
    }
    let known = artifacts
        .iter_mut()
        .find(|artifact| artifact.artifact_id == update.artifact.artifact_id);
    match known {
        Some(known) if update.append == Some(true) => {
            known.parts.extend_from_slice(&update.artifact.parts);
        }
        Some(known) => known.clone_from(&update.artifact),
        None => artifacts.push(update.artifact.clone()),
    }
}
