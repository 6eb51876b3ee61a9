//! `subscription/shard.rs` and `channel/plain.rs`: a task that attends to streams, among everything else that happens to them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use loom::thread;

use super::support::*;
use crate::channel::{Plain, Resume};
use crate::registry::Registry;
use crate::subscription::{Attendant, Member, Shard, StreamHandle, Subscription};
use crate::sync::Mutex;

/// A stream with a socket that keeps what is written.
struct Socket {
    handle: StreamHandle<u32>,
    state: Mutex<State>,
}

struct State {
    stream: Subscription<u32>,
    written: Vec<u32>,
    is_full: bool,
    /// How many events are written at once.
    most: usize,
}

impl Socket {
    fn of(stream: Subscription<u32>) -> Arc<Self> {
        Arc::new(Self {
            handle: stream.guard().stream_handle(),
            state: Mutex::new(State {
                stream,
                written: Vec::new(),
                is_full: false,
                most: usize::MAX,
            }),
        })
    }

    /// What the stream's own task does when its socket has room: whether the stream has ended.
    fn look(&self, cx: &mut Context<'_>) -> bool {
        self.state.with(|state| {
            state.is_full = false;
            loop {
                match poll(&mut state.stream, cx) {
                    Poll::Ready(Some(Ok(event))) => state.written.push(event),
                    Poll::Ready(Some(Err(gap))) => panic!("{gap:?}"),
                    Poll::Ready(None) => return true,
                    Poll::Pending => return false,
                }
            }
        })
    }

    fn look_once(&self) -> bool {
        self.look(&mut Context::from_waker(Waker::noop()))
    }

    fn written(&self) -> Vec<u32> {
        self.state.with(|state| state.written.clone())
    }
}

/// The number of the last event that a stream has found in this pass: one that has got that event is given no more.
type Found = Option<u64>;

impl Member<Found> for Socket {
    fn attend(&self, found: &mut Found) -> bool {
        let (has_to_look, has_more) = self.state.with(|state| {
            let (mut got, mut last) = (0, None);
            while !state.is_full {
                if got == state.most {
                    return (false, true);
                }
                match self.handle.next_plain(|event| *event < 10) {
                    Plain::Event(event, number) => {
                        state.written.push(event);
                        got += 1;
                        last = Some(number);
                        if last == *found {
                            return (false, false);
                        }
                    }
                    Plain::Nothing => {
                        *found = last.or(*found);
                        return (false, false);
                    }
                    Plain::Other => return (true, false),
                }
            }
            (false, false)
        });
        if has_to_look {
            self.handle.wake();
        }
        has_more
    }
}

/// Whether a task was woken.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The task of a stream, which has looked once.
struct Owner {
    socket: Arc<Socket>,
    bell: Arc<Bell>,
}

impl Owner {
    fn of(socket: Arc<Socket>) -> Self {
        let bell: Arc<Bell> = Arc::default();
        bell.clone().wake();
        let owner = Self { socket, bell };
        assert!(!owner.go_on());
        owner
    }

    /// Looks as long as it is woken. Whether the stream has ended.
    fn go_on(&self) -> bool {
        let waker = Waker::from(self.bell.clone());
        let mut cx = Context::from_waker(&waker);
        let mut has_ended = false;
        while self.bell.0.swap(false, Ordering::SeqCst) {
            has_ended = self.socket.look(&mut cx);
        }
        has_ended
    }
}

/// The task of a shard.
struct Task {
    attendant: Attendant<u32, Socket, Found>,
    bell: Arc<Bell>,
}

impl Task {
    fn of(shard: &Arc<Shard<Socket>>, first: &Arc<Socket>) -> Self {
        let bell = first.handle.attend().expect("it has not ended");
        Self {
            attendant: Attendant::new(shard.clone(), bell),
            bell: Arc::default(),
        }
    }

    /// Polls it until it waits. Whether it has ended.
    fn run(&mut self) -> bool {
        self.bell.0.store(true, Ordering::SeqCst);
        self.go_on()
    }

    /// The same, if it was woken.
    fn go_on(&mut self) -> bool {
        let waker = Waker::from(self.bell.clone());
        let mut cx = Context::from_waker(&waker);
        while self.bell.0.swap(false, Ordering::SeqCst) {
            if Pin::new(&mut self.attendant).poll(&mut cx).is_ready() {
                return true;
            }
        }
        false
    }
}

