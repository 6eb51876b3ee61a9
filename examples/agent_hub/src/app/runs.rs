//! Runs of the agent, each a channel of its own. A client that asks for one gets it from its start, while it is under way and
//! for a while after its end; a run that is asked for again does not begin again.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidings::protocol::agui::AgUiEvent;
use tidings::{
    BroadcastError, Builder, Frame, GenericBroadcaster, History, Hold, LastEventId, RegisterError,
    Subscription, Text, ToSse,
};
use tidings_aisdk::Chunk;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::body::Refusal;
use super::elsewhere::{self, Elsewhere};
use super::refused;
use super::work::Place;

/// Events of a run, more than the agent has for the longest text that it reads, and the bytes that these take.
pub(crate) const MOST_EVENTS: u32 = 20_000;
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// How long a run that is over stays: for streams that lag, pages that reload and requests that are repeated.
const LINGER: Duration = Duration::from_secs(30);

/// The same where there are other hubs, whose channels of the run end a little later.
const SHARED_LINGER: Duration = Duration::from_secs(35);

/// Runs whose events are of this type, under names that are unique among the runs of a user.
pub(super) struct Runs<E> {
    hub: GenericBroadcaster<E>,
    /// A run's last event is sent under this lock, so a run is either under way or over, for its streams as well.
    known: Arc<Mutex<Known>>,
    /// What to remember of a run's last event.
    summary: fn(&E) -> Option<Frame>,
    /// Wakes what tells other hubs of the runs, if there are other hubs.
    changed: Option<Arc<Notify>>,
}

/// The runs by their channels.
#[derive(Default)]
pub(super) struct Known {
    own: HashMap<String, Own>,
    pub(super) elsewhere: Elsewhere,
    /// The number of the last that has begun.
    last: u64,
}

/// What is known of a run, on each hub.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Record {
    user: String,
    conversation: String,
    /// What it answers, as a hash: a request that asks the same joins it.
    question: Option<u64>,
    /// Grows from run to run, also from those of one hub to later ones of another.
    number: u64,
    /// The position of its channel before its first event.
    begin: String,
    pub(super) phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Phase {
    UnderWay,
    Finished,
    Failed,
}

impl Record {
    /// The stream of a client that names this event, or none.
    fn after(&self, last_event_id: &LastEventId) -> LastEventId {
        match last_event_id.is_none() {
            true => LastEventId::new(&self.begin).or_from_start(),
            false => *last_event_id,
        }
    }
}

/// A run that began here.
struct Own {
    record: Record,
    /// When it ended, and what is remembered of its last event.
    end: Option<(Instant, Option<Frame>)>,
}

/// Why a client does not get a run.
pub(super) enum Denied {
    Refused(Refusal),
    /// There are too many streams.
    Full(RegisterError),
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<RegisterError> for Denied {
    fn from(error: RegisterError) -> Self {
        Self::Full(error)
    }
}

impl IntoResponse for Denied {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(refusal) => refusal.into_response(),
            Self::Full(error) => refused(error),
        }
    }
}

/// The channel of a run. It is no text that another user's run could have.
fn channel(user: &str, run: &str) -> String {
    json!([user, run]).to_string()
}

/// What tells one question from another.
pub(super) fn hash(question: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    question.hash(&mut hasher);
    hasher.finish()
}

/// For the runs of the agent, in events of AG-UI.
pub(crate) fn of_agent() -> Builder<AgUiEvent> {
    builder("runs").attachments(AgUiEvent::attachment_of)
}

/// For the runs of the AI SDK's chats.
pub(crate) fn of_chats() -> Builder<Chunk> {
    builder("aisdk")
}

/// A broadcaster whose channels are runs.
fn builder<E>(name: &'static str) -> Builder<E> {
    let history = History::new(MOST_EVENTS as usize).bytes(MOST_BYTES);
    GenericBroadcaster::builder()
        .name(name)
        .history(history.linger_completed(LINGER))
        .sweep_every(Duration::from_secs(1))
}

