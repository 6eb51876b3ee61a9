//! The last that is known of each task.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde::Serialize;
use tidings::BroadcastError;
use tidings::protocol::a2a::{
    A2aEvent, Part, PartContent, StreamResponse, Task, TaskArtifactUpdateEvent, TaskState,
    TaskStatus,
};
use tokio::time::Instant;

/// Tasks of each user. For one more, the oldest that has ended is forgotten; without one, it is refused.
const MOST_TASKS: usize = 100;

/// Bytes of each user's tasks, as JSON with an allowance for each task and part; in memory they may be some twenty times as
/// many. For more, ended tasks are forgotten, the oldest first; without one, only the status of the task that grows is kept.
const MOST_OF_USER: usize = 1024 * 1024;

/// The same of all users' tasks together.
const MOST_IN_ALL: usize = 16 * 1024 * 1024;

/// How long an ended task is remembered.
const LINGER: Duration = Duration::from_secs(60 * 60);

/// What a task and a part of an artifact take beside their JSON.
const OF_TASK: usize = 1024;
const OF_PART: usize = size_of::<Part>();

/// A task, and what is counted of it: its status, which is replaced, and the rest, which grows.
pub(super) struct Known {
    task: Task,
    status: usize,
    rest: usize,
    /// Whether the task has all that was sent of it. One that has become too large has its state alone.
    is_whole: bool,
    ended: Option<End>,
}

/// When a task ended, and a number that makes it unique.
type End = (Instant, u64);

#[derive(Default)]
struct All {
    /// Each user's tasks, the oldest first.
    users: HashMap<String, Vec<Known>>,
    /// Those that have ended, by user and id.
    ended: BTreeMap<End, (String, String)>,
    /// The number of the last that has ended.
    last: u64,
    bytes: usize,
}

/// Why an event of a task was not sent to every stream.
#[derive(Debug)]
pub(crate) enum Unsent {
    /// A late status would have clients believe that the task goes on.
    Ended,
    /// There are too many tasks that have not ended.
    Full,
    Failed(BroadcastError),
}

impl From<BroadcastError> for Unsent {
    fn from(error: BroadcastError) -> Self {
        Self::Failed(error)
    }
}

/// Each user's tasks, and those that ended a while ago: clients ask for them. A task that has not ended is never forgotten.
///
/// One lock for all, and it is held while an event is sent, so that a client that looks at a task and then follows it
/// neither misses an event nor gets one that it has seen. A service with many users would have a lock for each.
#[derive(Default)]
pub(crate) struct Tasks(Mutex<All>);

impl Tasks {
    /// Sends an event, and does to its task what it says. An event that only some streams got has happened to the task all
    /// the same. `may_begin` allows a new task beyond the limit of a user's tasks: the agent has a limit of its own.
    ///
    /// A stream of a task begins with the task, and clients know it by that. So before an event of a task that is not known
    /// the task itself is sent, as submitted. A hub knows the tasks whose events it has sent itself, not those of other hubs.
    pub(crate) fn update<T>(
        &self,
        user: &str,
        event: &A2aEvent,
        may_begin: bool,
        send: impl Fn(&A2aEvent) -> Result<T, BroadcastError>,
    ) -> Result<T, Unsent> {
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
        let mut all = self.lock();
        let Some((response, context, id)) = of_task else {
            return Ok(send(event)?);
        };
        let (is_new, has_ended) = match all.find(user, id) {
            Some(known) => (false, known.ended.is_some()),
            None => (true, false),
        };
        if has_ended {
            return Err(Unsent::Ended);
        }
        if is_new && !all.make_room(user) && !may_begin {
            return Err(Unsent::Full);
        }
        let first = context.filter(|_| is_new);
        let first = first.map(|context| begun(id, context));
        let first_sent = first.map(|first| send(&first.into()));
        let sent = send(event);
        if let Err(BroadcastError::Encode(_)) = sent {
            return Ok(sent?);
        }
        all.apply(user, id, response);
        first_sent.transpose()?;
        Ok(sent?)
    }

    /// Looks at a task. Nothing is sent meanwhile.
    pub(super) fn look<T>(
        &self,
        user: &str,
        id: &str,
        look: impl FnOnce(Option<&Known>) -> T,
    ) -> T {
        let mut all = self.lock();
        all.forget_old();
        look(all.find(user, id))
    }

    pub(crate) fn has_ended(&self, user: &str, id: &str) -> bool {
        self.look(user, id, |known| {
            known.is_some_and(|known| known.ended.is_some())
        })
    }

