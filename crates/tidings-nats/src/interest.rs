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
    /// Users whose ids are too long for a subject, by the digests that stand there instead.
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
    users: HashSet<UserId>,
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
                        bucket.users.insert(user.clone());
                        None
                    }
                    None => {
                        let source = Source::Bucket(number);
                        let feed = self.subscribe(client, &source).await?;
                        let users = HashSet::from([user.clone()]);
                        self.buckets.insert(number, Bucket { feed, users });
                        Some(source)
                    }
                };
                (None, added)
            }
        };
        if token::is_long(&user) {
            self.long.insert(token::of(&user), user.clone());
        }
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
                let token = self.subjects.user(subject, bucket)?;
                self.by_token(&token).cloned().map(Source::User)
            }
        }
    }

    fn by_token(&self, token: &Token<'_>) -> Option<&UserId> {
        match token {
            Token::Id(id) => self.users.get_key_value(&**id).map(|(user, _)| user),
            Token::Digest(token) => self.long.get(*token),
        }
    }

    /// Whose messages come through a subscription.
    pub(super) fn users_of(&self, source: &Source) -> Vec<UserId> {
        match source {
            Source::User(user) => vec![user.clone()],
            Source::Bucket(bucket) => {
                let bucket = self.buckets.get(bucket);
                bucket.map_or_else(Vec::new, |bucket| bucket.users.iter().cloned().collect())
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
        if token::is_long(user) {
            self.long.remove(&token::of(user));
        }
        if let Some(feed) = gone.feed {
            self.feeds.remove(feed.key);
            return;
        }
        let number = self.subjects.bucket(user);
        let bucket = self.buckets.get_mut(&number);
        let bucket = bucket.expect("a user's bucket is there for as long as the user");
        bucket.users.remove(user);
        if bucket.users.is_empty() {
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
        let Some(token) = self.subjects.user(&message.subject, bucket) else {
            return Owner::Nobody;
        };
        let user = self.by_token(&token);
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

#[cfg(test)]
mod tests {
    use async_nats::ConnectOptions;

    use super::*;

    const BUCKETS: u32 = 4;

    async fn interest(mode: Mode, users: &[UserId]) -> Interest {
        let options = ConnectOptions::new().retry_on_initial_connect();
        let client = options.connect("127.0.0.1:1").await;
        let client = client.expect("it tries later");
        let mut interest = Interest::new(mode, Subjects::new("test", BUCKETS));
        for user in users {
            let added = interest.add(&client, user.clone()).await;
            added.expect("the client takes it");
        }
        interest
    }

    #[tokio::test]
    async fn a_user_is_found_by_source_and_by_subject_until_it_leaves() {
        let short = (0..20).map(|number| UserId::from(number.to_string()));
        let long = (0..20).map(|number| UserId::from(format!("{number:0>300}")));
        let users: Vec<_> = short.chain(long).collect();
        for mode in [Mode::PerUser, Mode::Buckets] {
            let mut interest = interest(mode, &users).await;
            for (left, gone) in users.iter().enumerate() {
                for (at, user) in users.iter().enumerate() {
                    let (source, is_there) = (interest.source_of(user), at >= left);
                    let subject = interest.subjects.live(user);
                    let is_found = interest.by_subject(&subject) == Some(source.clone());
                    match mode {
                        Mode::PerUser => assert_eq!(is_found, is_there),
                        Mode::Buckets => {
                            assert_eq!(interest.users_of(&source).contains(user), is_there);
                        }
                    }
                }
                interest.remove(gone);
            }
            assert!(interest.sources().is_empty() && interest.long.is_empty());
        }
    }
}
