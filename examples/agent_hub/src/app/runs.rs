//! Runs of the agent, each a channel of its own. A client that asks for one gets it from its start, while it is under way and
//! for a while after its end; a run that is asked for again does not begin again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tidings::{
    BroadcastError, Frame, GenericBroadcaster, History, Hold, LastEventId, RegisterError,
    Subscription, ToSse,
};

use super::body::Refusal;
use super::refused;
use super::work::Place;

/// Events of a run, more than the agent has for the longest text that it reads, and the bytes that these take.
const MOST_EVENTS: usize = 20_000;
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// How long a run that is over stays: for streams that lag, pages that reload and requests that are repeated.
const LINGER: Duration = Duration::from_secs(30);

/// Runs whose events are of this type, under names that are unique among the runs of a user.
pub(super) struct Runs<E> {
    hub: GenericBroadcaster<E>,
    /// A run's last event is sent under this lock, so a run is either under way or over, for its streams as well.
    known: Arc<Mutex<Known>>,
    /// What to remember of a run's last event.
    summary: fn(&E) -> Option<Frame>,
}

/// The runs by their channels.
#[derive(Default)]
struct Known {
    under_way: HashMap<String, UnderWay>,
    ended: HashMap<String, Ended>,
    /// How many have begun.
    count: u64,
}

struct UnderWay {
    user: String,
    conversation: String,
    /// What it answers, if its conversation has one run at a time.
    question: Option<String>,
    number: u64,
}

struct Ended {
    conversation: String,
    last: Option<Frame>,
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

impl<E> Runs<E> {
    pub(super) fn new(name: &'static str, summary: fn(&E) -> Option<Frame>) -> Self {
        let history = History::new(MOST_EVENTS).bytes(MOST_BYTES);
        let hub = GenericBroadcaster::builder()
            .name(name)
            .history(history.linger_completed(LINGER))
            .sweep_every(Duration::from_secs(1));
        Self {
            hub: hub.build().expect("the settings are valid"),
            known: Arc::default(),
            summary,
        }
    }

    pub(super) fn hub(&self) -> &GenericBroadcaster<E> {
        &self.hub
    }

    /// The channels of the user's runs that are under way.
    pub(super) fn channels_of(&self, user: &str) -> Vec<String> {
        let known = self.lock();
        let of_user = known.under_way.iter().filter(|(_, run)| run.user == user);
        of_user.map(|(channel, _)| channel.clone()).collect()
    }

    /// The newest run of the conversation that is under way.
    pub(super) fn newest(&self, user: &str, conversation: &str) -> Option<String> {
        let known = self.lock();
        let (channel, _) = known.newest(user, conversation)?;
        let [_, run]: [String; 2] = serde_json::from_str(channel).expect("two strings");
        Some(run)
    }

    pub(super) fn is_under_way(&self, user: &str, run: &str) -> bool {
        self.lock().under_way.contains_key(&channel(user, run))
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
        known.forget(|channel| self.hub.is_complete(channel));
        known.check_conversation(&channel, conversation, run)?;
        if let Some(stream) = self.stream(&known, &channel, &LastEventId::none()) {
            return Ok((stream?, None));
        }
        let begun = UnderWay {
            user: user.into(),
            conversation: conversation.into(),
            question: None,
            number: 0,
        };
        self.begin(&mut known, channel, begun, place)
    }

    /// The same for a conversation that has one run at a time. A question that is asked again meanwhile is answered with its run,
    /// and another one is refused, as one is that cannot be told from others.
    pub(super) fn ask_in_turn(
        &self,
        user: &str,
        conversation: &str,
        question: Option<String>,
        run: &str,
        place: impl FnOnce() -> Result<Place, Refusal>,
    ) -> Result<(Subscription, Option<Run<E>>), Denied> {
        let mut known = self.lock();
        known.forget(|channel| self.hub.is_complete(channel));
        if let Some((channel, under_way)) = known.newest(user, conversation) {
            if question.is_none() || under_way.question != question {
                let sentence = "This is being answered. Ask again after that, or stop it first.";
                return Err((StatusCode::CONFLICT, sentence.to_owned()).into());
            }
            return Ok((self.hub.resume_from_start(channel)?, None));
        }
        let begun = UnderWay {
            user: user.into(),
            conversation: conversation.into(),
            question,
            number: 0,
        };
        self.begin(&mut known, channel(user, run), begun, place)
    }

