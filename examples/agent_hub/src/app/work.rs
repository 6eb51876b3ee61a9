//! How much the agent works at a time. It goes on when its client has gone, so the streams of its clients are no bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::http::StatusCode;

use super::body::{Refusal, bad};

/// At a time, of one user.
const MOST_OF_USER: usize = 10;

/// At a time, in all.
const MOST_IN_ALL: usize = 100;

/// Bytes of what the agent is told: at 20 milliseconds a word, some minutes.
const MOST_TEXT: usize = 16 * 1024;

/// How many jobs each user has under way.
#[derive(Clone, Default)]
pub(super) struct Work(Arc<Mutex<HashMap<String, usize>>>);

impl Work {
    /// A place for a job, as long as there is one, and the job is not too long.
    pub(super) fn take(&self, user: &str, text: &str) -> Result<Place, Refusal> {
        if text.len() > MOST_TEXT {
            return Err(bad(format!("The agent reads at most {MOST_TEXT} bytes.")));
        }
        let mut users = self.lock();
        if users.get(user).is_some_and(|jobs| *jobs >= MOST_OF_USER) {
            let sentence = format!("The agent does {MOST_OF_USER} things for this user already.");
            return Err((StatusCode::TOO_MANY_REQUESTS, sentence));
        }
        if users.values().sum::<usize>() >= MOST_IN_ALL {
            let sentence = "The agent has too much to do.".to_owned();
            return Err((StatusCode::SERVICE_UNAVAILABLE, sentence));
        }
        *users.entry(user.to_owned()).or_default() += 1;
        Ok(Place {
            work: self.clone(),
            user: user.to_owned(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

/// Given back when the job is done, or given up.
pub(super) struct Place {
    work: Work,
    user: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut users = self.work.lock();
        if let Some(jobs) = users.get_mut(&self.user) {
            *jobs -= 1;
            if *jobs == 0 {
                users.remove(&self.user);
            }
        }
    }
}
