//! Whose messages a node wants, and which of its subscriptions bring them.

use std::collections::{HashMap, HashSet, VecDeque};

use async_nats::{Client, Message, SubscribeError};

use tokio::time::Instant;

use super::feeds::{Feeds, Key};
use super::settings::Interest as Mode;
use super::subjects::Subjects;
use super::token::{self, Token};
use tidings::UserId;

/// What a subscription is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Source {
    User(UserId),
    Bucket(u32),
}

/// Whose a message is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owner {
    User(UserId),
    /// Somebody who is not at this node.
    Elsewhere,
    /// Nobody that there could be.
    Nobody,
}

/// The users of a node.
#[derive(Debug)]
pub(super) struct Interest {
    mode: Mode,
    subjects: Subjects,
    users: HashMap<UserId, User>,
    buckets: HashMap<u32, Bucket>,
    /// Those whose subjects do not say who they are, by their tokens. Only for buckets.
    long: HashMap<String, UserId>,
    pub(super) feeds: Feeds<Source>,
}

#[derive(Debug)]
struct User {
    /// Its own subscription, if it has one.
    feed: Option<Subscription>,
    /// The newest of its messages that came.
    newest: u64,
}

#[derive(Debug)]
struct Bucket {
    feed: Subscription,
    users: usize,
}

#[derive(Debug)]
struct Subscription {
    key: Key,
    /// When something came through it last that was sent to prove that it is there.
    heard: Option<Instant>,
}

impl Interest {
    pub(super) fn new(mode: Mode, subjects: Subjects) -> Self {
        Self {
            mode,
            subjects,
            users: HashMap::new(),
            buckets: HashMap::new(),
            long: HashMap::new(),
            feeds: Feeds::new(),
        }
    }

    pub(super) fn has(&self, user: &UserId) -> bool {
        self.users.contains_key(user)
    }

    /// Subscribes to a user. It is in effect when the server has heard of it. Returns the subscription if it is a new one.
    pub(super) async fn add(
        &mut self,
        client: &Client,
        user: UserId,
    ) -> Result<Option<Source>, SubscribeError> {
        if self.has(&user) {
            return Ok(None);
        }
        let (feed, added) = match self.mode {
            Mode::PerUser => {
                let source = Source::User(user.clone());
                let feed = self.subscribe(client, &source).await?;
                (Some(feed), Some(source))
            }
            Mode::Buckets => {
                let number = self.subjects.bucket(&user);
                let added = match self.buckets.get_mut(&number) {
                    Some(bucket) => {
                        bucket.users += 1;
                        None
                    }
                    None => {
                        let source = Source::Bucket(number);
                        let feed = self.subscribe(client, &source).await?;
                        self.buckets.insert(number, Bucket { feed, users: 1 });
                        Some(source)
                    }
                };
                if token::is_long(&user) {
                    let mut token = String::new();
                    token::encode(&user, &mut token);
                    self.long.insert(token, user.clone());
                }
                (None, added)
            }
        };
        self.users.insert(user, User { feed, newest: 0 });
        Ok(added)
    }

    async fn subscribe(
        &mut self,
        client: &Client,
        source: &Source,
    ) -> Result<Subscription, SubscribeError> {
        let subject = match source {
            Source::User(user) => self.subjects.live(user),
            Source::Bucket(bucket) => self.subjects.live_bucket(*bucket),
        };
        let subscriber = client.subscribe(subject).await?;
        Ok(Subscription {
            key: self.feeds.insert(subscriber, source.clone()),
            heard: None,
        })
    }

    /// Subscribes anew, in place of a subscription that brings nothing. `false` if nobody wants it any more.
    pub(super) async fn renew(
        &mut self,
        client: &Client,
        source: &Source,
    ) -> Result<bool, SubscribeError> {
        let Some(old) = self.subscription(source).map(|old| old.key) else {
            return Ok(false);
        };
        let new = self.subscribe(client, source).await?;
        self.feeds.remove(old);
        if let Some(subscription) = self.subscription(source) {
            *subscription = new;
        }
        Ok(true)
    }

    fn subscription(&mut self, source: &Source) -> Option<&mut Subscription> {
        match source {
            Source::User(user) => self.users.get_mut(user)?.feed.as_mut(),
            Source::Bucket(bucket) => Some(&mut self.buckets.get_mut(bucket)?.feed),
        }
    }

    /// Where to send what is to come back through a subscription.
    pub(super) fn probe(&self, source: &Source) -> String {
        match source {
            Source::User(user) => self.subjects.live(user),
            Source::Bucket(bucket) => self.subjects.probe(*bucket),
        }
    }

