//! The streams of a connection, and their flow-control windows.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::chunk::Load;
use super::frames::{CONTINUATION, END_HEADERS, Frames, HEADERS, RST_STREAM, Seen};
use crate::serve::grace::GracePeriod;
use crate::sync::{keep_waker, lock};

/// The window of a connection, and that of a stream unless the client says otherwise (RFC 9113, section 6.9.2).
const WINDOW: i64 = 65_535;

/// How long a client may take to close after GOAWAY: a round trip or two.
const FAREWELL: Duration = Duration::from_secs(1);

/// The streams of a connection.
///
/// A stream that is reset has left, but its connection stays open for the others. If there are none, and the client
/// reads nothing, not even the reset, the connection gets what remains of that stream's grace period and is then closed.
#[derive(Debug)]
pub(super) struct Streams {
    /// Held while the grace period is set, so that a stream that opens is not taken for the one that leaves.
    state: Mutex<State>,
    /// Of the connection's IO.
    grace_period: Arc<GracePeriod>,
    /// How long a stream may stand still.
    pub(super) limit: Duration,
}

#[derive(Debug)]
struct State {
    count: usize,
    /// When the last stream left, or the connection opened.
    idle_since: Instant,
    /// When the unfinished frame or head began. Set from the start: the client has to send SETTINGS first.
    partial_since: Option<Instant>,
    is_head_open: bool,
    /// The stream of the last complete head, until hyper starts it.
    head: Option<u32>,
    flows: HashMap<u32, Flow>,
    initial_window: i64,
    /// What may be sent on the connection.
    window: i64,
    /// How many WINDOW_UPDATEs there were for the connection.
    grants: u64,
    /// When a holder of the connection's window was last reset, and `grants` at that time.
    relieved: Option<(Instant, u64)>,
    /// The task of the connection, while there are streams.
    connection: Option<Waker>,
}

/// What the client sent together: the bytes of one read.
#[derive(Debug, Default)]
pub(super) struct Burst {
    /// The newest stream before it.
    before: u32,
    /// The newest stream. Ids only grow; HEADERS of an older stream are its trailers.
    newest: u32,
    /// How many streams it opened and reset.
    resets: usize,
}

/// How many streams a client may open and reset in one burst. Each costs a task and a handler, and none counts as open
/// (CVE-2023-44487). h2 has the same limit for streams that are reset before hyper has accepted them. h2 never reaches its
/// limit here, since it gets one head at a time.
const MOST_RESETS: usize = 20;

/// The flow-control state of a stream.
#[derive(Debug)]
struct Flow {
    /// What may be sent on the stream, as far as the connection's window allows it too.
    window: i64,
    /// What was sent and is not covered by a WINDOW_UPDATE: the client has not read it, or has not reported it yet. It
    /// counts against the connection's window as well.
    unread: u64,
    /// When the window last changed.
    moved: Instant,
    load: Arc<Load>,
}

/// A stream, shared by its tasks: the one that answers, and one more if it is upgraded.
#[derive(Debug)]
pub(super) struct Stream {
    /// `None` if it was started without a head, which only a change in h2 or hyper could bring about.
    id: Option<u32>,
    pub(super) load: Arc<Load>,
    pub(super) streams: Arc<Streams>,
}

/// How long to wait for a client, and for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    pub(super) deadline: Instant,
    pub(super) time: Duration,
    /// For a new stream; otherwise for the rest of a frame or head.
    pub(super) is_idle: bool,
}

impl Streams {
    pub(super) fn new(limit: Duration, grace_period: Arc<GracePeriod>, opened: Instant) -> Self {
        let state = Mutex::new(State {
            count: 0,
            idle_since: opened,
            partial_since: Some(opened),
            is_head_open: false,
            head: None,
            flows: HashMap::new(),
            initial_window: WINDOW,
            window: WINDOW,
            grants: 0,
            relieved: None,
            connection: None,
        });
        Self {
            state,
            grace_period,
            limit,
        }
    }

    /// Processes what the client sent, up to the end of a request's head. Returns whether there was one.
    ///
    /// Fails when too many of the burst's own streams were reset.
    pub(super) fn receive(
        &self,
        frames: &mut Frames,
        burst: &mut Burst,
        bytes: &mut &[u8],
    ) -> io::Result<bool> {
        let state = &mut *lock(&self.state);
        while let Some(seen) = frames.next(bytes) {
            burst.receive(&seen)?;
            if state.receive(seen) {
                return Ok(true);
            }
        }
        if state.is_head_open || frames.is_within() {
            state.partial_since.get_or_insert_with(Instant::now);
        }
        Ok(false)
    }