impl<E: 'static> Runs<E> {
    pub(super) fn new(builder: Builder<E>, summary: fn(&E) -> Option<Frame>) -> Self {
        Self {
            hub: builder.build().expect("the settings are valid"),
            known: Arc::default(),
            summary,
            changed: None,
        }
    }

    /// Sends them through this broadcaster, which other hubs share. The hubs tell each other of their runs through `notices`.
    pub(super) fn over(
        self,
        hub: GenericBroadcaster<E>,
        notices: &GenericBroadcaster<Text>,
        channel: &'static str,
    ) -> Result<Self, RegisterError> {
        let changed = Arc::new(Notify::new());
        let shared = Self {
            hub,
            changed: Some(Arc::clone(&changed)),
            ..self
        };
        let heard = notices.register(channel)?;
        let runs = shared.clone();
        tokio::spawn(elsewhere::talk(
            runs,
            notices.clone(),
            channel,
            heard,
            changed,
        ));
        Ok(shared)
    }

    pub(super) fn hub(&self) -> &GenericBroadcaster<E> {
        &self.hub
    }

    /// The channels of the user's runs that are under way.
    pub(super) fn channels_of(&self, user: &str) -> Vec<String> {
        let known = self.lock();
        let of_user = self
            .under_way(&known)
            .filter(|(_, record)| record.user == user);
        of_user.map(|(channel, _)| channel.to_owned()).collect()
    }

    /// The newest run of the conversation that is under way.
    pub(super) fn newest(&self, user: &str, conversation: &str) -> Option<String> {
        let known = self.lock();
        let (channel, _) = self.newest_of(&known, user, conversation)?;
        Some(run_of(channel))
    }

    fn newest_of<'a>(
        &self,
        known: &'a Known,
        user: &str,
        conversation: &str,
    ) -> Option<(&'a str, &'a Record)> {
        let of_it = |run: &Record| run.user == user && run.conversation == conversation;
        let runs = self.under_way(known).filter(|(_, run)| of_it(run));
        runs.max_by_key(|(_, run)| run.number)
    }

    fn under_way<'a>(&self, known: &'a Known) -> impl Iterator<Item = (&'a str, &'a Record)> {
        let own = known
            .own
            .iter()
            .map(|(channel, own)| (&**channel, &own.record));
        let all = own.chain(known.elsewhere.runs());
        all.filter(|(channel, record)| self.goes_on(channel, record))
    }

    /// Another hub may have ended it.
    fn goes_on(&self, channel: &str, record: &Record) -> bool {
        record.phase == Phase::UnderWay && !self.hub.is_complete(channel)
    }

    pub(super) fn is_under_way(&self, user: &str, run: &str) -> bool {
        let (channel, known) = (channel(user, run), self.lock());
        let record = known.find(&channel);
        record.is_some_and(|record| self.goes_on(&channel, record))
    }

    /// A stream of a run from its start. A run that is not known begins, if there is a place for it: the caller then gets what
    /// keeps it under way.
    pub(super) fn ask(
        &self,
        user: &str,
        conversation: &str,
        run: &str,
        place: impl FnOnce() -> Result<Place, Refusal>,
    ) -> Result<(Subscription, Option<Run<E>>), Denied> {
        let channel = channel(user, run);
        let mut known = self.lock();
        self.forget(&mut known);
        known.check_conversation(&channel, conversation, run)?;
        if let Some(stream) = self.stream(&known, &channel, &LastEventId::none()) {
            return Ok((stream?, None));
        }
        let begun = self.record(user, conversation, None);
        self.begin(&mut known, channel, begun, place)
    }

    /// The same for a conversation that has one run at a time. A question that is asked again meanwhile is answered with its run,
    /// and another one is refused, as one is that cannot be told from others.
    pub(super) fn ask_in_turn(
        &self,
        user: &str,
        conversation: &str,
        question: Option<u64>,
        run: &str,
        place: impl FnOnce() -> Result<Place, Refusal>,
    ) -> Result<(Subscription, Option<Run<E>>), Denied> {
        let mut known = self.lock();
        self.forget(&mut known);
        if let Some((channel, under_way)) = self.newest_of(&known, user, conversation) {
            if question.is_none() || under_way.question != question {
                let sentence = "This is being answered. Ask again after that, or stop it first.";
                return Err((StatusCode::CONFLICT, sentence.to_owned()).into());
            }
            let from_start = under_way.after(&LastEventId::none());
            return Ok((self.hub.resume(channel, &from_start)?, None));
        }
        let begun = self.record(user, conversation, question);
        self.begin(&mut known, channel(user, run), begun, place)
    }

    /// Begins a run under a new name, unless one of this hub is under way that answers the same question of the user: then that
    /// one's name is the answer.
    pub(super) fn ask_once(
        &self,
        user: &str,
        conversation: &str,
        question: u64,
        run: &str,
        place: impl FnOnce() -> Result<Place, Refusal>,
    ) -> Result<Result<Run<E>, String>, Denied> {
        let mut known = self.lock();
        self.forget(&mut known);
        let is_it = |run: &Record| run.user == user && run.question == Some(question);
        let mut own = known.own.iter();
        let same =
            own.find(|(channel, own)| is_it(&own.record) && self.goes_on(channel, &own.record));
        if let Some((channel, _)) = same {
            return Ok(Err(run_of(channel)));
        }
        let begun = self.record(user, conversation, Some(question));
        let (_, run) = self.begin(&mut known, channel(user, run), begun, place)?;
        Ok(Ok(run.expect("it has begun")))
    }

    fn record(&self, user: &str, conversation: &str, question: Option<u64>) -> Record {
        Record {
            user: user.into(),
            conversation: conversation.into(),
            question,
            number: 0,
            begin: String::new(),
            phase: Phase::UnderWay,
        }
    }

    fn begin(
        &self,
        known: &mut Known,
        channel: String,
        begun: Record,
        place: impl FnOnce() -> Result<Place, Refusal>,
    ) -> Result<(Subscription, Option<Run<E>>), Denied> {
        let place = place()?;
        let hold = self.hub.hold(&*channel).map_err(|error| {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            (status, format!("The run cannot be kept: {error}."))
        })?;
        // With other hubs, this is where the engine's log is.
        let begin = self.hub.position(&channel);
        let begin = begin.map_or_else(String::new, |position| position.to_string());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |now| now.as_millis() as u64);
        let record = Record {
            number: now.max(known.last + 1),
            begin,
            ..begun
        };
        let stream = self
            .hub
            .resume(&*channel, &record.after(&LastEventId::none()))?;
        known.last = record.number;
        // In place of a run of this id that has ended before.
        known.own.insert(channel.clone(), Own { record, end: None });
        self.note_change();
        let run = Run {
            runs: self.clone(),
            channel,
            _hold: hold,
            _place: place,
        };
        Ok((stream, Some(run)))
    }

    /// A stream of a run that is known: after the event that the client names, or else from the start. A client that also names
    /// a conversation is refused a run of another one.
    pub(super) fn follow(
        &self,
        user: &str,
        conversation: Option<&str>,
        run: &str,
        last_event_id: &LastEventId,
    ) -> Result<Option<Subscription>, Denied> {
        let channel = channel(user, run);
        let known = self.lock();
        if let Some(conversation) = conversation {
            known.check_conversation(&channel, conversation, run)?;
        }
        let stream = self.stream(&known, &channel, last_event_id);
        Ok(stream.transpose()?)
    }

    fn stream(
        &self,
        known: &Known,
        channel: &str,
        last_event_id: &LastEventId,
    ) -> Option<Result<Subscription, RegisterError>> {
        let record = known.find(channel)?;
        let stream = self.hub.resume(channel, &record.after(last_event_id));
        // A sweep may have forgotten a run that is over. Its stream would wait for ever, but where an engine's log has the end.
        let is_there = record.phase == Phase::UnderWay
            || self.changed.is_some()
            || self.hub.is_complete(channel);
        is_there.then_some(stream)
    }

    /// Ends a run that is under way.
    fn end(&self, known: &mut Known, channel: &str, phase: Phase, last: Option<Frame>) {
        let mut is_new = known.elsewhere.end(channel, phase);
        if let Some(own) = known.own.get_mut(channel) {
            is_new |= own.end.is_none();
            if own.end.is_none() {
                own.record.phase = phase;
                own.end = Some((Instant::now(), last));
            }
        }
        if !is_new {
            return;
        }
        if let Err(error) = self.hub.complete(channel) {
            tracing::warn!(error = error.to_string(), "a run did not end");
        }
        self.note_change();
        // Here as well, since there may be no further request.
        self.forget(known);
    }

    /// Forgets the runs that are over and whose events are kept no longer.
    fn forget(&self, known: &mut Known) {
        let is_kept = |channel: &String, own: &mut Own| {
            let Some((since, _)) = &own.end else {
                return true;
            };
            let is_shared = self.changed.is_some();
            (is_shared && since.elapsed() < SHARED_LINGER) || self.hub.is_complete(channel)
        };
        known.own.retain(is_kept);
    }

    /// What this hub has to say of its runs.
    pub(super) fn own(&self) -> HashMap<String, Record> {
        let mut known = self.lock();
        self.forget(&mut known);
        let own = known.own.iter();
        own.map(|(channel, own)| (channel.clone(), own.record.clone()))
            .collect()
    }

    fn note_change(&self) {
        if let Some(changed) = &self.changed {
            changed.notify_one();
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it is held")
    }

    /// What is remembered of the last event of a run that is over.
    pub(super) fn last(&self, user: &str, run: &str) -> Option<Frame> {
        let known = self.lock();
        let (_, last) = known.own.get(&channel(user, run))?.end.as_ref()?;
        last.clone()
    }

    /// The conversation of a run that is over and was another hub's, and whether it failed.
    pub(super) fn ended_elsewhere(&self, user: &str, run: &str) -> Option<(String, bool)> {
        let known = self.lock();
        let record = known.elsewhere.find(&channel(user, run))?;
        let has_failed = record.phase == Phase::Failed;
        (record.phase != Phase::UnderWay).then(|| (record.conversation.clone(), has_failed))
    }
}

