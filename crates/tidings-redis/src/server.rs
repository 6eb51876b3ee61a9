//! The questions that a node asks the server, and what it learns from the answers.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult, Script, Value};
use tidings::UserId;
use tidings::backplane::{Message, Position};
use tokio::sync::Notify;

use super::error::{Fault, fault};
use super::known::{Known, Seen, random};
use super::settings::{Log, Settings};
use super::wire::Heard;

pub(super) struct Server {
    pub(super) settings: Settings,
    /// The number of the database.
    database: i64,
    /// Of the node's own channel.
    node: u64,
    /// While there is a connection to a log that has been looked at.
    connection: Mutex<Option<(u64, MultiplexedConnection)>>,
    known: Mutex<Known>,
    process: Mutex<Process>,
    scripts: Scripts,
    /// The connection is of no use, or the log has to be looked at.
    pub(super) trouble: Notify,
    /// Messages were dropped, since the broadcaster did not take them.
    pub(super) is_slow: AtomicBool,
    /// The connections up to this are of no use.
    broken: Mutex<u64>,
}

/// The server's process, as long as this node may ask for it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Process {
    /// Redis draws it when its process starts.
    pub(super) run: String,
    /// How many keys it has dropped since then.
    pub(super) evicted: u64,
}

struct Scripts {
    append: Script,
    fetch: Script,
    heads: Script,
    look: Script,
}

/// What a script answers: the log's epoch and head, and the rest.
pub(super) struct Answer {
    pub(super) end: Position,
    /// Whether it is of the log that this node knows.
    pub(super) is_current: bool,
    pub(super) rest: Vec<Vec<u8>>,
}

impl Server {
    pub(super) fn new(settings: Settings, database: i64) -> Self {
        let script = |own| Script::new(&[include_str!("common.lua"), own].concat());
        Self {
            settings,
            database,
            node: random(),
            connection: Mutex::default(),
            known: Mutex::default(),
            process: Mutex::default(),
            scripts: Scripts {
                append: script(include_str!("append.lua")),
                fetch: script(include_str!("fetch.lua")),
                heads: script(include_str!("heads.lua")),
                look: script(include_str!("look.lua")),
            },
            trouble: Notify::new(),
            is_slow: AtomicBool::new(false),
            broken: Mutex::default(),
        }
    }

    pub(super) fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    pub(super) fn connection(&self) -> Option<(u64, MultiplexedConnection)> {
        lock(&self.connection).clone()
    }

    pub(super) fn set_connection(&self, connection: Option<(u64, MultiplexedConnection)>) {
        *lock(&self.connection) = connection;
    }

    /// What it was before.
    pub(super) fn set_process(&self, process: Process) -> Process {
        std::mem::replace(&mut lock(&self.process), process)
    }

    /// A connection has failed.
    pub(super) fn give_up(&self, number: u64) {
        let mut broken = lock(&self.broken);
        *broken = number.max(*broken);
        drop(broken);
        self.trouble.notify_one();
    }

    pub(super) fn is_broken(&self, number: u64) -> bool {
        *lock(&self.broken) >= number
    }

    fn base(&self) -> String {
        format!("{{{}}}:", self.settings.scope)
    }

    /// What all channels begin with. Pub/sub is one for all databases of a server, so the names of channels have the number,
    /// unless it is 0.
    fn topic(&self) -> String {
        match self.database {
            0 => self.base(),
            database => format!("{}{database}:", self.base()),
        }
    }

    pub(super) fn channel(&self, user: &UserId) -> Vec<u8> {
        format!("{}u:{}", self.topic(), user.as_str()).into_bytes()
    }

    /// Whose channel it is.
    pub(super) fn user(&self, channel: &str) -> Option<UserId> {
        let rest = channel.strip_prefix(&self.topic())?;
        rest.strip_prefix("u:").map(UserId::from)
    }

    pub(super) fn own_channel(&self) -> String {
        format!("{}n:{:016x}", self.topic(), self.node)
    }

    fn log(&self) -> Log {
        self.settings.log.clone().unwrap_or_default()
    }