    /// It has come.
    pub(super) fn hear(&mut self, source: &Source) {
        if let Some(subscription) = self.subscription(source) {
            subscription.heard = Some(Instant::now());
        }
    }

    /// Whether a subscription is wanted, and since when it is known to be there. It is not known from now on.
    pub(super) fn doubt(&mut self, source: &Source) -> bool {
        self.subscription(source)
            .map(|subscription| subscription.heard = None)
            .is_some()
    }

    /// Whether something has come since then; `None` if nobody wants it any more.
    pub(super) fn has_heard(&mut self, source: &Source, since: Instant) -> Option<bool> {
        let subscription = self.subscription(source)?;
        Some(subscription.heard.is_some_and(|heard| heard >= since))
    }

    /// Whether a user's subscription is known to be there.
    pub(super) fn is_heard(&mut self, user: &UserId) -> bool {
        let source = self.source_of(user);
        self.subscription(&source)
            .is_some_and(|subscription| subscription.heard.is_some())
    }

    fn source_of(&self, user: &UserId) -> Source {
        match self.mode {
            Mode::PerUser => Source::User(user.clone()),
            Mode::Buckets => Source::Bucket(self.subjects.bucket(user)),
        }
    }

    /// The subscription that has this subject.
    pub(super) fn by_subject(&self, subject: &str) -> Option<Source> {
        let bucket = self.subjects.bucket_in(subject)?;
        match self.mode {
            Mode::Buckets => self
                .buckets
                .contains_key(&bucket)
                .then_some(Source::Bucket(bucket)),
            Mode::PerUser => {
                let is_it = |user: &&UserId| self.subjects.live(user) == subject;
                let user = match self.subjects.user(subject, bucket)? {
                    Token::Id(id) => self.users.get_key_value(&*id).map(|(user, _)| user),
                    Token::Digest(_) => self.users.keys().find(is_it),
                };
                user.cloned().map(Source::User)
            }
        }
    }

    /// Whose messages come through a subscription.
    pub(super) fn users_of(&self, source: &Source) -> Vec<UserId> {
        match source {
            Source::User(user) => vec![user.clone()],
            Source::Bucket(bucket) => {
                let users = self.users.keys();
                let users = users.filter(|user| self.subjects.bucket(user) == *bucket);
                users.cloned().collect()
            }
        }
    }

    /// All subscriptions.
    pub(super) fn sources(&self) -> VecDeque<Source> {
        match self.mode {
            Mode::PerUser => self.users.keys().cloned().map(Source::User).collect(),
            Mode::Buckets => self.buckets.keys().copied().map(Source::Bucket).collect(),
        }
    }

    pub(super) fn remove(&mut self, user: &UserId) {
        let Some(gone) = self.users.remove(user) else {
            return;
        };
        if let Some(feed) = gone.feed {
            self.feeds.remove(feed.key);
            return;
        }
        if token::is_long(user) {
            self.long.retain(|_, long| long != user);
        }
        let number = self.subjects.bucket(user);
        let bucket = self.buckets.get_mut(&number);
        let bucket = bucket.expect("a user's bucket is there for as long as the user");
        bucket.users -= 1;
        if bucket.users == 0 {
            self.feeds.remove(bucket.feed.key);
            self.buckets.remove(&number);
        }
    }

    /// Whose a message is.
    pub(super) fn owner(&self, source: &Source, message: &Message) -> Owner {
        let bucket = match source {
            // A message may have been held back while its user was taken out.
            Source::User(user) if self.has(user) => return Owner::User(user.clone()),
            Source::User(_) => return Owner::Elsewhere,
            Source::Bucket(bucket) => *bucket,
        };
        let user = match self.subjects.user(&message.subject, bucket) {
            None => return Owner::Nobody,
            Some(Token::Id(id)) => self.users.get_key_value(&*id).map(|(user, _)| user),
            Some(Token::Digest(token)) => self.long.get(token),
        };
        user.map_or(Owner::Elsewhere, |user| Owner::User(user.clone()))
    }

    /// Notes a user's message. Whether it is newer than those before.
    pub(super) fn advance(&mut self, user: &UserId, offset: u64) -> bool {
        self.users.get_mut(user).is_none_or(|user| {
            let is_newer = offset > user.newest;
            user.newest = offset;
            is_newer
        })
    }

    /// The log is another: its positions begin again.
    pub(super) fn reset(&mut self) {
        for user in self.users.values_mut() {
            user.newest = 0;
        }
    }
}

/// Users that wait for something, each once.
pub(super) type Waiting = HashSet<UserId>;
