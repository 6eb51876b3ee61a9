//! The log: a stream of JetStream.
//!
//! All questions go to the server that leads the stream. A replica may lack what that one has confirmed already.

use std::cmp::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind, PublishErrorKind};
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, RawMessageErrorKind, Republish, RetentionPolicy, StorageType,
    Stream,
};
use async_nats::jetstream::{self, ErrorCode};
use tokio::time::timeout;

use super::error::ConnectError;
use super::settings::{Log as Settings, Storage};
use super::subjects::{Subjects, fnv1a};
use crate::backplane::{BackplaneError, Head, Message, Position, Published};

/// The log of one broadcaster.
#[derive(Debug)]
pub(super) struct Log {
    context: jetstream::Context,
    pub(super) stream: Stream<()>,
    wanted: Config,
    /// The newest place that is known.
    horizon: Mutex<Position>,
    limit: Duration,
}

impl Log {
    /// Finds the log, or makes it.
    pub(super) async fn open(
        client: Client,
        settings: &Settings,
        subjects: &Subjects,
        limit: Duration,
    ) -> Result<Self, ConnectError> {
        let context = jetstream::context::ContextBuilder::new()
            .timeout(limit)
            .ack_timeout(limit)
            .build(client);
        let wanted = config(settings, subjects);
        let stream = context
            .get_stream_no_info(&wanted.name)
            .await
            .map_err(|error| ConnectError::Log(error.into()))?;
        let info = find_or_make(&context, &wanted).await?;
        Ok(Self {
            context,
            stream,
            wanted,
            horizon: Mutex::new(end_of(&info)),
            limit,
        })
    }