    async fn ask<const N: usize>(
        &self,
        script: &Script,
        connection: &mut MultiplexedConnection,
        renounced: u64,
        own: [&[u8]; N],
        users: &[UserId],
    ) -> Result<Answer, RedisError> {
        let log = self.log();
        let (end, newest) = {
            let known = self.known();
            (known.horizon(), known.newest())
        };
        // Of no time: the script compares nothing.
        let newest = newest.unwrap_or(Seen {
            offset: 0,
            id: 0,
            until: 0,
        });
        let process = lock(&self.process).clone();
        let mut call = script.key([self.base().as_bytes(), b"log"].concat());
        call.arg(self.base())
            .arg(format!("{:016x}", random()))
            .arg(format!("{renounced:016x}"))
            .arg(log.max_age.as_millis() as u64)
            .arg(process.run)
            .arg(process.evicted)
            .arg(if log.is_durable { "durable" } else { "" })
            .arg(format!("{:016x}", end.epoch))
            .arg(end.offset)
            .arg(newest.offset)
            .arg(format!("{:032x}", newest.id))
            .arg(newest.until);
        for arg in own {
            call.arg(arg);
        }
        for user in users {
            call.arg(user.as_str());
        }
        let mut answer: Vec<Vec<u8>> = call.invoke_async(connection).await?;
        let odd = || {
            RedisError::from((
                redis::ErrorKind::UnexpectedReturnType,
                "an odd answer of a script",
            ))
        };
        if answer.len() < 2 {
            return Err(odd());
        }
        let rest = answer.split_off(2);
        let epoch = std::str::from_utf8(&answer[0]).ok();
        let epoch = epoch.and_then(|epoch| u64::from_str_radix(epoch, 16).ok());
        let epoch = epoch.filter(|epoch| *epoch > 0).ok_or_else(odd)?;
        let offset = number(&answer[1]);
        let end = Position { epoch, offset };
        let mut known = self.known();
        let resets = known.resets;
        let is_current = known.learn(epoch, offset);
        if known.resets != resets || !is_current {
            self.trouble.notify_one();
        }
        Ok(Answer {
            end,
            is_current,
            rest,
        })
    }

    /// Whether the log is still the one that this node knows. If not, or if it is one that is over, it becomes another one.
    pub(super) async fn look(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), RedisError> {
        let mut renounced = 0;
        for _ in 0..3 {
            let answer = self
                .ask(&self.scripts.look, connection, renounced, [], &[])
                .await?;
            if answer.is_current {
                return Ok(());
            }
            renounced = answer.end.epoch;
        }
        Ok(())
    }

    /// Appends and publishes a message. Its place, unless the answer is of a log that is over.
    pub(super) async fn append(
        &self,
        mut connection: MultiplexedConnection,
        message: &Message,
    ) -> Result<Option<Position>, RedisError> {
        let log = self.log();
        let (max, window) = (
            log.max_per_user.to_string(),
            log.duplicate_window.as_millis().to_string(),
        );
        let id = format!("{:032x}", message.id);
        let channel = self.channel(&message.user);
        let own: [&[u8]; 6] = [
            max.as_bytes(),
            window.as_bytes(),
            id.as_bytes(),
            message.user.as_str().as_bytes(),
            &channel,
            &message.body,
        ];
        let answer = self
            .ask(&self.scripts.append, &mut connection, 0, own, &[])
            .await?;
        let at = |index| {
            answer
                .rest
                .get(index)
                .map_or(0, |text: &Vec<u8>| number(text))
        };
        let (offset, until) = (at(0), at(1));
        if !answer.is_current || offset == 0 {
            return Ok(None);
        }
        let id = message.id;
        self.known()
            .see(answer.end.epoch, Seen { offset, id, until });
        Ok(Some(Position {
            offset,
            ..answer.end
        }))
    }

    /// Publishes messages that are not kept, in this order. The answer to each, unless the server is a replica: then only some nodes
    /// have them.
    pub(super) async fn publish(
        &self,
        mut connection: MultiplexedConnection,
        messages: impl Iterator<Item = &Message>,
    ) -> Result<Vec<RedisResult<Value>>, RedisError> {
        // The client takes a pipeline as one. Commands of their own wait for room in its queue, and overtake each other there.
        let mut publish = redis::pipe();
        publish.ignore_errors();
        for message in messages {
            publish
                .cmd("PUBLISH")
                .arg(self.channel(&message.user))
                .arg(Heard::plain(&message.body));
        }
        if publish.is_empty() {
            return Ok(Vec::new());
        }
        // A replica would publish as well, to whoever is connected to it. It refuses what writes, also where there is nothing.
        publish
            .cmd("DEL")
            .arg([self.base().as_bytes(), b"none"].concat());
        let mut answers: Vec<RedisResult<Value>> = publish.query_async(&mut connection).await?;
        match answers.pop() {
            Some(Err(error)) if fault(&error) == Fault::Elsewhere => Err(error),
            _ => Ok(answers),
        }
    }

    pub(super) async fn fetch(
        &self,
        mut connection: MultiplexedConnection,
        user: &UserId,
        after: u64,
        limit: usize,
    ) -> Result<Answer, RedisError> {
        let (after, limit) = (after.to_string(), limit.to_string());
        let own = [user.as_str().as_bytes(), after.as_bytes(), limit.as_bytes()];
        self.ask(&self.scripts.fetch, &mut connection, 0, own, &[])
            .await
    }

    pub(super) async fn heads(
        &self,
        mut connection: MultiplexedConnection,
        users: &[UserId],
    ) -> Result<Answer, RedisError> {
        self.ask(&self.scripts.heads, &mut connection, 0, [], users)
            .await
    }
}

/// What a script wrote in digits; zero if it did not.
pub(super) fn number(text: &[u8]) -> u64 {
    let text = std::str::from_utf8(text).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics inside.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