    /// Forgets a task that has ended, so that another one can have its id.
    pub(crate) fn forget_ended(&self, user: &str, id: &str) {
        let mut all = self.lock();
        let end = all.find(user, id).and_then(|known| known.ended);
        end.into_iter().for_each(|end| all.forget(end));
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

impl All {
    fn find(&self, user: &str, id: &str) -> Option<&Known> {
        let mut tasks = self.users.get(user)?.iter();
        tasks.find(|known| known.task.id == id)
    }

    /// Forgets a task that has ended.
    fn forget(&mut self, end: End) {
        let Some((user, id)) = self.ended.remove(&end) else {
            return;
        };
        let Some(tasks) = self.users.get_mut(&user) else {
            return;
        };
        if let Some(at) = tasks.iter().position(|known| known.task.id == id) {
            self.bytes -= tasks.remove(at).bytes();
        }
        if tasks.is_empty() {
            self.users.remove(&user);
        }
    }

    fn forget_old(&mut self) {
        while let Some((&end, _)) = self.ended.first_key_value() {
            if end.0.elapsed() < LINGER {
                return;
            }
            self.forget(end);
        }
    }

    /// Makes room for another task of the user, if there can be any.
    fn make_room(&mut self, user: &str) -> bool {
        self.forget_old();
        let count = |all: &Self| all.users.get(user).map_or(0, Vec::len);
        while count(self) >= MOST_TASKS {
            let Some(end) = self.oldest_ended_of(user) else {
                return false;
            };
            self.forget(end);
        }
        while self.bytes + OF_TASK > MOST_IN_ALL {
            let Some((&end, _)) = self.ended.first_key_value() else {
                return false;
            };
            self.forget(end);
        }
        true
    }

    fn oldest_ended_of(&self, user: &str) -> Option<End> {
        let tasks = self.users.get(user)?;
        tasks.iter().filter_map(|known| known.ended).min()
    }

    fn apply(&mut self, user: &str, id: &str, response: &StreamResponse) {
        let tasks = self.users.entry(user.into()).or_default();
        let at = tasks.iter().position(|known| known.task.id == id);
        let at = at.unwrap_or_else(|| {
            tasks.push(Known::new(begun(id, context_of(response))));
            self.bytes += tasks[tasks.len() - 1].bytes();
            tasks.len() - 1
        });
        let known = &mut tasks[at];
        let before = known.bytes();
        match response {
            StreamResponse::Task(task) => *known = Known::new(task.clone()),
            StreamResponse::StatusUpdate(update) => known.set_status(&update.status),
            StreamResponse::ArtifactUpdate(update) => known.add_artifact(update),
            StreamResponse::Message(_) => {}
        }
        self.bytes = self.bytes + known.bytes() - before;
        self.shrink(user, id);
        let known = self.users.get_mut(user).and_then(|tasks| {
            let mut tasks = tasks.iter_mut();
            tasks.find(|known| known.task.id == id)
        });
        if let Some(known) = known.filter(|known| known.task.status.state.is_terminal()) {
            self.last += 1;
            let end = (Instant::now(), self.last);
            known.ended = Some(end);
            self.ended.insert(end, (user.into(), id.into()));
        }
    }

    /// Keeps to the limits of bytes after this task of the user has grown.
    fn shrink(&mut self, user: &str, id: &str) {
        loop {
            let tasks = &self.users[user];
            let of_user = tasks.iter().map(Known::bytes).sum::<usize>();
            let end = if of_user > MOST_OF_USER {
                self.oldest_ended_of(user)
            } else if self.bytes > MOST_IN_ALL {
                self.ended.keys().next().copied()
            } else {
                return;
            };
            let Some(end) = end else { break };
            self.forget(end);
        }
        let mut tasks = self.users.get_mut(user).into_iter().flatten();
        if let Some(known) = tasks.find(|known| known.task.id == id) {
            self.bytes -= known.bytes();
            known.keep_state_only();
            self.bytes += known.bytes();
        }
    }
}

fn context_of(response: &StreamResponse) -> &str {
    match response {
        StreamResponse::Task(task) => &task.context_id,
        StreamResponse::StatusUpdate(update) => &update.context_id,
        StreamResponse::ArtifactUpdate(update) => &update.context_id,
        StreamResponse::Message(_) => "",
    }
}

impl Known {
    fn new(task: Task) -> Self {
        let status = bytes_of(&task.status);
        let artifacts = task.artifacts.iter().flatten();
        let parts: usize = artifacts.map(|artifact| artifact.parts.len()).sum();
        Self {
            status,
            rest: bytes_of(&task) - status + parts * OF_PART,
            task,
            is_whole: true,
            ended: None,
        }
    }

    /// The task, which may have its state alone.
    pub(super) fn task(&self) -> &Task {
        &self.task
    }

    /// The task with all that was sent of it, unless that is too much to be kept.
    pub(super) fn whole(&self) -> Option<&Task> {
        self.is_whole.then_some(&self.task)
    }

    fn bytes(&self) -> usize {
        OF_TASK + self.status + self.rest
    }

    fn set_status(&mut self, status: &TaskStatus) {
        self.task.status.clone_from(status);
        if !self.is_whole {
            self.task.status.message = None;
        }
        self.status = bytes_of(&self.task.status);
    }

    fn keep_state_only(&mut self) {
        let mut task = begun(&self.task.id, &self.task.context_id);
        task.status.state = self.task.status.state.clone();
        task.status.timestamp = self.task.status.timestamp;
        *self = Self {
            is_whole: false,
            ..Self::new(task)
        };
    }

    fn add_artifact(&mut self, update: &TaskArtifactUpdateEvent) {
        if !self.is_whole {
            return;
        }
        let artifacts = self.task.artifacts.get_or_insert_default();
        let known = artifacts
            .iter_mut()
            .find(|artifact| artifact.artifact_id == update.artifact.artifact_id);
        match known {
            Some(known) if update.append == Some(true) => {
                for part in &update.artifact.parts {
                    self.rest += append(&mut known.parts, part);
                }
                return;
            }
            Some(known) => known.clone_from(&update.artifact),
            None => artifacts.push(update.artifact.clone()),
        }
        let task = std::mem::replace(&mut self.task, begun("", ""));
        *self = Self::new(task);
    }
}

/// Appends a part, text to the text before it, and returns what it takes.
fn append(parts: &mut Vec<Part>, part: &Part) -> usize {
    if let (Some(last), PartContent::Text(text)) = (parts.last_mut(), &part.content) {
        let is_alike = last.filename == part.filename
            && last.media_type == part.media_type
            && last.metadata == part.metadata;
        if let (true, PartContent::Text(before)) = (is_alike, &mut last.content) {
            before.push_str(text);
            return bytes_of(text);
        }
    }
    parts.push(part.clone());
    bytes_of(part) + OF_PART
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
