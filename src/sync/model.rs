//! Stand-ins for the models: what loom can schedule, and no stronger than the real thing.
//!
//! With `--cfg shuttle` beside `--cfg loom` they run over shuttle instead, which tries random schedules of larger
//! scenarios, under sequential consistency only.
//!
//! - **A token before each access.** loom takes two loads of one atomic for independent and then skips interleavings of
//!   code that loads and exchanges later, which is what every copy-on-write loop is. A relaxed read-modify-write of a
//!   token beforehand makes them dependent and orders nothing.
//! - **`ArcSwap`** is the index of the current version in one atomic. A load acquires it and may get any version that is
//!   still alive, an exchange acquires and releases. The real type promises more (each of its operations takes part in
//!   one total order), so what passes here passes there. It cannot show how the real type frees memory, and does not
//!   need to: the real type's own tests do that.
//! - **tokio's broadcast channel** and its **`Notify`** are the real ones, behind one scheduling point per call. loom's
//!   threads switch only at loom's operations, so a call is one atomic step, ordered like the mutex inside it.
//! - **Wakers** that go to `Notify` are wrapped, because tokio clones and drops them under its own mutex, where loom must not
//!   switch. Those that go to the channel are not loom's.
//! - **`Leaf`** is a `std` mutex, because tokio's channel runs drops and wakers that take it while it holds its own mutexes. It
//!   has a scheduling point only where it is taken outside of these.
//!
//! No loom operation happens while a `std` mutex in here is held.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};

#[cfg(not(shuttle))]
use loom::{cell::UnsafeCell, sync as checked, sync::atomic, thread};
#[cfg(shuttle)]
use shuttle::{sync as checked, sync::atomic, thread};

use super::receiver;

/// shuttle orders everything, so there is nothing to check.
#[cfg(shuttle)]
struct UnsafeCell<T>(std::marker::PhantomData<T>);

#[cfg(shuttle)]
impl<T> UnsafeCell<T> {
    fn new(_: T) -> Self {
        Self(std::marker::PhantomData)
    }

    fn with(&self, _: impl FnOnce(*const T)) {}

    fn with_mut(&self, _: impl FnOnce(*mut T)) {}
}

/// A scheduling point.
struct Token(atomic::AtomicUsize);

impl Token {
    fn new() -> Self {
        Self(atomic::AtomicUsize::new(0))
    }

    /// Lets any other thread run first, and orders nothing.
    fn pass(&self) {
        assert_outside();
        self.0.fetch_add(0, Ordering::Relaxed);
    }

    /// Lets any other thread run first, then orders this call after all earlier calls.
    fn enter(&self) {
        assert_outside();
        self.0.fetch_add(0, Ordering::AcqRel);
    }
}

thread_local! {
    /// Whether a call of tokio's channel is running. loom runs all its threads on one and does not switch during the call.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Fails if the channel, while it holds its locks, calls code of the service or anything that loom schedules.
fn assert_outside() {
    assert!(!INSIDE.get(), "it runs under a lock of tokio's");
}

/// Calls tokio's channel.
fn inside<R>(f: impl FnOnce() -> R) -> R {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            INSIDE.set(false);
        }
    }
    INSIDE.set(true);
    let _leave = Leave;
    f()
}

/// Lets other threads run, since the caller waits for one of them.
pub(crate) fn spin_loop() {
    thread::yield_now();
}

/// Always true: a thread of a model is not a task of tokio's and has no coop budget.
pub(crate) fn has_turn() -> bool {
    true
}

pub(crate) fn wait_for_turn(_: &mut Context<'_>) -> Poll<()> {
    Poll::Ready(())
}

