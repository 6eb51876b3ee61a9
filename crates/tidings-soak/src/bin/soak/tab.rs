//! One stream of one client, which is checked as it is read.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::checker::{Begin, Checker};
use crate::hubs::{Hub, Policy};
use crate::sse::Reader;
use crate::wire::{Connection, Head, PATIENCE, Request, Wire};
use crate::world::{Server, World};

/// What a client wants.
#[derive(Clone)]
pub(crate) struct Wish {
    pub(crate) hub: &'static Hub,
    pub(crate) user: String,
    pub(crate) policy: Policy,
    pub(crate) deadline: Option<Duration>,
    pub(crate) last_event_id: Option<Vec<u8>>,
    pub(crate) begin: Begin,
    pub(crate) is_narrow: bool,
    pub(crate) http2: bool,
    /// The path of another stream on the same HTTP/2 connection, which is not read.
    pub(crate) holds: Option<String>,
}

impl Wish {
    pub(crate) fn new(hub: &'static Hub, user: impl Into<String>) -> Self {
        Self {
            hub,
            user: user.into(),
            policy: hub.policies[0],
            deadline: None,
            last_event_id: None,
            begin: Begin::Fresh,
            is_narrow: false,
            http2: false,
            holds: None,
        }
    }

    /// `broadcaster/user`.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.hub.name, self.user)
    }

    pub(crate) fn request(&self) -> Request {
        let mut path = format!("/{}?policy={}", self.path(), self.policy.name());
        if let Some(deadline) = self.deadline {
            path += &format!("&deadline={}", deadline.as_millis());
        }
        Request {
            path,
            last_event_id: self.last_event_id.clone(),
            is_narrow: self.is_narrow,
        }
    }
}

/// What became of a request.
pub(crate) enum Opened {
    Tab(Box<Tab>),
    /// The status; 200 for a refusal in the form that browsers survive.
    Refused(u16),
}

pub(crate) struct Tab {
    pub(crate) checker: Checker,
    reader: Reader,
    wire: Wire,
}

/// How a stream has ended.
#[derive(Debug)]
pub(crate) enum End {
    /// As a response ends.
    Complete,
    Broken(io::Error),
    /// The server has broken a promise.
    Wrong(String),
}

impl Tab {
    pub(crate) async fn open(world: &World, server: &Server, wish: &Wish) -> io::Result<Opened> {
        let (addr, request) = (server.addr(), wish.request());
        world.count("connections opened", 1);
        let (head, wire) = match wish.http2 {
            false => Wire::http1(addr, &request).await?,
            true => {
                let mut connection = Connection::open(addr).await?;
                let mut held = None;
                if let Some(path) = &wish.holds {
                    let path = path.clone();
                    let request = Request {
                        path,
                        ..Request::default()
                    };
                    held = Some(connection.stream(&request).await?.1);
                }
                let (head, body) = connection.stream(&request).await?;
                (head, connection.with(body, held))
            }
        };
        Ok(Self::of(wish, head, wire))
    }

    pub(crate) fn of(wish: &Wish, head: Head, wire: Wire) -> Opened {
        match head {
            Head {
                status: 200,
                begins: Some(begins),
            } => Opened::Tab(Box::new(Self {
                checker: Checker::new(wish.hub, &wish.user, wish.policy, wish.begin, begins),
                reader: Reader::default(),
                wire,
            })),
            head => Opened::Refused(head.status),
        }
    }

    /// Reads once. May be given up at any time.
    pub(crate) async fn read(&mut self, most: usize) -> Result<(), End> {
        match self.wire.read(most).await {
            Ok(Some(bytes)) => {
                let checker = &mut self.checker;
                self.reader
                    .push(&bytes, |item| checker.take(item))
                    .map_err(End::Wrong)
            }
            Ok(None) if self.reader.is_between() => Err(End::Complete),
            Ok(None) => Err(End::Wrong(
                "a complete end in the middle of an event".to_owned(),
            )),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(End::Wrong(error.to_string()))
            }
            Err(error) => Err(End::Broken(error)),
        }
    }

    /// Reads until it is as it should be, for as long as [`PATIENCE`] has.
    pub(crate) async fn read_until(
        &mut self,
        is_right: impl Fn(&Checker) -> bool,
    ) -> Result<(), End> {
        let deadline = Instant::now() + PATIENCE;
        while !is_right(&self.checker) {
            match timeout_at(deadline, self.read(1 << 16)).await {
                Ok(read) => read?,
                Err(_) => {
                    let why = format!("nothing came of what was to come for {PATIENCE:?}");
                    return Err(End::Wrong(why));
                }
            }
        }
        Ok(())
    }

    /// Reads to the end, which must be one of a whole response.
    pub(crate) async fn read_to_end(&mut self) -> Result<(), String> {
        match self.read_until(|_| false).await {
            Err(End::Complete) => Ok(()),
            Err(End::Broken(error)) => Err(format!("the stream broke: {error}")),
            Err(End::Wrong(why)) => Err(why),
            Ok(()) => unreachable!("nothing is right"),
        }
    }

    /// Tells the account what it has seen.
    pub(crate) fn count(&self, world: &World) {
        let checker = &self.checker;
        world.count("deliveries checked", checker.events);
        world.count("gaps told", checker.gaps);
        world.count("events missed and told", checker.missed);
        world.count("heartbeats", checker.heartbeats);
    }

    pub(crate) fn reset(self) {
        self.wire.reset();
    }
}