    /// Counts bytes that were sent on a stream.
    pub(super) fn sent(&self, stream: u32, len: usize) {
        let state = &mut *lock(&self.state);
        state.window -= len as i64;
        if let Some(flow) = state.flows.get_mut(&stream) {
            flow.window -= len as i64;
            flow.unread += len as u64;
            flow.moved = Instant::now();
        }
    }

    /// Returns how long to wait for the client; `None` for as long as there are streams and no unfinished head. The calling
    /// task is woken when the last stream leaves.
    pub(super) fn wait(
        &self,
        heads: Duration,
        idle: Duration,
        is_told: bool,
        cx: &Context<'_>,
    ) -> Option<Wait> {
        let mut state = lock(&self.state);
        let partial = state.partial_since.map(|since| Wait {
            deadline: since + heads,
            time: heads,
            is_idle: false,
        });
        if state.count > 0 {
            keep_waker(&mut state.connection, cx);
            return partial;
        }
        let deadline = state.idle_since + idle;
        let (deadline, time) = match is_told {
            false => (deadline, idle),
            true => (deadline + FAREWELL, FAREWELL),
        };
        let idle = Wait {
            deadline,
            time,
            is_idle: true,
        };
        Some(match partial {
            Some(partial) if partial.deadline < deadline => partial,
            _ => idle,
        })
    }
}

impl Burst {
    /// Begins the next one.
    pub(super) fn begin(&mut self) {
        (self.before, self.resets) = (self.newest, 0);
    }

    fn receive(&mut self, seen: &Seen) -> io::Result<()> {
        match *seen {
            Seen::End {
                kind: HEADERS,
                stream,
                ..
            } => self.newest = self.newest.max(stream),
            Seen::End {
                kind: RST_STREAM,
                stream,
                ..
            } if stream > self.before => self.resets += 1,
            _ => {}
        }
        match self.resets {
            0..=MOST_RESETS => Ok(()),
            _ => Err(io::Error::other(
                "the client reset too many streams as it opened them",
            )),
        }
    }
}

impl State {
    /// Returns whether it is the end of a request's head.
    fn receive(&mut self, seen: Seen) -> bool {
        match seen {
            Seen::End {
                kind,
                flags,
                stream,
            } => {
                let is_head = matches!(kind, HEADERS | CONTINUATION);
                let is_last = flags & END_HEADERS != 0;
                if is_head {
                    self.is_head_open = !is_last;
                }
                if !self.is_head_open {
                    self.partial_since = None;
                }
                if is_head && is_last {
                    self.head = Some(stream);
                    return true;
                }
            }
            Seen::Grant { stream: 0, bytes } => {
                self.window += i64::from(bytes);
                self.grants += 1;
            }
            Seen::Grant { stream, bytes } => {
                if let Some(flow) = self.flows.get_mut(&stream) {
                    flow.window += i64::from(bytes);
                    // Some clients enlarge a window before anything was sent.
                    flow.unread = flow.unread.saturating_sub(bytes.into());
                    flow.moved = Instant::now();
                }
            }
            Seen::InitialWindow(bytes) => {
                let wider = i64::from(bytes) - self.initial_window;
                self.initial_window += wider;
                for flow in self.flows.values_mut() {
                    flow.window += wider;
                }
            }
            // Until its head was complete, it could have been any frame. How fast the rest may come is up to the service.
            Seen::Data { .. } => self.partial_since = None,
        }
        false
    }

    /// The stream with the most unread bytes.
    fn holder(&self) -> Option<(u32, &Flow)> {
        let flows = self.flows.iter().map(|(id, flow)| (*id, flow));
        flows.max_by_key(|(_, flow)| flow.unread)
    }
}

impl Stream {
    /// Opens the stream whose head was just read.
    pub(super) fn open(streams: &Arc<Streams>) -> Arc<Self> {
        let load = Load::new();
        let state = &mut *lock(&streams.state);
        state.count += 1;
        streams.grace_period.watch(None);
        let id = state.head.take();
        if let Some(id) = id {
            let flow = Flow {
                window: state.initial_window,
                unread: 0,
                moved: Instant::now(),
                load: Arc::clone(&load),
            };
            state.flows.insert(id, flow);
        }
        Arc::new(Self {
            id,
            load,
            streams: Arc::clone(streams),
        })
    }

