//! The log: a stream of JetStream.
//!
//! All questions go to the server that leads the stream. A replica may lack what that one has confirmed already, and so may a
//! server that has begun to lead or is about to end. So a question about the stream follows the others, and all answers count
//! only if [`Known`] vouches for the server that answered it. Limit: only the answer to that question names a server. If one
//! that no longer leads answers a question before it, and the known leader this one, the wrong answer counts.

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

use super::batch::Batches;
use super::error::ConnectError;
use super::known::{End, Expected, Known, Mark, has_leader};
use super::settings::Log as Settings;
use super::signals::Signals;
use super::stream::{Epoch, config, end_of, find_or_make};
use super::subjects::Subjects;
use tidings::backplane::{BackplaneError, Cause, Head, Message, Position, Published};

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
    client: Client,
    pub(super) batches: Batches,
}

/// What a look at the stream has shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    Same,
    /// Messages may not have arrived: another server leads it, or one of its servers has come or gone.
    Changed(Cause),
    /// It is too short, and it may be the server that is behind. Nothing is read from it until that is known.
    Behind,
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
        let prefix = match &settings.domain {
            Some(domain) => format!("$JS.{domain}.API"),
            None => "$JS.API".to_owned(),
        };
        let context = context.api_prefix(prefix.as_str());
        let context = context.timeout(limit).ack_timeout(limit);
        let context = context.build(client.clone());
        let wanted = config(settings, subjects);
        let stream = context
            .get_stream_no_info(&wanted.name)
            .await
            .map_err(|error| ConnectError::Log(error.into()))?;
        let info = find_or_make(&context, &wanted).await?;
        if !has_leader(&info) {
            return Err(ConnectError::Log("nobody leads the stream".into()));
        }
        let log = Self {
            context,
            stream,
            known: Mutex::new(Known::new(&info, &wanted)),
            batches: Batches::new(format!("{prefix}.DIRECT.GET.{}", wanted.name)),
            wanted,
            limit,
            client,
        };
        log.adopt(&info);
        Ok(log)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing panics inside.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The newest place that is known.
    pub(super) fn horizon(&self) -> Position {
        self.known().newest().position
    }

    /// The log is at least here, where there is what has this mark.
    pub(super) fn advance(&self, to: Position, mark: impl FnOnce() -> Mark) {
        self.known().advance(to, mark);
    }

    /// Something does not fit: the next look is a closer one.
    pub(super) fn question(&self) {
        self.known().question();
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
        known.duplicate_window = known.duplicate_window.min(found.duplicate_window);
        if known.edited != changes {
            if let Some(changes) = &changes {
                tracing::warn!(
                    stream = found.name.as_str(),
                    changes = changes.as_str(),
                    "the stream's settings differ from this node's; the stream's apply"
                );
            }
            known.edited = changes;
        }
    }

    /// Looks whether it is the same log still, and makes one if there is none any more.
    pub(super) async fn look(&self) -> Result<Look, BackplaneError> {
        let expected = self.known().expect();
        let look = self.compare(&expected).await;
        if matches!(look, Err(_) | Ok(Look::Contradiction(_))) {
            self.known().fail();
        }
        look
    }

    async fn compare(&self, expected: &Expected) -> Result<Look, BackplaneError> {
        let info = self
            .limited(find_or_make(&self.context, &self.wanted))
            .await?;
        let mut info = match info {
            Err(error @ ConnectError::Contradiction(_)) => {
                return Ok(Look::Contradiction(error.to_string()));
            }
            info => info.map_err(BackplaneError::other)?,
        };
        let judged = self.known().judge(expected, &info, Instant::now());
        let lacks_something = match judged {
            End::Behind => return Ok(Look::Behind),
            End::Another => false,
            End::Short => true,
            End::Plausible => self.is_other(expected, false).await?,
            End::Questioned => self.is_other(expected, true).await?,
        };
        if lacks_something {
            // Its positions are used again, so it is another log.
            info = self.limited(self.begin_anew(info)).await??;
        }
        self.adopt(&info);
        let (is_same, changed) = self.known().settle(expected, &info);
        Ok(match (is_same, changed) {
            (false, _) => Look::OtherLog(end_of(&info)),
            (true, Some(cause)) => Look::Changed(cause),
            (true, None) => Look::Same,
        })
    }

    /// Whether the stream has another message at one of the [places](Expected::places) than it had.
    async fn is_other(
        &self,
        expected: &Expected,
        is_question: bool,
    ) -> Result<bool, BackplaneError> {
        let mut asking = JoinSet::new();
        for place in expected.places(is_question) {
            let (stream, limit) = (self.stream.clone(), self.limit);
            asking.spawn(async move {
                let message = stream.get_raw_message(place.position.offset);
                let message = timeout(limit, message).await;
                let message = message.map_err(|_| BackplaneError::unavailable());
                (place, message.and_then(found))
            });
        }
        while let Some(answer) = asking.join_next().await {
            let (place, message) = answer.map_err(BackplaneError::other)?;
            if self.known().is_other(expected, place, message?.as_ref()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Fails unless the server that answers now is the known leader and has everything up to a place. Which server gave the
    /// answers before this is not known.
    pub(super) async fn vouch(&self, place: Position) -> Result<Info, BackplaneError> {
        let info = self.info().await?;
        match self.known().is_vouched(place, &info) {
            true => Ok(info),
            false => Err(BackplaneError::other(
                "the server that answers for the log may be behind",
            )),
        }
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
        let end = self.horizon();
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
                break;
            };
            let (number, last) = answer.map_err(BackplaneError::other)?;
            if let Some(message) = last? {
                let head: &mut Head = &mut heads[number];
                head.newest.offset = message.sequence;
                head.through = head.through.max(message.sequence);
            }
        }
        self.vouch(end).await?;
        Ok(heads)
    }

    async fn info(&self) -> Result<Info, BackplaneError> {
        let info = self.limited(self.stream.get_info()).await?;
        info.map_err(BackplaneError::other)
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
        let (epoch, since) = (self.horizon().epoch, Instant::now());
        let mut acks = Vec::with_capacity(messages.len());
        for message in messages {
            let subject = subjects.log(&message.user);
            if message.body.len() > max_body {
                // The server would close the connection for it.
                acks.push((subject, false, None));
                continue;
            }
            let was_open = self.known().send(message.id);
            let publish = PublishMessage::build()
                .payload(message.body.clone())
                .message_id(format!("{:032x}", message.id))
                .expected_stream(&self.wanted.name);
            let sent = self.context.send_publish(subject.clone(), publish).await;
            // One that the client does not send has no effect on the others.
            acks.push((subject, was_open, Some(sent.map(IntoFuture::into_future))));
        }
        let mut published = Vec::with_capacity(messages.len());
        for (message, (subject, was_open, ack)) in messages.iter().zip(acks) {
            let outcome = async {
                match ack {
                    None => refused("the message is larger than the server takes"),
                    Some(Err(error)) => outcome(error),
                    Some(Ok(ack)) => match ack.await {
                        Ok(ack) => {
                            let offset = ack.sequence;
                            let position = Position { epoch, offset };
                            self.acknowledged(message.id, position, was_open, ack.duplicate)
                        }
                        Err(error) => outcome(error),
                    },
                }
            };
            let outcome = tokio::select! {
                biased;
                outcome = outcome => outcome,
                // No acknowledgement will come.
                () = signals.wait_denied(&subject, since) => refused("this node may not publish to the log"),
            };
            if let Published::Refused { .. } = &outcome {
                self.known().refuse(message.id);
            }
            published.push(outcome);
        }
        Ok(published)
    }

    fn acknowledged(
        &self,
        id: u128,
        position: Position,
        was_open: bool,
        has_it: bool,
    ) -> Published {
        match self.known().believe(id, position, was_open, has_it) {
            true => Published::Accepted(Some(position)),
            false => Published::Unknown(BackplaneError::other(
                "the acknowledgement names a place that another message has",
            )),
        }
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

    /// For how long it recognizes a message that is published again.
    pub(super) fn duplicate_window(&self) -> Duration {
        self.known().duplicate_window
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

/// The server does not have the message, and would refuse it again.
pub(super) fn refused(reason: &'static str) -> Published {
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
