//! Whether messages arrive: what is sent to a subscription has to come back through it.
//!
//! A server may refuse a subscription for lack of a permission, refuse any more of them, or end one when its configuration
//! changes. It says so in passing, if at all, and the client goes on as if nothing had happened. So each subscription is
//! probed when it is made, after each reconnect, and about once a minute.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::interest::Source;
use super::link::{AT_ONCE, Ended, Link, RETRY};
use tidings::backplane::{Cause, Event};

/// In this time every subscription is verified once.
const ROUND: Duration = Duration::from_secs(60);

/// The most subscriptions that are verified in one turn when all are in doubt.
const VERIFIED_AT_ONCE: usize = 2048;

/// How soon a subscription that brings nothing is made anew, and how late at last.
const RENEW: Duration = Duration::from_secs(1);
const LATEST_RENEW: Duration = Duration::from_secs(30);

impl Link {
    /// Sends something that is to come back through a subscription.
    pub(super) async fn send_probe(&mut self, source: Source) -> Result<(), Ended> {
        let subject = self.interest.probe(&source);
        let probe = self.probe.clone();
        self.state.probed.push_back((Instant::now(), source));
        let sent = self.client.publish_with_reply(subject, probe, "".into());
        // The client takes nothing while it is not connected; then all are verified later.
        match timeout(RETRY, sent).await {
            Ok(Err(_)) => Err(Ended),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    /// Something has come back.
    pub(super) async fn hear_probe(&mut self, source: &Source) -> Result<(), Ended> {
        self.interest.hear(source);
        let was_deaf = self.state.deaf.remove(source).is_some();
        let mut users = Vec::new();
        if was_deaf || !self.state.silent.is_empty() {
            users = self.interest.users_of(source);
            // One whose barrier has not passed becomes ready with it.
            users.retain(|user| self.state.silent.remove(user) || was_deaf);
        }
        if was_deaf {
            tracing::info!(
                users = users.len(),
                "messages arrive again through a subscription"
            );
        }
        if users.is_empty() {
            return Ok(());
        }
        self.tell(Event::Ready(users)).await
    }

    /// Verifies some of the subscriptions, and finds those that bring nothing.
    pub(super) async fn verify(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        let late = now.checked_sub(self.fence.limit());
        let is_late = |(since, _): &(Instant, Source)| late.is_some_and(|late| *since <= late);
        if self.state.probed.front().is_some_and(is_late) {
            // If the server answers, and what was sent before did not come, it will not.
            if self.fence.pass(self.fence.connection()).await.is_err() {
                self.state.unverified = self.interest.sources();
                self.state.probed.clear();
                return Ok(());
            }
            let mut deaf = Vec::new();
            while self.state.probed.front().is_some_and(is_late) {
                let Some((since, source)) = self.state.probed.pop_front() else {
                    break;
                };
                if self.interest.has_heard(&source, since) == Some(false) {
                    deaf.push(source);
                }
            }
            self.lose(deaf, Cause::Late, "what was sent to it did not come back")
                .await?;
        }
        let due = self.state.deaf.iter().filter(|(_, (at, _))| *at <= now);
        let due: Vec<Source> = due
            .map(|(source, _)| source.clone())
            .take(AT_ONCE)
            .collect();
        for source in due {
            if !self
                .interest
                .renew(&self.client, &source)
                .await
                .map_err(|_| Ended)?
            {
                self.state.deaf.remove(&source);
                continue;
            }
            if let Some((at, pause)) = self.state.deaf.get_mut(&source) {
                (*at, *pause) = (now + *pause, (*pause * 2).min(LATEST_RENEW));
            }
            self.send_probe(source).await?;
        }
        if self.state.unverified.is_empty() && self.state.round.elapsed() >= ROUND {
            self.state.round = now;
            self.state.unverified = self.interest.sources();
        }
        let turns = (ROUND.as_millis() / RETRY.as_millis()) as usize;
        // At the slow pace what is left is not more than what is left of the round.
        let turn = match self.state.round.elapsed() < ROUND {
            true => (self.state.unverified.len() / turns).max(16),
            false => VERIFIED_AT_ONCE,
        };
        for _ in 0..turn {
            let Some(source) = self.state.unverified.pop_front() else {
                break;
            };
            if !self.state.deaf.contains_key(&source) {
                self.send_probe(source).await?;
            }
        }
        Ok(())
    }

    /// What the server has refused.
    pub(super) async fn hear_refused(&mut self) -> Result<(), Ended> {
        let refused = self.signals.take_refused();
        if refused.others || refused.limit {
            self.state.unverified = self.interest.sources();
            self.state.round = Instant::now();
        }
        if refused.limit {
            tracing::warn!("the server accepts no more subscriptions on this connection");
        }
        let sources = refused.subjects.iter();
        let sources = sources.filter_map(|subject| self.interest.by_subject(subject));
        let sources: Vec<Source> = sources.collect();
        self.lose(sources, Cause::Denied, &refused.detail).await
    }

    /// Tells that nothing comes through these subscriptions, once, and makes them anew later.
    async fn lose(
        &mut self,
        sources: Vec<Source>,
        cause: Cause,
        detail: &str,
    ) -> Result<(), Ended> {
        let mut users = Vec::new();
        for source in sources {
            if !self.interest.doubt(&source) || self.state.deaf.contains_key(&source) {
                continue;
            }
            users.extend(self.interest.users_of(&source));
            let next = (Instant::now() + RENEW, RENEW * 2);
            self.state.deaf.insert(source, next);
        }
        if users.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            users = users.len(),
            cause = cause.as_str(),
            detail,
            "messages do not arrive"
        );
        let detail = detail.to_owned();
        self.tell(Event::Unheard {
            users,
            cause,
            detail,
        })
        .await
    }
}
