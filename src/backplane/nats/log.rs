//! The log: a stream of JetStream.
//!
//! All questions go to the server that leads the stream. A replica may lack what that one has confirmed already.

use std::cmp::Ordering;
use std::future::{IntoFuture, poll_fn};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::{Config, Info, RawMessageErrorKind, Stream};
use async_nats::jetstream::{self, ErrorCode};
use futures_core::Stream as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::error::ConnectError;
use super::settings::Log as Settings;
use super::signals::Signals;
use super::stream::{Epoch, Servers, config, end_of, find_or_make, servers_of};
use super::subjects::Subjects;
use crate::backplane::{BackplaneError, Head, Message, Position, Published};

/// How many heads are asked for at the same time.
const AT_ONCE: usize = 64;

/// The log of one broadcaster.
#[derive(Debug)]
pub(super) struct Log {
    context: jetstream::Context,
    stream: Stream<()>,
    wanted: Config,
    known: Mutex<Known>,
    limit: Duration,
}

/// What is known of the stream.
#[derive(Debug)]
struct Known {
    /// The newest place. It has moved on since, but never back.
    horizon: Position,
    /// The least that was kept of each user, since this node has looked: what was dropped under it is dropped still.
    per_user: i64,
    /// What an operator has set otherwise than this node would have, as it was warned about last.
    edited: Option<String>,
    /// The server that leads the stream, and which of the others follow it.
    servers: Servers,
}

/// What a look at the stream has shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    Same,
    /// Another server leads it, or one of its servers has come or gone.
    OtherServers,
    /// It is another log, which ends here.
    OtherLog(Position),
    /// It is none of ours any more, and why.
    Contradiction(String),
}