fn crowd<const N: usize>(hub: &Hub) -> (Arc<Shard<Socket>>, [Arc<Socket>; N], Task) {
    let shard = Arc::new(Shard::new());
    let sockets = std::array::from_fn(|n| Socket::of(register(hub, "u", &n.to_string())));
    let task = Task::of(&shard, &sockets[0]);
    for socket in &sockets {
        socket.handle.attend().expect("it has not ended");
        assert!(shard.join(socket).is_some());
    }
    (shard, sockets, task)
}

/// An event comes while the attendant goes through: does every stream get it?
///
/// Fails: an_attendant_waits_after_its_pass, an_attendant_is_woken_before_the_event_is_there, a_pass_does_not_begin_anew.
#[test]
fn a_broadcast_meets_a_pass() {
    model(10, || {
        let hub = hub();
        let (_shard, sockets, mut task) = crowd::<2>(&hub);
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || publish(&hub, "u", 1))
        };
        task.run();
        assert_eq!(sender.join().unwrap(), 2);
        task.go_on();
        for socket in sockets {
            assert_eq!(socket.written(), [1]);
        }
    });
}

/// Two events come while the attendant writes one at a time to each stream: does every stream get both, in order?
///
/// Fails: no_pass_follows_for_a_member_that_has_more.
#[test]
fn two_broadcasts_meet_passes_of_an_event_each() {
    model(10, || {
        let hub = hub();
        let (_shard, sockets, mut task) = crowd::<2>(&hub);
        for socket in &sockets {
            socket.state.with(|state| state.most = 1);
        }
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || {
                publish(&hub, "u", 1);
                publish(&hub, "u", 2);
            })
        };
        task.run();
        sender.join().unwrap();
        task.go_on();
        for socket in sockets {
            assert_eq!(socket.written(), [1, 2]);
        }
    });
}

/// An ephemeral event comes between two others, or last, while the attendant goes through: is each written in its place?
///
/// Fails: an_attendant_overtakes_an_ephemeral_event.
#[test]
fn an_ephemeral_event_meets_a_pass() {
    for is_last in [false, true] {
        model(10, move || {
            let hub = hub();
            let (_shard, [socket], mut task) = crowd::<1>(&hub);
            let owner = Owner::of(socket.clone());
            let sender = {
                let hub = hub.clone();
                thread::spawn(move || {
                    publish(&hub, "u", 1);
                    pass(&hub, 11);
                    if !is_last {
                        publish(&hub, "u", 2);
                    }
                })
            };
            task.run();
            sender.join().unwrap();
            task.go_on();
            owner.go_on();
            let all = [1, 11, 2];
            assert_eq!(socket.written(), all[..3 - usize::from(is_last)]);
        });
    }
}

/// An ephemeral event comes while the attendant gives a stream the event before it. The attendant then looks for more, or knows from
/// another stream that there is none: the stream must get the ephemeral event in either case.
///
/// Fails: an_attendant_misses_an_ephemeral_event, an_attendant_with_an_event_wakes_nobody.
#[test]
fn an_ephemeral_event_meets_the_end_of_a_pass() {
    for found in [None, Some(1)] {
        model(10, move || {
            let hub = hub();
            let socket = Socket::of(register(&hub, "u", "a"));
            socket.handle.attend().expect("it has not ended");
            let owner = Owner::of(socket.clone());
            publish(&hub, "u", 1);
            let sender = {
                let hub = hub.clone();
                thread::spawn(move || pass(&hub, 11))
            };
            assert!(!socket.attend(&mut { found }));
            sender.join().unwrap();
            owner.go_on();
            assert_eq!(socket.written(), [1, 11]);
        });
    }
}