    fn begin(
        &self,
        known: &mut Known,
        channel: String,
        begun: UnderWay,
        place: impl FnOnce() -> Result<Place, Refusal>,
    ) -> Result<(Subscription, Option<Run<E>>), Denied> {
        let place = place()?;
        let hold = self.hub.hold(&*channel).map_err(|error| {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            (status, format!("The run cannot be kept: {error}."))
        })?;
        let stream = self.hub.resume_from_start(&*channel)?;
        known.count += 1;
        let number = known.count;
        let begun = UnderWay { number, ..begun };
        // A run of this id that has ended before.
        known.ended.remove(&channel);
        known.under_way.insert(channel.clone(), begun);
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
        known.conversation(channel)?;
        let stream = self.hub.resume(channel, &last_event_id.or_from_start());
        // A sweep may have forgotten a run that is over. Its stream would wait for ever.
        let is_there = known.under_way.contains_key(channel) || self.hub.is_complete(channel);
        is_there.then_some(stream)
    }

    /// Ends a run that is under way.
    fn end(&self, known: &mut Known, channel: &str, last: Option<Frame>) {
        let Some(run) = known.under_way.remove(channel) else {
            return;
        };
        if let Err(error) = self.hub.complete(channel) {
            tracing::warn!(error = error.to_string(), "a run did not end");
        }
        let ended = Ended {
            conversation: run.conversation,
            last,
        };
        known.ended.insert(channel.into(), ended);
        // Here as well, since there may be no further request.
        known.forget(|channel| self.hub.is_complete(channel));
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it is held")
    }
}

impl<E: ToSse> Runs<E> {
    /// Sends an event to the streams of its run, if that is under way; the last one ends it.
    pub(super) fn say(
        &self,
        user: &str,
        conversation: &str,
        run: &str,
        event: &E,
        is_last: bool,
    ) -> Result<(), BroadcastError> {
        let channel = channel(user, run);
        let mut known = self.lock();
        let run = known.under_way.get(&channel);
        if run.is_none_or(|run| run.conversation != conversation) {
            return Ok(());
        }
        let sent = self.hub.broadcast(&channel, event);
        if is_last {
            self.end(&mut known, &channel, (self.summary)(event));
        }
        sent.map(drop)
    }

    /// What is remembered of the last event of a run that is over.
    pub(super) fn last(&self, user: &str, run: &str) -> Option<Frame> {
        let known = self.lock();
        let ended = known.ended.get(&channel(user, run))?;
        ended.last.clone()
    }
}

/// Keeps a run under way, whether or not somebody listens. It ends with the agent at the latest.
pub(super) struct Run<E> {
    runs: Runs<E>,
    channel: String,
    _hold: Hold,
    _place: Place,
}

impl<E> Drop for Run<E> {
    fn drop(&mut self) {
        let mut known = self.runs.lock();
        self.runs.end(&mut known, &self.channel, None);
    }
}

impl<E> Clone for Runs<E> {
    fn clone(&self) -> Self {
        Self {
            hub: self.hub.clone(),
            known: Arc::clone(&self.known),
            summary: self.summary,
        }
    }
}

impl Known {
    /// The newest run of the conversation that is under way, by its channel.
    fn newest(&self, user: &str, conversation: &str) -> Option<(&str, &UnderWay)> {
        let of_it = |run: &UnderWay| run.user == user && run.conversation == conversation;
        let runs = self.under_way.iter().filter(|(_, run)| of_it(run));
        let newest = runs.max_by_key(|(_, run)| run.number);
        newest.map(|(channel, run)| (&**channel, run))
    }

    /// Of a run that is known.
    fn conversation(&self, channel: &str) -> Option<&str> {
        let under_way = self.under_way.get(channel).map(|run| &*run.conversation);
        under_way.or_else(|| Some(&self.ended.get(channel)?.conversation))
    }

    /// Refuses a run that is known as one of another conversation.
    fn check_conversation(
        &self,
        channel: &str,
        conversation: &str,
        run: &str,
    ) -> Result<(), Refusal> {
        match self.conversation(channel) {
            Some(own) if own != conversation => {
                let sentence = format!("The run {run:?} is one of another conversation.");
                Err((StatusCode::CONFLICT, sentence))
            }
            _ => Ok(()),
        }
    }

    /// Forgets the runs that are over and whose events are kept no longer.
    fn forget(&mut self, is_kept: impl Fn(&str) -> bool) {
        self.ended.retain(|channel, _| is_kept(channel));
    }
}