pub(crate) fn use_turn(_: &mut Context<'_>) {}

/// Runs `f` as it is: a panic in a model is a failure of the model.
pub(crate) fn contain(f: impl FnOnce()) {
    f();
}

/// An atomic behind a scheduling point.
macro_rules! atomic {
    ($name:ident, $value:ty) => {
        pub(crate) struct $name {
            token: Token,
            value: atomic::$name,
        }

        #[allow(dead_code, reason = "for deliberate faults")]
        impl $name {
            pub(crate) fn new(value: $value) -> Self {
                Self {
                    token: Token::new(),
                    value: atomic::$name::new(value),
                }
            }

            pub(crate) fn load(&self, order: Ordering) -> $value {
                self.token.pass();
                self.value.load(order)
            }

            pub(crate) fn store(&self, value: $value, order: Ordering) {
                self.token.pass();
                self.value.store(value, order);
            }

            pub(crate) fn swap(&self, value: $value, order: Ordering) -> $value {
                self.token.pass();
                self.value.swap(value, order)
            }
        }
    };
}

/// The operations that only numbers have.
macro_rules! atomic_number {
    ($name:ident, $value:ty) => {
        atomic!($name, $value);

        #[allow(dead_code, reason = "not each of them needs all")]
        impl $name {
            pub(crate) fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.token.pass();
                self.value.fetch_add(value, order)
            }

            pub(crate) fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.token.pass();
                self.value.fetch_sub(value, order)
            }

            pub(crate) fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                self.token.pass();
                self.value.fetch_or(value, order)
            }

            pub(crate) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.token.pass();
                self.value.compare_exchange(current, new, success, failure)
            }

            pub(crate) fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.token.pass();
                self.value.compare_exchange(current, new, success, failure)
            }
        }
    };
}

atomic!(AtomicBool, bool);
atomic_number!(AtomicU64, u64);
atomic_number!(AtomicUsize, usize);

pub(crate) type Loaded<T> = Arc<T>;

pub(crate) struct ArcSwap<T> {
    token: Token,
    current: atomic::AtomicUsize,
    versions: std::sync::Mutex<Vec<Version<T>>>,
}

struct Version<T> {
    /// Set while the version is current. Afterwards only threads that loaded the version keep it alive.
    current: Option<Arc<T>>,
    value: Weak<T>,
    /// Written before the version is published and read after it is loaded, so that loom reports a load that is not ordered
    /// after the publication.
    contents: Arc<UnsafeCell<()>>,
}

impl<T> Version<T> {
    fn new(value: Arc<T>) -> Self {
        let contents = Arc::new(UnsafeCell::new(()));
        contents.with_mut(|_| ());
        Self {
            value: Arc::downgrade(&value),
            current: Some(value),
            contents,
        }
    }
}

impl<T> ArcSwap<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            token: Token::new(),
            current: atomic::AtomicUsize::new(0),
            versions: std::sync::Mutex::new(vec![Version::new(Arc::new(value))]),
        }
    }

    pub(crate) fn load(&self) -> Loaded<T> {
        self.token.pass();
        let stale = self.current.load(Ordering::Acquire);
        if let Some(value) = self.get(stale) {
            return value;
        }
        // Already dropped. Only the newest version is certain to be alive; a read-modify-write finds it.
        let newest = self.current.fetch_add(0, Ordering::Acquire);
        self.get(newest).expect("the current version is alive")
    }

    fn get(&self, index: usize) -> Option<Arc<T>> {
        let (value, contents) = {
            let versions = self.versions.lock().unwrap();
            let version = &versions[index];
            (version.value.upgrade()?, version.contents.clone())
        };
        contents.with(|_| ());
        Some(value)
    }

    #[allow(dead_code, reason = "for deliberate faults")]
    pub(crate) fn store(&self, new: T) {
        let new = Arc::new(new);
        while !self.exchange(&self.load(), &new) {}
    }

    #[must_use]
    pub(crate) fn compare_and_swap(&self, current: &Arc<T>, new: T) -> bool {
        self.exchange(current, &Arc::new(new))
    }

    fn exchange(&self, current: &Arc<T>, new: &Arc<T>) -> bool {
        self.token.pass();
        let version = Version::new(new.clone());
        let (from, to) = {
            let mut versions = self.versions.lock().unwrap();
            let from = versions
                .iter()
                .position(|version| std::ptr::eq(version.value.as_ptr(), Arc::as_ptr(current)))
                .expect("the caller holds a version of this cell");
            versions.push(version);
            (from, versions.len() - 1)
        };
        let won = self
            .current
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        let dropped = {
            let mut versions = self.versions.lock().unwrap();
            versions[if won { from } else { to }].current.take()
        };
        drop(dropped);
        won
    }
}

pub(crate) struct TryCell<T> {
    token: Token,
    value: checked::Mutex<T>,
}