/// The tasks of two shards ask to be woken for the next event of the same ring, and that comes: is each of them woken?
///
/// Fails: one_attendant_is_woken.
#[test]
fn a_pass_meets_a_pass() {
    model(40, || {
        let hub = hub();
        let [(one, mut here), (two, mut there)] = ["a", "b"].map(|id| {
            let shard = Arc::new(Shard::new());
            let socket = Socket::of(register(&hub, "u", id));
            let task = Task::of(&shard, &socket);
            assert!(shard.join(&socket).is_some());
            (socket, task)
        });
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || publish(&hub, "u", 1))
        };
        let other = thread::spawn(move || {
            there.run();
            there
        });
        here.run();
        assert_eq!(sender.join().unwrap(), 2);
        let mut there = other.join().unwrap();
        here.go_on();
        there.go_on();
        assert_eq!((one.written(), two.written()), (vec![1], vec![1]));
    });
}

/// A stream registers and takes its place in the ring while the attendant reads from another one: does each get the event if it
/// was reached?
#[test]
fn a_registration_meets_a_pass() {
    model(20, || {
        let hub = hub();
        let (_shard, [old], mut task) = crowd::<1>(&hub);
        let newcomer = {
            let hub = hub.clone();
            thread::spawn(move || register(&hub, "u", "new"))
        };
        let reached = publish(&hub, "u", 1);
        task.run();
        let mut new = newcomer.join().unwrap();
        task.go_on();
        assert_eq!((old.written(), reached >= 1), (vec![1], true));
        assert_eq!(read(&mut new).events.len(), reached - 1);
    });
}

/// Two events come during a pass, and the second is not what its first stream has found.
///
/// Fails: a_pass_does_not_begin_anew.
#[test]
fn two_broadcasts_meet_a_pass() {
    model(10, || {
        let hub = hub();
        let (_shard, sockets, mut task) = crowd::<2>(&hub);
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || {
                publish(&hub, "u", 1);
                publish(&hub, "u", 2);
            })
        };
        task.run();
        sender.join().unwrap();
        task.go_on();
        for socket in sockets {
            assert_eq!(socket.written(), [1, 2]);
        }
    });
}

/// The same event comes twice, as from a broadcast to a list that names the user twice, and one stream has written the first
/// by itself: does the other get both?
///
/// Fails: the_events_of_a_pass_have_no_numbers.
#[test]
fn the_same_event_twice_meets_a_pass() {
    model(10, || {
        let hub = hub();
        let (_shard, sockets, mut task) = crowd::<2>(&hub);
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || {
                publish(&hub, "u", 1);
                publish(&hub, "u", 1);
            })
        };
        sockets[0].look_once();
        task.run();
        sender.join().unwrap();
        task.go_on();
        for socket in sockets {
            assert_eq!(socket.written(), [1, 1]);
        }
    });
}

/// A socket that is full gets room while an event comes and the attendant goes through: is the event written once?
///
/// Fails: an_attendant_waits_after_its_pass, an_attendant_is_woken_before_the_event_is_there.
#[test]
fn a_pass_meets_a_stream_that_looks_itself() {
    model(10, || {
        let hub = hub();
        let (_shard, [socket], mut task) = crowd::<1>(&hub);
        socket.state.with(|state| state.is_full = true);
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || publish(&hub, "u", 1))
        };
        let owner = {
            let socket = socket.clone();
            thread::spawn(move || socket.look_once())
        };
        task.run();
        sender.join().unwrap();
        assert!(!owner.join().unwrap());
        task.go_on();
        assert_eq!(socket.written(), [1]);
    });
}

/// A stream becomes a member while an event comes and the attendant goes through.
///
/// Fails: an_attendant_waits_after_its_pass, an_attendant_is_woken_before_the_event_is_there.
#[test]
fn a_newcomer_meets_a_pass() {
    model(10, || {
        let hub = hub();
        let (shard, [old], mut task) = crowd::<1>(&hub);
        let new = Socket::of(register(&hub, "u", "new"));
        let sender = {
            let hub = hub.clone();
            thread::spawn(move || publish(&hub, "u", 1))
        };
        let owner = {
            let new = new.clone();
            thread::spawn(move || {
                new.handle.attend().expect("it has not ended");
                assert!(shard.join(&new).is_some());
                new.look_once()
            })
        };
        task.run();
        sender.join().unwrap();
        assert!(!owner.join().unwrap());
        task.go_on();
        assert_eq!((old.written(), new.written()), (vec![1], vec![1]));
    });
}