impl<E: ToSse + 'static> Runs<E> {
    /// Sends an event to the streams of its run, if that is under way; the last one ends it. What `also` does with the event
    /// is done first, and nothing of another event comes in between. Where that fails, the run gets the event all the same.
    /// `None` if the run is not under way.
    pub(super) fn say<R>(
        &self,
        user: &str,
        conversation: &str,
        run: &str,
        event: &E,
        end: Option<Phase>,
        also: impl FnOnce() -> Result<R, BroadcastError>,
    ) -> Result<Option<R>, BroadcastError> {
        let channel = channel(user, run);
        let mut known = self.lock();
        let goes_on = known.find(&channel).is_some_and(|record| {
            record.conversation == conversation && self.goes_on(&channel, record)
        });
        if !goes_on {
            return Ok(None);
        }
        let done = also();
        let sent = self.hub.broadcast(&channel, event);
        if let Some(phase) = end {
            self.end(&mut known, &channel, phase, (self.summary)(event));
        }
        let done = done?;
        match sent {
            Err(BroadcastError::Complete) | Ok(_) => Ok(Some(done)),
            Err(error) => Err(error),
        }
    }
}

/// Keeps a run under way, whether or not somebody listens. It ends with the agent at the latest.
pub(super) struct Run<E: 'static> {
    runs: Runs<E>,
    channel: String,
    _hold: Hold,
    _place: Place,
}

impl<E> Drop for Run<E> {
    fn drop(&mut self) {
        let mut known = self.runs.lock();
        self.runs
            .end(&mut known, &self.channel, Phase::Failed, None);
    }
}

impl<E> Clone for Runs<E> {
    fn clone(&self) -> Self {
        Self {
            hub: self.hub.clone(),
            known: Arc::clone(&self.known),
            summary: self.summary,
            changed: self.changed.clone(),
        }
    }
}

/// The run that a channel is of.
fn run_of(channel: &str) -> String {
    let [_, run]: [String; 2] = serde_json::from_str(channel).expect("two strings");
    run
}

impl Known {
    fn find(&self, channel: &str) -> Option<&Record> {
        let own = self.own.get(channel).map(|own| &own.record);
        own.or_else(|| self.elsewhere.find(channel))
    }

    /// Refuses a run that is known as one of another conversation.
    fn check_conversation(
        &self,
        channel: &str,
        conversation: &str,
        run: &str,
    ) -> Result<(), Refusal> {
        match self.find(channel) {
            Some(record) if record.conversation != conversation => {
                let sentence = format!("The run {run:?} is one of another conversation.");
                Err((StatusCode::CONFLICT, sentence))
            }
            _ => Ok(()),
        }
    }
}