impl<T> TryCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            token: Token::new(),
            value: checked::Mutex::new(value),
        }
    }

    pub(crate) fn try_with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.token.pass();
        let mut value = self.value.try_lock().ok()?;
        // Other threads may try while we hold the mutex, even if `f` itself is one step.
        self.token.pass();
        Some(f(&mut value))
    }
}

pub(crate) struct Mutex<T>(checked::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(checked::Mutex::new(value))
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.0.lock().unwrap())
    }
}

pub(crate) struct Leaf<T> {
    /// The channel's token. With one of its own, loom would treat accesses to the two as independent.
    token: Arc<Token>,
    value: std::sync::Mutex<T>,
}

impl<T> Leaf<T> {
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        self.token.enter();
        self.with_inside(f)
    }

    pub(crate) fn with_inside<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // `try_lock`: no other thread can hold it, and a call from within `f` is a fault.
        f(&mut self.value.try_lock().expect("it does not call itself"))
    }
}

pub(crate) struct Notify {
    token: Token,
    notify: tokio::sync::Notify,
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self {
            token: Token::new(),
            notify: tokio::sync::Notify::new(),
        }
    }

    pub(crate) fn notify_one(&self) {
        self.token.enter();
        self.notify.notify_one();
    }

    pub(crate) async fn notified(&self) {
        self.token.enter();
        let mut notified = pin!(self.notify.notified());
        poll_fn(|cx| {
            let waker = Wrapped::waker(cx.waker());
            self.token.enter();
            notified.as_mut().poll(&mut Context::from_waker(&waker))
        })
        .await;
    }
}

/// A waker whose clones and drops loom does not see.
struct Wrapped(Waker);

impl Wrapped {
    fn waker(waker: &Waker) -> Waker {
        Waker::from(Arc::new(Self(waker.clone())))
    }
}

impl Wake for Wrapped {
    fn wake(self: Arc<Self>) {
        self.0.wake_by_ref();
    }
}

pub(crate) struct Sender<T> {
    token: Arc<Token>,
    ring: Option<tokio::sync::broadcast::Sender<T>>,
}

impl<T: Clone + Send + 'static> Sender<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        let ring = tokio::sync::broadcast::Sender::new(capacity);
        Self {
            token: Arc::new(Token::new()),
            ring: Some(ring),
        }
    }

    fn ring(&self) -> &tokio::sync::broadcast::Sender<T> {
        self.token.enter();
        self.ring.as_ref().expect("taken only by drop")
    }

    pub(crate) fn send(&self, event: T) -> Result<usize, T> {
        let ring = self.ring();
        inside(|| ring.send(event)).map_err(|unsent| unsent.0)
    }

    pub(crate) fn subscribe(&self) -> Receiver<T> {
        let ring = self.ring();
        let receiver = inside(|| receiver::Receiver::new(ring.subscribe()));
        Receiver {
            token: self.token.clone(),
            receiver: Some(receiver),
        }
    }

    pub(crate) fn leaf<V>(&self, value: V) -> Leaf<V> {
        Leaf {
            token: self.token.clone(),
            value: std::sync::Mutex::new(value),
        }
    }

    #[allow(dead_code, reason = "for deliberate faults")]
    pub(crate) fn receiver_count(&self) -> usize {
        self.ring().receiver_count()
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.token.enter();
        inside(|| self.ring = None);
    }
}

pub(crate) struct Receiver<T> {
    token: Arc<Token>,
    receiver: Option<receiver::Receiver<T>>,
}

impl<T: Clone + Send + 'static> Receiver<T> {
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, u64>>> {
        self.token.enter();
        let receiver = self.receiver.as_mut().expect("taken only by drop");
        inside(|| receiver.poll_next(cx))
    }

    pub(crate) fn try_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, u64>>> {
        self.token.enter();
        let receiver = self.receiver.as_mut().expect("taken only by drop");
        inside(|| receiver.try_next(cx))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.token.enter();
        inside(|| self.receiver = None);
    }
}

/// Always the same, so that a model explores the same schedules in every run.
pub(crate) type KeyedHasher = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

/// One shard, so that all users of a model meet in it.
pub(crate) const SHARDS: usize = 1;

/// One stripe: nothing is decided by counters, and more would not fit on loom's stacks in a build that inlines little.
pub(crate) const STRIPES: usize = 1;

/// One, so that other threads can run between any two streams.
#[allow(dead_code, reason = "used by a feature")]
pub(crate) const TURN: usize = 1;