    /// Decides whether a stream that has stood still for the limit is spared. If so, returns from when its wait counts.
    ///
    /// - Its own window is closed: it is reset. So it is if that of the connection is open, unless a stream was reset within the
    ///   limit so that it opens.
    /// - Only the connection's window is closed: other streams, which the client does not read, have used it up. The
    ///   one with the most unread bytes is reset instead, even if it has nothing more to send. The client then has to
    ///   return what that stream held (RFC 9113, section 6.9), and has the limit once more for it.
    /// - The client has returned nothing in that time: it withholds the connection's window itself, so this stream is reset.
    pub(super) fn is_spared(&self) -> Option<Instant> {
        let limit = self.streams.limit;
        let now = Instant::now();
        let mut state = lock(&self.streams.state);
        let id = self.id?;
        let flow = state.flows.get(&id)?;
        let is_open = state.window > 0;
        let grants = state.grants;
        let relief = Some((now, grants));
        if flow.window <= 0 {
            if !is_open {
                state.relieved = relief;
            }
            return None;
        }
        if let Some((at, before)) = state.relieved {
            // The client may have returned the window just now, and this stream not have used it yet.
            if now < at + limit {
                return Some(at);
            }
            if before == grants {
                return None;
            }
        }
        if is_open {
            return None;
        }
        let holder = state
            .holder()
            .filter(|(_, holder)| holder.unread > flow.unread);
        let blamed = holder.map(|(_, holder)| Arc::clone(&holder.load));
        state.relieved = relief;
        drop(state);
        blamed?.blame();
        Some(now)
    }

    /// Since when an upgraded stream has stood still: until now, if it does not.
    ///
    /// What its handler wants to send cannot be seen. But a client that reads does not leave the stream's window closed for
    /// so long, nor the connection's if this stream has used it up.
    pub(super) fn closed_since(&self) -> Option<Instant> {
        let state = lock(&self.streams.state);
        let id = self.id?;
        let flow = state.flows.get(&id)?;
        let is_holder = || state.holder().is_some_and(|(holder, _)| holder == id);
        let is_closed = flow.window <= 0 || (state.window <= 0 && is_holder());
        Some(match is_closed {
            true => flow.moved,
            false => Instant::now(),
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut state = lock(&self.streams.state);
        state.count -= 1;
        if let Some(id) = self.id {
            state.flows.remove(&id);
        }
        if state.count > 0 {
            return;
        }
        state.idle_since = Instant::now();
        self.load
            .grace_period()
            .hand_over_to(&self.streams.grace_period);
        let connection = state.connection.take();
        drop(state);
        if let Some(connection) = connection {
            connection.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::http2::frames::DATA;

    /// Two streams wait for the connection's window. When one has had the holder reset, the client may return the window
    /// before the other is judged, and before either has used it.
    #[tokio::test(start_paused = true)]
    async fn a_stream_is_spared_whose_connection_has_just_got_its_window_back() {
        let limit = Duration::from_secs(1);
        let streams = Arc::new(Streams::new(limit, Arc::default(), Instant::now()));
        let [ann, bob, eve] = [1, 3, 5].map(|id| {
            lock(&streams.state).head = Some(id);
            Stream::open(&streams)
        });
        streams.sent(1, WINDOW as usize);
        tokio::time::advance(limit).await;
        let now = Instant::now();
        assert_eq!(eve.is_spared(), Some(now));
        let cx = Context::from_waker(Waker::noop());
        assert!(ann.load.is_blamed(&cx));
        let grant = Seen::Grant {
            stream: 0,
            bytes: WINDOW as u32,
        };
        assert!(!lock(&streams.state).receive(grant));
        assert_eq!(bob.is_spared(), Some(now));
        // Not for ever.
        tokio::time::advance(limit).await;
        assert_eq!(bob.is_spared(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_of_data_may_take_its_time_wherever_its_head_is_cut() {
        let opened = Instant::now();
        let streams = Streams::new(Duration::MAX, Arc::default(), opened);
        let mut frames = Frames::default();
        let mut burst = Burst::default();
        let mut receive = |mut bytes: &[u8]| {
            let received = streams.receive(&mut frames, &mut burst, &mut bytes);
            received.expect("no stream is reset");
        };
        let is_waited_for = || lock(&streams.state).partial_since.is_some();

        receive(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
        assert!(!is_waited_for());
        let data = [0, 0, 3, DATA, 0, 0, 0, 0, 1, b'a', b'b', b'c'];
        for cut in 1..data.len() {
            receive(&data[..cut]);
            assert_eq!(is_waited_for(), cut < 9, "{cut}");
            receive(&data[cut..data.len() - 1]);
            assert!(!is_waited_for(), "{cut}");
            receive(&data[data.len() - 1..]);
            assert!(!is_waited_for(), "{cut}");
        }
    }
}
