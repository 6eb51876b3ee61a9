//! The limit of one thread that never blocks: it learns from the kernel which sockets are ready, and has no task for any of
//! them.
//!
//! It writes like the bare loop, but to sockets that do not block, and events that can be sent at the same moment go into one
//! write. A socket that does not take all of it gets the rest when it is ready again. That, and noticing clients that have
//! gone, is what it costs more than the loop. It is no server either: it reads a request as if every client sent a proper one,
//! and keeps any amount for a client that does not read.

use std::io::{self, Read, Write};
use std::net::Ipv4Addr;

use bytes::{Buf, Bytes, BytesMut};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};

use crate::bare::{HEAD, chunk, listener, user};
use crate::publish::Progress;
use crate::stamped::Stamped;
use crate::support::process::answer;

const HTTP: Token = Token(0);
const CONTROL: Token = Token(1);
const PUBLISHER: Token = Token(2);
/// The token of the first connection.
const FIRST: usize = 3;

const EITHER: Interest = Interest::READABLE.add(Interest::WRITABLE);

pub(crate) fn be_server(users: usize) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let http = listener()?;
    http.set_nonblocking(true)?;
    let mut http = TcpListener::from_std(http);
    let mut control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let (control_addr, addr) = (control.local_addr()?, http.local_addr()?);
    let registry = poll.registry();
    registry.register(&mut http, HTTP, Interest::READABLE)?;
    registry.register(&mut control, CONTROL, Interest::READABLE)?;
    answer(&format!("{control_addr} http://{addr}"), |_| 0.to_string());
    let mut publisher = None;
    let mut streams = Streams::of(users);
    let mut ready = Events::with_capacity(1024);
    loop {
        poll.poll(&mut ready, None)?;
        for event in &ready {
            match event.token() {
                HTTP => accept(&http, |tcp| streams.add(tcp, poll.registry()))?,
                CONTROL => accept(&control, |mut tcp| {
                    let registry = poll.registry();
                    registry.register(&mut tcp, PUBLISHER, Interest::READABLE)?;
                    publisher = Some(Publisher::of(tcp));
                    Ok(())
                })?,
                PUBLISHER => {
                    if let Some(publisher) = &mut publisher {
                        publisher.read(&mut streams)?;
                    }
                }
                Token(token) => streams.attend(token - FIRST),
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    mut take: impl FnMut(TcpStream) -> io::Result<()>,
) -> io::Result<()> {
    while let Some((tcp, _)) = ready(listener.accept())? {
        take(tcp)?;
    }
    Ok(())
}

/// `None` if it would block.
fn ready<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads all that has come. `false` at the end.
fn read_all(tcp: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    while let Some(count) = ready(tcp.read(&mut buffer))? {
        if count == 0 {
            return Ok(false);
        }
        bytes.extend_from_slice(&buffer[..count]);
    }
    Ok(true)
}

struct Streams {
    all: Vec<Option<Stream>>,
    /// The streams of each user, and what is to be written to them.
    users: Vec<(Vec<usize>, BytesMut)>,
    /// Users for whom there is something to write.
    due: Vec<usize>,
}

struct Stream {
    tcp: TcpStream,
    request: Vec<u8>,
    /// Whose it is, once its request has come.
    user: Option<usize>,
    /// What the socket has not taken.
    rest: Vec<Bytes>,
}

impl Streams {
    fn of(users: usize) -> Self {
        Self {
            all: Vec::new(),
            users: vec![Default::default(); users],
            due: Vec::new(),
        }
    }

    fn add(&mut self, mut tcp: TcpStream, registry: &Registry) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        registry.register(&mut tcp, Token(FIRST + self.all.len()), EITHER)?;
        self.all.push(Some(Stream {
            tcp,
            request: Vec::new(),
            user: None,
            rest: Vec::new(),
        }));
        Ok(())
    }

    /// Goes on with a stream whose socket is ready.
    fn attend(&mut self, place: usize) {
        let Some(stream) = &mut self.all[place] else {
            return;
        };
        match stream.go_on() {
            Ok(true) if stream.user.is_none() && stream.request.ends_with(b"\r\n\r\n") => {
                let user = user(&stream.request).expect("a number");
                stream.user = Some(user);
                self.users[user].0.push(place);
                self.write(place, &Bytes::from_static(HEAD));
            }
            Ok(true) => {}
            Ok(false) | Err(_) => self.close(place),
        }
    }

    fn close(&mut self, place: usize) {
        if let Some(user) = self.all[place].take().and_then(|stream| stream.user) {
            self.users[user].0.retain(|there| *there != place);
        }
    }

    fn write(&mut self, place: usize, bytes: &Bytes) {
        let Some(stream) = &mut self.all[place] else {
            return;
        };
        if stream.write(bytes.clone()).is_err() {
            self.close(place);
        }
    }

    fn publish(&mut self, user: usize, event: &str) {
        let due = &mut self.users[user].1;
        if due.is_empty() {
            self.due.push(user);
        }
        due.extend_from_slice(event.as_bytes());
    }

    fn flush(&mut self) {
        for user in std::mem::take(&mut self.due) {
            let (places, due) = &mut self.users[user];
            let (places, bytes) = (places.clone(), due.split().freeze());
            for place in places {
                self.write(place, &bytes);
            }
        }
    }
}

impl Stream {
    /// Reads what has come, and writes what is left. `false` once the client has gone.
    fn go_on(&mut self) -> io::Result<bool> {
        if !read_all(&mut self.tcp, &mut self.request)? {
            return Ok(false);
        }
        for bytes in std::mem::take(&mut self.rest) {
            self.write(bytes)?;
        }
        Ok(true)
    }

    fn write(&mut self, mut bytes: Bytes) -> io::Result<()> {
        while self.rest.is_empty() && bytes.has_remaining() {
            match ready(self.tcp.write(&bytes))? {
                Some(count) => bytes.advance(count),
                None => break,
            }
        }
        if bytes.has_remaining() {
            self.rest.push(bytes);
        }
        Ok(())
    }
}

/// The connection that tells what to publish.
struct Publisher {
    tcp: TcpStream,
    read: Vec<u8>,
    stamped: Stamped,
    progress: Option<Progress>,
}

impl Publisher {
    fn of(tcp: TcpStream) -> Self {
        Self {
            tcp,
            read: Vec::new(),
            stamped: Stamped::default(),
            progress: None,
        }
    }

    fn read(&mut self, streams: &mut Streams) -> io::Result<()> {
        let is_open = read_all(&mut self.tcp, &mut self.read)?;
        let whole = self.read.iter().rposition(|byte| *byte == b'\n');
        let lines: Vec<u8> = self.read.drain(..whole.map_or(0, |at| at + 1)).collect();
        for line in String::from_utf8_lossy(&lines).lines() {
            match &mut self.progress {
                Some(progress) if !line.starts_with("run") => progress.acknowledge(line)?,
                progress => *progress = Some(Progress::of(line)?),
            }
        }
        if let Some(progress) = &mut self.progress {
            while let Some(number) = progress.next() {
                let user = number as usize % streams.users.len();
                let event = self.stamped.at(number, progress.run.size);
                streams.publish(user, &chunk(event));
            }
        }
        streams.flush();
        match is_open {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
