//! The last that is known of each task.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Mutex, MutexGuard};

use serde::Serialize;
use tidings::BroadcastError;
use tidings::protocol::a2a::{
    A2aEvent, StreamResponse, Task, TaskArtifactUpdateEvent, TaskState, TaskStatus,
};

/// Of each user. One too many takes the place of the oldest that has ended, or else of the oldest.
const MOST_TASKS: usize = 100;

/// Whose tasks are remembered. One too many takes the place of another one, whichever that is.
const MOST_USERS: usize = 1_000;

/// Of the artifacts of a task. What comes on top is sent, and not remembered.
const MOST_PARTS: usize = 1_000;

/// Of each user's tasks, as JSON; in memory it may be some twenty times as much. A task that is larger is remembered by its
/// status alone.
const MOST_BYTES: usize = 64 * 1024;

/// A task, and how large it is as JSON: its status, which is replaced, and what is added to.
struct Known {
    task: Task,
    status: usize,
    rest: usize,
}

type TasksOfUser = VecDeque<Known>;

/// Each user's tasks, the oldest first, those that have ended among them: clients are told so.
///
/// One lock for all, and it is held while an event is sent, so that a client that looks at a task and then follows it
/// neither misses an event nor gets one that it has seen. A service with many users would have a lock for each.
#[derive(Default)]
pub(crate) struct Tasks(Mutex<HashMap<String, TasksOfUser>>);

impl Tasks {
    /// Sends an event, and does to its task what it says. One of a task that has ended is not sent, and is answered with
    /// `None`: a late status would have clients believe that the task goes on. An event that only some streams got has
    /// happened to the task all the same.
    ///
    /// A stream of a task begins with the task, and clients know it by that. So before an event of a task that is not known
    /// the task itself is sent, as submitted. A hub knows the tasks whose events it has sent itself, not those of other hubs.
    pub(crate) fn update<T>(
        &self,
        user: &str,
        event: &A2aEvent,
        send: impl Fn(&A2aEvent) -> Result<T, BroadcastError>,
    ) -> Result<Option<T>, BroadcastError> {
        let of_task = event.response().and_then(|response| match response {
            StreamResponse::Task(task) => Some((response, None, &task.id)),
            StreamResponse::StatusUpdate(update) => {
                Some((response, Some(&update.context_id), &update.task_id))
            }
            StreamResponse::ArtifactUpdate(update) => {
                Some((response, Some(&update.context_id), &update.task_id))
            }
            StreamResponse::Message(_) => None,
        });
        let mut users = self.lock();
        let Some((response, context, id)) = of_task else {
            return send(event).map(Some);
        };
        let known = users.get(user).and_then(|tasks| find(tasks, id));
        let has_ended = known.is_some_and(|known| known.task.status.state.is_terminal());
        if has_ended {
            return Ok(None);
        }
        let first = context.filter(|_| known.is_none());
        let first = first.map(|context| begun(id, context));
        let first_sent = first.as_ref().map(|first| send(&first.clone().into()));
        let sent = send(event);
        if let Err(BroadcastError::Encode(_)) = sent {
            return sent.map(Some);
        }
        if users.len() >= MOST_USERS && !users.contains_key(user) {
            let other = users.keys().next().cloned();
            other.and_then(|other| users.remove(&other));
        }
        let tasks = users.entry(user.into()).or_default();
        tasks.extend(first.as_ref().map(Known::new));
        apply(tasks, id, response);
        first_sent.transpose()?;
        sent.map(Some)
    }

    /// Looks at a task. Nothing is sent meanwhile.
    pub(super) fn look<T>(&self, user: &str, id: &str, look: impl FnOnce(Option<&Task>) -> T) -> T {
        let users = self.lock();
        let known = users.get(user).and_then(|tasks| find(tasks, id));
        look(known.map(|known| &known.task))
    }

    pub(crate) fn get(&self, user: &str, id: &str) -> Option<Task> {
        self.look(user, id, |task| task.cloned())
    }

    pub(crate) fn has_ended(&self, user: &str, id: &str) -> bool {
        let has_ended = |task: &Task| task.status.state.is_terminal();
        self.look(user, id, |task| task.is_some_and(has_ended))
    }

    /// Forgets a task that has ended, so that another one can have its id.
    pub(crate) fn forget_ended(&self, user: &str, id: &str) {
        let is_it = |known: &Known| known.task.id == id && known.task.status.state.is_terminal();
        if let Some(tasks) = self.lock().get_mut(user) {
            tasks.retain(|known| !is_it(known));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, TasksOfUser>> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

fn find<'a>(tasks: &'a TasksOfUser, id: &str) -> Option<&'a Known> {
    tasks.iter().find(|known| known.task.id == id)
}

fn apply(tasks: &mut TasksOfUser, id: &str, response: &StreamResponse) {
    let known = tasks.iter_mut().find(|known| known.task.id == id);
    match (response, known) {
        (StreamResponse::Task(task), Some(known)) => *known = Known::new(task),
        (StreamResponse::Task(task), None) => tasks.push_back(Known::new(task)),
        (StreamResponse::StatusUpdate(update), Some(known)) => known.set_status(&update.status),
        (StreamResponse::ArtifactUpdate(update), Some(known)) => known.add_artifact(update),
        _ => {}
    }
    let bytes = |tasks: &TasksOfUser| tasks.iter().map(Known::bytes).sum::<usize>();
    while tasks.len() > MOST_TASKS || (tasks.len() > 1 && bytes(tasks) > MOST_BYTES) {
        let ended = |known: &Known| known.task.status.state.is_terminal();
        tasks.remove(tasks.iter().position(ended).unwrap_or_default());
    }
}

impl Known {
    fn new(task: &Task) -> Self {
        let all = bytes_of(task);
        let mut known = Self {
            task: begun(&task.id, &task.context_id),
            status: 0,
            rest: 0,
        };
        if all <= MOST_BYTES {
            known.task.clone_from(task);
            known.rest = all;
        } else {
            known.set_status(&task.status);
        }
        known
    }

    fn bytes(&self) -> usize {
        self.status + self.rest
    }

    /// A status whose message is too long is remembered without it.
    fn set_status(&mut self, status: &TaskStatus) {
        self.status = bytes_of(status);
        self.task.status.clone_from(status);
        if self.status > MOST_BYTES {
            self.task.status.message = None;
            self.status = bytes_of(&self.task.status);
        }
    }

    fn add_artifact(&mut self, update: &TaskArtifactUpdateEvent) {
        let bytes = bytes_of(&update.artifact);
        let artifacts = self.task.artifacts.get_or_insert_default();
        let parts: usize = artifacts.iter().map(|artifact| artifact.parts.len()).sum();
        let is_too_much = parts + update.artifact.parts.len() > MOST_PARTS
            || artifacts.len() >= MOST_PARTS
            || self.rest + bytes > MOST_BYTES;
        if is_too_much {
            return;
        }
        // Also where it takes the place of another one: that is no more than the truth.
        self.rest += bytes;
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
}

/// How long it is as JSON, without making that.
fn bytes_of(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    serde_json::to_writer(&mut count, value).expect("what was read can be written");
    count.0
}

/// A task of which nothing has been sent yet.
fn begun(id: &str, context: &str) -> Task {
    Task {
        id: id.into(),
        context_id: context.into(),
        status: TaskStatus {
            state: TaskState::Submitted,
            message: None,
            timestamp: None,
        },
        artifacts: None,
        history: None,
        metadata: None,
    }
}