    /// The newest place that is known.
    pub(super) fn horizon(&self) -> Position {
        *self.horizon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log is at least here.
    pub(super) fn advance(&self, to: Position) {
        let mut horizon = self.horizon.lock().unwrap_or_else(PoisonError::into_inner);
        if to.compare(*horizon).is_some_and(Ordering::is_gt) {
            *horizon = to;
        }
    }

    /// Looks whether it is the same log still, and makes one if there is none any more. Where it is, if it is another.
    pub(super) async fn refresh(&self) -> Result<Option<Position>, BackplaneError> {
        let info = self
            .limited(find_or_make(&self.context, &self.wanted))
            .await?;
        let end = end_of(&info.map_err(BackplaneError::other)?);
        if end.epoch == self.horizon().epoch {
            self.advance(end);
            return Ok(None);
        }
        *self.horizon.lock().unwrap_or_else(PoisonError::into_inner) = end;
        Ok(Some(end))
    }

    /// Where the log of each subject ends.
    pub(super) async fn heads(
        &self,
        subjects: impl Iterator<Item = String>,
    ) -> Result<Vec<Head>, BackplaneError> {
        let info = self.limited(self.stream.get_info()).await?;
        let end = end_of(&info.map_err(BackplaneError::other)?);
        let mut heads = Vec::new();
        for subject in subjects {
            let newest = self.last(&subject).await?;
            let offset = newest.map_or(0, |message| message.sequence);
            heads.push(Head {
                newest: Position { offset, ..end },
                through: end.offset.max(offset),
            });
        }
        Ok(heads)
    }

    /// The position of the oldest message that there is of anybody, or would be.
    pub(super) async fn oldest(&self) -> Result<u64, BackplaneError> {
        let info = self.limited(self.stream.get_info()).await?;
        let state = info.map_err(BackplaneError::other)?.state;
        Ok(match state.messages {
            0 => state.last_sequence.saturating_add(1),
            _ => state.first_sequence,
        })
    }

    /// Waits until the server that leads the stream has answered. Whatever this client told its own server before reached
    /// that one first, by the same way.
    pub(super) async fn barrier(&self) -> Result<(), BackplaneError> {
        self.first().await.map(drop)
    }

    /// Publishes, all at once, and waits for all.
    pub(super) async fn publish(
        &self,
        messages: &[Message],
        subjects: &Subjects,
    ) -> Result<Vec<Published>, BackplaneError> {
        let before = self.horizon();
        let mut acks = Vec::with_capacity(messages.len());
        for message in messages {
            let publish = PublishMessage::build()
                .payload(message.body.clone())
                .message_id(format!("{:032x}", message.id))
                .expected_stream(&self.wanted.name);
            let sent = self
                .context
                .send_publish(subjects.log(&message.user), publish)
                .await;
            acks.push(sent.map_err(publish_error)?.into_future());
        }
        let mut published = Vec::with_capacity(messages.len());
        for ack in acks {
            published.push(match ack.await {
                Ok(ack) => {
                    let position = Position {
                        offset: ack.sequence,
                        ..before
                    };
                    self.advance(position);
                    Published::Accepted(Some(position))
                }
                Err(error) => Published::Unknown(publish_error(error)),
            });
        }
        Ok(published)
    }

    /// The oldest message that there is of anybody.
    pub(super) async fn first(&self) -> Result<Option<StreamMessage>, BackplaneError> {
        self.next(">", 0).await
    }

    /// The oldest message of a subject at this place or behind it.
    pub(super) async fn next(
        &self,
        subject: &str,
        at: u64,
    ) -> Result<Option<StreamMessage>, BackplaneError> {
        let asked = self.stream.raw_message_builder().sequence(at);
        found(
            self.limited(asked.next_by_subject(subject.to_owned()).send())
                .await?,
        )
    }

    /// The message at a place.
    pub(super) async fn at(&self, at: u64) -> Result<Option<StreamMessage>, BackplaneError> {
        found(self.limited(self.stream.get_raw_message(at)).await?)
    }

    /// The newest message of a subject.
    pub(super) async fn last(
        &self,
        subject: &str,
    ) -> Result<Option<StreamMessage>, BackplaneError> {
        found(
            self.limited(self.stream.get_last_raw_message_by_subject(subject))
                .await?,
        )
    }

    /// The server answers in time, or it is not there.
    pub(super) async fn limited<T>(
        &self,
        answer: impl Future<Output = T>,
    ) -> Result<T, BackplaneError> {
        timeout(self.limit, answer)
            .await
            .map_err(|_| BackplaneError::unavailable())
    }

    pub(super) fn name(&self) -> &str {
        &self.wanted.name
    }

    /// How many of a user's messages it keeps.
    pub(super) fn max_per_user(&self) -> u64 {
        self.wanted.max_messages_per_subject.unsigned_abs()
    }
}

async fn find_or_make(context: &jetstream::Context, wanted: &Config) -> Result<Info, ConnectError> {
    let other = |error: async_nats::Error| ConnectError::Log(error);
    match context.get_stream(&wanted.name).await {
        Ok(stream) => {
            let info = stream.cached_info().clone();
            same(&info.config, wanted)?;
            Ok(info)
        }
        Err(error) if is_missing(&error.kind()) => {
            // Another node may make it at the same time, which is no error: it makes the same.
            let made = context.create_stream(wanted.clone()).await;
            let stream = made.map_err(|error| match error.kind() {
                CreateStreamErrorKind::JetStream(error)
                    if error.error_code() == ErrorCode::STREAM_NAME_EXIST =>
                {
                    ConnectError::Contradiction("another was made meanwhile")
                }
                _ => other(error.into()),
            })?;
            Ok(stream.cached_info().clone())
        }
        Err(error) => Err(other(error.into())),
    }
}

fn config(settings: &Settings, subjects: &Subjects) -> Config {
    Config {
        name: settings.stream.clone(),
        subjects: vec![subjects.all_log()],
        storage: match settings.storage {
            Storage::File => StorageType::File,
            Storage::Memory => StorageType::Memory,
        },
        num_replicas: settings.replicas,
        max_age: settings.max_age,
        max_messages: -1,
        max_bytes: -1,
        max_message_size: -1,
        max_consumers: -1,
        max_messages_per_subject: settings.max_per_user.into(),
        discard: DiscardPolicy::Old,
        retention: RetentionPolicy::Limits,
        duplicate_window: settings.duplicate_window,
        republish: Some(Republish {
            source: subjects.all_log(),
            destination: subjects.all_live(),
            headers_only: false,
        }),
        ..Config::default()
    }
}

/// What an operator may have changed stays: a bound in bytes, a description, who may delete. What the promises rest on does not.
fn same(found: &Config, wanted: &Config) -> Result<(), ConnectError> {
    let republishes = |config: &Config| {
        let republish = config.republish.as_ref()?;
        let ends = (republish.source.clone(), republish.destination.clone());
        (!republish.headers_only).then_some(ends)
    };
    let contradiction = [
        (found.subjects != wanted.subjects, "its subjects"),
        (
            republishes(found) != republishes(wanted),
            "what it republishes",
        ),
        (found.storage != wanted.storage, "its storage"),
        (found.num_replicas != wanted.num_replicas, "its replicas"),
        (found.max_age != wanted.max_age, "its age limit"),
        (
            found.max_messages_per_subject != wanted.max_messages_per_subject,
            "how much it keeps of a user",
        ),
        (
            found.duplicate_window != wanted.duplicate_window,
            "its window for duplicates",
        ),
        (found.retention != wanted.retention, "its retention"),
        (found.discard != wanted.discard, "what it discards"),
        (found.no_ack || found.sealed, "that it confirms messages"),
    ];
    match contradiction.into_iter().find(|(differs, _)| *differs) {
        Some((_, what)) => Err(ConnectError::Contradiction(what)),
        None => Ok(()),
    }
}

/// Every node computes the same epoch. A log that is made anew is made at another time.
fn end_of(info: &Info) -> Position {
    let identity = format!(
        "{} {}",
        info.config.name,
        info.created.unix_timestamp_nanos()
    );
    Position {
        epoch: fnv1a(identity.as_bytes()),
        offset: info.state.last_sequence,
    }
}

fn is_missing(error: &GetStreamErrorKind) -> bool {
    matches!(error, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn found(
    answer: Result<StreamMessage, async_nats::jetstream::stream::RawMessageError>,
) -> Result<Option<StreamMessage>, BackplaneError> {
    match answer {
        Ok(message) => Ok(Some(message)),
        Err(error) => match error.kind() {
            RawMessageErrorKind::NoMessageFound => Ok(None),
            RawMessageErrorKind::JetStream(error)
                if error.error_code() == ErrorCode::NO_MESSAGE_FOUND =>
            {
                Ok(None)
            }
            _ => Err(BackplaneError::other(error)),
        },
    }
}

fn publish_error(error: async_nats::jetstream::context::PublishError) -> BackplaneError {
    match error.kind() {
        PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => BackplaneError::unavailable(),
        _ => BackplaneError::other(error),
    }
}