impl Log {
    /// Finds the log, or makes it.
    pub(super) async fn open(
        client: Client,
        settings: &Settings,
        subjects: &Subjects,
        limit: Duration,
    ) -> Result<Self, ConnectError> {
        let context = jetstream::context::ContextBuilder::new();
        let context = match &settings.domain {
            Some(domain) => context.domain(domain.as_str()),
            None => context.api_prefix("$JS.API"),
        };
        let context = context.timeout(limit).ack_timeout(limit).build(client);
        let wanted = config(settings, subjects);
        let stream = context
            .get_stream_no_info(&wanted.name)
            .await
            .map_err(|error| ConnectError::Log(error.into()))?;
        let info = find_or_make(&context, &wanted).await?;
        let log = Self {
            context,
            stream,
            known: Mutex::new(Known {
                horizon: end_of(&info),
                per_user: wanted.max_messages_per_subject,
                edited: None,
                servers: servers_of(&info),
            }),
            wanted,
            limit,
        };
        log.adopt(&info);
        Ok(log)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing panics inside.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest place that is known.
    pub(super) fn horizon(&self) -> Position {
        self.known().horizon
    }

    /// The log is at least here.
    pub(super) fn advance(&self, to: Position) {
        let horizon = &mut self.known().horizon;
        if to.compare(*horizon).is_some_and(Ordering::is_gt) {
            *horizon = to;
        }
    }

    /// Takes over what an operator has changed and may change, and warns about it once.
    fn adopt(&self, info: &Info) {
        let (found, wanted) = (&info.config, &self.wanted);
        let changes = [
            ("replicas", found.num_replicas != wanted.num_replicas),
            ("age limit", found.max_age != wanted.max_age),
            (
                "number of messages of each user",
                found.max_messages_per_subject != wanted.max_messages_per_subject,
            ),
            (
                "window for duplicates",
                found.duplicate_window != wanted.duplicate_window,
            ),
        ];
        let changes = changes.iter().filter(|(_, differs)| *differs);
        let changes: Vec<&str> = changes.map(|(what, _)| *what).collect();
        let changes = (!changes.is_empty()).then(|| changes.join(", "));
        let mut known = self.known();
        if found.max_messages_per_subject > 0 {
            known.per_user = known.per_user.min(found.max_messages_per_subject);
        }
        if known.edited != changes {
            if let Some(changes) = &changes {
                tracing::warn!(
                    stream = found.name.as_str(),
                    changes = changes.as_str(),
                    "the stream has other settings than this node; those of the stream hold"
                );
            }
            known.edited = changes;
        }
    }

    /// Looks whether it is the same log still, and makes one if there is none any more.
    pub(super) async fn look(&self) -> Result<Look, BackplaneError> {
        let before = self.horizon();
        let info = self
            .limited(find_or_make(&self.context, &self.wanted))
            .await?;
        let mut info = match info {
            Err(error @ ConnectError::Contradiction(_)) => {
                return Ok(Look::Contradiction(error.to_string()));
            }
            info => info.map_err(BackplaneError::other)?,
        };
        self.adopt(&info);
        let mut end = end_of(&info);
        if end.compare(before).is_some_and(Ordering::is_lt) {
            // The stream lacks what it had: its numbers are used again, so it is another log.
            info = self.limited(self.begin_anew(info)).await??;
            end = end_of(&info);
        }
        let servers = servers_of(&info);
        let mut known = self.known();
        let others = std::mem::replace(&mut known.servers, servers) != servers_of(&info);
        if end.epoch != known.horizon.epoch {
            known.horizon = end;
            return Ok(Look::OtherLog(end));
        }
        if end.offset > known.horizon.offset {
            known.horizon = end;
        }
        Ok(match others {
            true => Look::OtherServers,
            false => Look::Same,
        })
    }

    /// Gives the stream another epoch. Every node that finds it too short writes the same one.
    async fn begin_anew(&self, info: Info) -> Result<Info, BackplaneError> {
        let mut config = info.config;
        config.description = Some(Epoch::of(&config).next_description(&config));
        tracing::warn!(
            stream = config.name.as_str(),
            "the stream lacks messages that it had: it is another log from now on"
        );
        self.context
            .update_stream(config)
            .await
            .map_err(BackplaneError::other)
    }

    /// Where the log of each subject ends.
    pub(super) async fn heads(
        &self,
        subjects: impl Iterator<Item = String>,
    ) -> Result<Vec<Head>, BackplaneError> {
        let end = end_of(&self.info().await?);
        let mut subjects = subjects.enumerate();
        let mut asking = JoinSet::new();
        let mut heads = Vec::new();
        loop {
            while asking.len() < AT_ONCE {
                let Some((number, subject)) = subjects.next() else {
                    break;
                };
                heads.push(Head {
                    newest: Position { offset: 0, ..end },
                    through: end.offset,
                });
                let (stream, limit) = (self.stream.clone(), self.limit);
                asking.spawn(async move {
                    let last = stream.get_last_raw_message_by_subject(&subject);
                    let last = timeout(limit, last).await;
                    let last = last.map_err(|_| BackplaneError::unavailable());
                    (number, last.and_then(found))
                });
            }
            let Some(answer) = asking.join_next().await else {
                return Ok(heads);
            };
            let (number, last) = answer.map_err(BackplaneError::other)?;
            if let Some(message) = last? {
                let head: &mut Head = &mut heads[number];
                head.newest.offset = message.sequence;
                head.through = head.through.max(message.sequence);
            }
        }
    }

    async fn info(&self) -> Result<Info, BackplaneError> {
        let info = self.limited(self.stream.get_info()).await?;
        info.map_err(BackplaneError::other)
    }

    /// The position of the oldest message that there is of anybody, or would be.
    pub(super) async fn oldest(&self) -> Result<u64, BackplaneError> {
        let state = self.info().await?.state;
        Ok(match state.messages {
            0 => state.last_sequence.saturating_add(1),
            _ => state.first_sequence,
        })
    }

    /// How many messages it keeps of a subject.
    pub(super) async fn count(&self, subject: &str) -> Result<u64, BackplaneError> {
        let counted = self
            .limited(self.stream.info_with_subjects(subject))
            .await?;
        let mut counted = counted.map_err(BackplaneError::other)?;
        let first = self.limited(poll_fn(|cx| Pin::new(&mut counted).poll_next(cx)));
        match first.await? {
            None => Ok(0),
            Some(counted) => {
                let (_, count) = counted.map_err(BackplaneError::other)?;
                Ok(count as u64)
            }
        }
    }

    /// Waits until the server that leads the stream has answered. Whatever this client told its own server before reached
    /// that one first, by the same way.
    pub(super) async fn barrier(&self) -> Result<(), BackplaneError> {
        self.next(">", 0).await.map(drop)
    }

    /// Publishes all together, and waits for the outcome of each.
    pub(super) async fn publish(
        &self,
        messages: &[Message],
        subjects: &Subjects,
        signals: &Signals,
        max_body: usize,
    ) -> Result<Vec<Published>, BackplaneError> {
        let (before, since) = (self.horizon(), Instant::now());
        let mut acks = Vec::with_capacity(messages.len());
        for message in messages {
            let subject = subjects.log(&message.user);
            if message.body.len() > max_body {
                // The server would close the connection for it.
                acks.push((subject, None));
                continue;
            }
            let publish = PublishMessage::build()
                .payload(message.body.clone())
                .message_id(format!("{:032x}", message.id))
                .expected_stream(&self.wanted.name);
            let sent = self.context.send_publish(subject.clone(), publish).await;
            // One that the client does not send has no effect on the others.
            acks.push((subject, Some(sent.map(IntoFuture::into_future))));
        }
        let mut published = Vec::with_capacity(messages.len());
        for (subject, ack) in acks {
            let outcome = async {
                match ack {
                    None => refused("the message is larger than the server takes"),
                    Some(Err(error)) => outcome(error),
                    Some(Ok(ack)) => match ack.await {
                        Ok(ack) => {
                            let offset = ack.sequence;
                            let position = Position { offset, ..before };
                            self.advance(position);
                            Published::Accepted(Some(position))
                        }
                        Err(error) => outcome(error),
                    },
                }
            };
            published.push(tokio::select! {
                biased;
                outcome = outcome => outcome,
                // No acknowledgement will come.
                () = signals.wait_denied(&subject, since) => refused("this node may not publish to the log"),
            });
        }
        Ok(published)
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

    /// How many of a user's messages it keeps at least.
    pub(super) fn max_per_user(&self) -> u64 {
        self.known().per_user.unsigned_abs()
    }
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

fn refused(reason: &'static str) -> Published {
    Published::Refused {
        permanent: true,
        reason: BackplaneError::other(reason),
    }
}

/// What an error says of a message.
fn outcome(error: async_nats::jetstream::context::PublishError) -> Published {
    let kind = error.kind();
    let source = std::error::Error::source(&error);
    let code = source
        .and_then(|source| source.downcast_ref::<jetstream::Error>())
        .map(jetstream::Error::error_code);
    let permanent = matches!(
        code,
        Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM)
    );
    match kind {
        PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => {
            Published::Unknown(BackplaneError::unavailable())
        }
        // Nobody answers for the stream, or the server says what is wrong: it does not have the message.
        PublishErrorKind::StreamNotFound => Published::Refused {
            permanent: false,
            reason: BackplaneError::other(error),
        },
        _ if code.is_some() => Published::Refused {
            permanent,
            reason: BackplaneError::other(error),
        },
        _ => Published::Unknown(BackplaneError::other(error)),
    }
}