/// An event that is not plain is left to the stream, whose task sleeps: is that woken, and does it find the event?
///
/// Fails: what_is_left_to_the_stream_is_lost, a_stream_that_has_to_look_is_not_woken.
#[test]
fn what_is_not_plain_meets_a_stream_that_sleeps() {
    model(10, || {
        let hub = hub();
        let (_shard, [socket], mut task) = crowd::<1>(&hub);
        let owner = {
            let socket = socket.clone();
            thread::spawn(move || {
                loom::future::block_on(std::future::poll_fn(|cx| {
                    socket.look(cx);
                    match socket.written().is_empty() {
                        true => Poll::Pending,
                        false => Poll::Ready(()),
                    }
                }));
            })
        };
        task.run();
        publish(&hub, "u", 10);
        task.go_on();
        owner.join().unwrap();
        assert_eq!(socket.written(), [10]);
    });
}

/// A stream is cut while the attendant reads from it: it yields nothing more, and holds no event.
///
/// Fails: what_is_left_is_kept_at_the_end, the_end_is_not_looked_for_after_a_pass.
#[test]
fn a_cut_meets_a_pass() {
    for is_plain in [true, false] {
        model(10, move || {
            let hub: Arc<Registry<Arc<u32>>> = Arc::new(Registry::new(limits(), None));
            let opened = Subscription::open(&hub, "u".into(), tab("a"), Resume::Fresh, |_| None);
            let mut stream = opened.expect("there is room");
            let handle = stream.guard().stream_handle();
            let _bell = handle.attend().expect("it has not ended");
            let event = Arc::new(1);
            hub.with("u", |channel| append(channel, event.clone()));
            let cutter = {
                let hub = hub.clone();
                thread::spawn(move || hub.unregister("u", &"a".into()))
            };
            let read = handle.next_plain(|_| is_plain);
            assert!(cutter.join().unwrap());
            assert!(read == Plain::Other || (is_plain && read == Plain::Event(event.clone(), 1)));
            drop(read);
            assert_eq!(Arc::strong_count(&event), 1, "nobody will read it");
            assert_eq!(poll_once(&mut stream), Poll::Ready(None));
        });
    }
}

/// A user is drained while the attendant goes through: each stream gets what was sent before, once, and ends.
///
/// Fails: what_is_left_to_the_stream_is_lost, an_attendant_with_an_event_wakes_nobody.
#[test]
fn a_drain_meets_a_pass() {
    model(10, || {
        let hub = hub();
        let (_shard, sockets, mut task) = crowd::<2>(&hub);
        let owners = sockets.map(Owner::of);
        publish(&hub, "u", 1);
        let drainer = {
            let hub = hub.clone();
            thread::spawn(move || hub.drain("u"))
        };
        task.run();
        drainer.join().unwrap();
        task.go_on();
        for owner in owners {
            assert!(owner.go_on(), "it has ended");
            assert_eq!(owner.socket.written(), [1]);
        }
    });
}

/// The last member leaves while another comes: does a shard that takes it attend to it?
///
/// Fails: a_shard_closes_whoever_has_come, the_last_member_does_not_wake_the_task.
#[test]
fn the_last_to_leave_meets_one_that_comes() {
    model(10, || {
        let hub = hub();
        let shard = Arc::new(Shard::new());
        let old = Socket::of(register(&hub, "u", "old"));
        let new = Socket::of(register(&hub, "u", "new"));
        let mut task = Task::of(&shard, &old);
        let place = shard.join(&old).expect("it is new");
        new.handle.attend().expect("it has not ended");
        let owner = {
            let shard = shard.clone();
            thread::spawn(move || {
                let place = shard.join(&new);
                (place, new)
            })
        };
        let leaver = {
            let shard = shard.clone();
            thread::spawn(move || shard.leave(place))
        };
        let mut has_ended = task.run();
        leaver.join().unwrap();
        let (joined, new) = owner.join().unwrap();
        has_ended = has_ended || task.go_on();
        assert_eq!(has_ended, joined.is_none(), "a closed shard takes nobody");
        if joined.is_some() {
            publish(&hub, "u", 1);
            task.go_on();
            assert_eq!(new.written(), [1]);
            shard.leave(joined.unwrap());
            assert!(task.go_on(), "the last has left");
        }
    });
}
