//! Several users with histories, and everything that can end a connection.

use std::task::Poll;
use std::time::Duration;

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use tokio::time::Instant;

use super::super::support::*;
use super::{Account, check};
use crate::error::RegisterError;
use crate::registry::Limits;
use crate::subscription::Subscription;

const USERS: [&str; 2] = ["u", "v"];
const PER_USER: usize = 2;
const TOTAL: usize = 3;

/// A client of one user.
struct Client {
    user: &'static str,
    id: String,
    stream: Option<Subscription<u32>>,
    account: Account,
}

impl Client {
    fn new(number: usize) -> Self {
        Self {
            user: USERS[number % USERS.len()],
            id: format!("client {number}"),
            stream: None,
            account: Account::default(),
        }
    }

    /// Comes back behind its place, if it is let in.
    fn come(&mut self, hub: &Hub) -> Result<(), RegisterError> {
        self.stream = None;
        let (tab, from) = (tab(&self.id), self.account.from());
        let stream = Subscription::open(hub, self.user.into(), tab, from, |_| None)?;
        self.account.begin(&stream);
        self.stream = Some(stream);
        Ok(())
    }

    /// Reads at most so many items of what is there.
    fn read(&mut self, at_most: usize) {
        for _ in 0..at_most {
            let Some(stream) = &mut self.stream else {
                return;
            };
            match poll_once(stream) {
                Poll::Ready(Some(item)) => self.account.take(item),
                Poll::Ready(None) => self.stream = None,
                Poll::Pending => return,
            }
        }
    }
}

/// Two publish to two users, whose clients come, read slowly, are cut and come back, while somebody ends connections in
/// every way there is and histories are forgotten; then it is all shut down. What each client saw and what its gaps announced
/// is what was broadcast to it, in order; the caps hold; after the shutdown nobody comes in, and nothing is left.
///
/// Fails: the_receiver_is_taken_before_the_backlog_is_cut, lag_is_not_healed, the_registry_is_not_closed.
#[test]
fn users_live_through_everything() {
    check(|| {
        let hub = hub_with(Limits {
            capacity: 2,
            per_user: PER_USER,
            total: TOTAL,
            ..remembering(4)
        });
        let publishers = USERS.map(|user| {
            let hub = hub.clone();
            thread::spawn(move || {
                for number in 1..=8 {
                    publish(&hub, user, number);
                }
            })
        });
        let clients: Vec<_> = (0..3)
            .map(|number| {
                let hub = hub.clone();
                thread::spawn(move || {
                    let mut client = Client::new(number);
                    for _ in 0..4 {
                        // The caps are for all, and somebody may hold the last place.
                        let _ = client.come(&hub);
                        client.read(thread_rng().gen_range(0..6));
                        client.read(thread_rng().gen_range(0..6));
                        assert!(count(&hub, client.user) <= PER_USER, "the user's cap holds");
                        assert!(hub.total() <= TOTAL, "the total cap holds");
                    }
                    client
                })
            })
            .collect();
        let operator = {
            let hub = hub.clone();
            thread::spawn(move || {
                for _ in 0..4 {
                    let user = USERS[thread_rng().gen_range(0..USERS.len())];
                    match thread_rng().gen_range(0..5) {
                        0 => drop(hub.drain(user)),
                        1 => drop(hub.disconnect(user)),
                        2 => drop(hub.forget(user)),
                        3 => drop(unregister(&hub, user, "client 0")),
                        _ => drop(hub.sweep(Instant::now() + Duration::from_secs(60))),
                    }
                }
            })
        };
        operator.join().unwrap();
        finish_all(&hub);
        for publisher in publishers {
            publisher.join().unwrap();
        }
        // Who was on the way in has come in; then the rest is cut.
        let mut clients: Vec<_> = clients.into_iter().map(|it| it.join().unwrap()).collect();
        hub.disconnect_all();
        assert_eq!(hub.total(), 0);
        for client in &mut clients {
            client.read(usize::MAX);
            assert!(client.stream.is_none(), "every stream has ended");
            let refused = client.come(&hub).expect_err("nobody comes in any more");
            assert!(
                matches!(refused, RegisterError::ShuttingDown { .. }),
                "{refused:?}"
            );
        }
        assert_empty(&hub);
        assert_eq!(hub.retention().away(), 0);
        assert_eq!(hub.retention().kept_for_away(), 0);
    });
}
