//! Events that were taken out under a lock, to be dropped after it was released.

use crate::sync::contain;

/// Drops its events one by one; a panic in one drop neither stops the others nor reaches the caller.
///
/// Made before the lock is taken. An append usually takes out two events at most, the oldest of the history and the one that
/// it replaces under its key: these need no allocation.
pub(super) struct Discarded<T> {
    few: [Option<T>; 2],
    many: Vec<T>,
}

impl<T> Discarded<T> {
    pub(super) fn new() -> Self {
        Self {
            few: [None, None],
            many: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, event: T) {
        match self.few.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(event),
            None => self.many.push(event),
        }
    }
}

impl<T> Extend<T> for Discarded<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, events: I) {
        events.into_iter().for_each(|event| self.push(event));
    }
}

impl<T> Drop for Discarded<T> {
    fn drop(&mut self) {
        let few = self.few.iter_mut().filter_map(Option::take);
        for event in few.chain(self.many.drain(..)) {
            contain(|| drop(event));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    use std::sync::{Arc, Weak, mpsc};
    use std::thread;
    use std::time::Duration;

    use tokio::time::Instant;

    use crate::channel::{Channel, History, Label, Log, Origin, Retention, Upstream};
    use crate::position::Position;

    fn log_of<T: Clone + Send + 'static>(
        history: History,
        upstream: Option<Upstream>,
    ) -> (Arc<Log<T>>, Channel<T>) {
        let retention = Retention::new(Some(history), 1, upstream, Arc::default());
        let log = Log::new(Arc::new(retention));
        let channel = Channel::open("u".into(), 0, 4, Some(log.clone()), None);
        (log, channel)
    }

    /// An event that another thread may look into the log for when it is dropped.
    #[derive(Clone)]
    struct Probe {
        log: Weak<Log<Probe>>,
        dropped_under_the_lock: Arc<AtomicUsize>,
    }

    impl Drop for Probe {
        fn drop(&mut self) {
            let Some(log) = self.log.upgrade() else {
                return;
            };
            let (looked, has_looked) = mpsc::channel();
            thread::spawn(move || {
                log.is_complete();
                let _ = looked.send(());
            });
            if has_looked.recv_timeout(Duration::from_secs(10)).is_err() {
                self.dropped_under_the_lock.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    #[test]
    fn an_event_that_is_forgotten_is_dropped_after_the_lock() {
        let history = History::new(2).bytes(1000).age(Duration::from_secs(60));
        let (log, channel) = log_of(history, None);
        let probe = Probe {
            log: Arc::downgrade(&log),
            dropped_under_the_lock: Arc::default(),
        };
        let send = |weight, key| {
            let label = Label::event(weight, key);
            channel.append(Origin::Here, label, |_| probe.clone());
        };
        let keep_under = |key| [Some(key), None, None].map(|key| send(1, key));
        keep_under("one");
        send(1, Some("one"));
        keep_under("one");
        send(1, Some("another"));
        send(1001, None);
        keep_under("one");
        let later = Instant::now() + Duration::from_secs(61);
        assert!(log.if_over(later, || None::<()>).is_none());
        let dropped = probe.dropped_under_the_lock.load(Ordering::Relaxed);
        assert_eq!(dropped, 0);
    }

    #[test]
    fn a_notice_that_is_not_needed_is_dropped_after_the_lock() {
        let epoch = Arc::new(AtomicU64::new(1));
        let upstream = Upstream::new({
            let epoch = epoch.clone();
            move || Position {
                epoch: epoch.load(Ordering::Relaxed),
                offset: 10,
            }
        });
        let (log, channel) = log_of(History::new(100), Some(upstream));
        let probe = Probe {
            log: Arc::downgrade(&log),
            dropped_under_the_lock: Arc::default(),
        };
        let append = |origin| channel.append(origin, Label::event(1, None), |_| probe.clone());
        let show = || {
            append(Origin::Ahead {
                notice: probe.clone(),
                weight: 1,
            })
        };
        show();
        show();
        epoch.store(2, Ordering::Relaxed);
        append(Origin::Reset);
        channel.roster().complete(None);
        show();
        let dropped = probe.dropped_under_the_lock.load(Ordering::Relaxed);
        assert_eq!(dropped, 0);
    }

    /// An event whose drop panics if this is set.
    #[derive(Clone)]
    struct Bad(bool);

    impl Drop for Bad {
        fn drop(&mut self) {
            assert!(!self.0, "this is an event that panics");
        }
    }

    #[test]
    fn a_log_is_dropped_although_one_of_its_events_panics() {
        // The first is kept under its key, the others in the window.
        for bad in 0..3 {
            let (log, channel) = log_of(History::new(2), None);
            for (number, key) in [Some("a key"), None, None].into_iter().enumerate() {
                let label = Label::event(1, key);
                channel.append(Origin::Here, label, |_| Bad(number == bad));
            }
            drop((log, channel));
        }
    }
}
