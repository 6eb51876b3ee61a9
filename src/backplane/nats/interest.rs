//! Whose messages a node wants, and which of its subscriptions bring them.

use std::collections::{HashMap, HashSet};

use async_nats::{Client, Message, SubscribeError};

use super::feeds::{Feeds, Key};
use super::settings::Interest as Mode;
use super::subjects::Subjects;
use super::token::{self, Token};
use crate::id::UserId;

/// What a subscription is for.
#[derive(Debug, Clone)]
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
    feed: Option<Key>,
    /// The newest of its messages that came.
    newest: u64,
}

#[derive(Debug)]
struct Bucket {
    feed: Key,
    users: usize,
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

    /// Subscribes to a user. It is in effect when the server has heard of it.
    pub(super) async fn add(
        &mut self,
        client: &Client,
        user: UserId,
    ) -> Result<(), SubscribeError> {
        if self.has(&user) {
            return Ok(());
        }
        let feed = match self.mode {
            Mode::PerUser => {
                let subscriber = client.subscribe(self.subjects.live(&user)).await?;
                Some(self.feeds.insert(subscriber, Source::User(user.clone())))
            }
            Mode::Buckets => {
                self.enter(client, self.subjects.bucket(&user)).await?;
                if token::is_long(&user) {
                    let mut token = String::new();
                    token::encode(&user, &mut token);
                    self.long.insert(token, user.clone());
                }
                None
            }
        };
        self.users.insert(user, User { feed, newest: 0 });
        Ok(())
    }

    async fn enter(&mut self, client: &Client, bucket: u32) -> Result<(), SubscribeError> {
        if let Some(bucket) = self.buckets.get_mut(&bucket) {
            bucket.users += 1;
            return Ok(());
        }
        let subscriber = client.subscribe(self.subjects.live_bucket(bucket)).await?;
        let feed = self.feeds.insert(subscriber, Source::Bucket(bucket));
        self.buckets.insert(bucket, Bucket { feed, users: 1 });
        Ok(())
    }

    pub(super) fn remove(&mut self, user: &UserId) {
        let Some(gone) = self.users.remove(user) else {
            return;
        };
        if let Some(feed) = gone.feed {
            self.feeds.remove(feed);
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
            self.feeds.remove(bucket.feed);
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
