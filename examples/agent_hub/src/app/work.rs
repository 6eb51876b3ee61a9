//! How many jobs the agent does at a time. A job goes on after its client has left, so the number of streams is no bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::http::StatusCode;

use super::body::{Refusal, bad};

/// At a time, of one user.
const MOST_OF_USER: usize = 10;

/// At a time, in all.
const MOST_IN_ALL: usize = 100;

/// Bytes of the agent's input: at 20 milliseconds a word, some minutes.
const MOST_TEXT: usize = 16 * 1024;

/// How many jobs each user has under way.
#[derive(Clone, Default)]
pub(super) struct Work(Arc<Mutex<HashMap<String, usize>>>);

impl Work {
    /// Takes a place for a job, if there is one and the job is not too long.
    pub(super) fn take(&self, user: &str, text: &str) -> Result<Place, Refusal> {
        if text.len() > MOST_TEXT {
            return Err(bad(format!("The agent reads at most {MOST_TEXT} bytes.")));
        }
        let mut users = self.lock();
        if users.get(user).is_some_and(|jobs| *jobs >= MOST_OF_USER) {
            let sentence = format!("The agent already does {MOST_OF_USER} jobs for this user.");
            return Err((StatusCode::TOO_MANY_REQUESTS, sentence));
        }
        if users.values().sum::<usize>() >= MOST_IN_ALL {
            let sentence = "The agent does as many jobs as it can.".to_owned();
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

/// Given back when the job is done or dropped.
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
