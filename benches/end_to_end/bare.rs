//! The limit: a loop that hands the same bytes to the kernel, once for each connection, and nothing else.
//!
//! The sockets block, so that there is nothing to poll for: an event costs one `send(2)` per connection. A client that does
//! not read would hold up all others, and one that has gone is never noticed. No server can be like that.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use socket2::{Domain, Socket, Type};

use crate::publish::blocking;
use crate::stamped::Stamped;
use crate::support::process::answer;

pub(crate) const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

type Users = Arc<Mutex<Vec<Vec<TcpStream>>>>;

pub(crate) fn be_server(users: usize) -> io::Result<()> {
    let http = listener()?;
    let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let (control_addr, addr) = (control.local_addr()?, http.local_addr()?);
    answer(&format!("{control_addr} http://{addr}"), |_| 0.to_string());
    let connections: Users = Arc::new(Mutex::new((0..users).map(|_| Vec::new()).collect()));
    let accepted = Arc::clone(&connections);
    thread::spawn(move || {
        for tcp in http.incoming().flatten() {
            // Who goes away before the head is sent is not missed.
            let _ = begin(tcp, &accepted);
        }
    });
    let (control, _) = control.accept()?;
    let mut stamped = Stamped::default();
    blocking(control, |number, size| {
        let chunk = chunk(stamped.at(number, size));
        let mut users = lock(&connections);
        let user = number as usize % users.len();
        for tcp in &mut users[user] {
            tcp.write_all(chunk.as_bytes())?;
        }
        Ok(())
    })
}

/// One that nobody waits for, with a backlog as long as everybody's here.
pub(crate) fn listener() -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(crate::BACKLOG as i32)?;
    Ok(socket.into())
}

fn begin(mut tcp: TcpStream, connections: &Users) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut request = [0; 1024];
    let mut len = 0;
    while !request[..len].ends_with(b"\r\n\r\n") {
        match tcp.read(&mut request[len..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => len += read,
        }
    }
    let user = user(&request[..len])?;
    // Under the lock: an event must not come before the head.
    let mut users = lock(connections);
    tcp.write_all(HEAD)?;
    users[user].push(tcp);
    Ok(())
}

/// Whose stream a request asks for.
pub(crate) fn user(request: &[u8]) -> io::Result<usize> {
    let request = String::from_utf8_lossy(request);
    let path = request.split(' ').nth(1).unwrap_or_default();
    path.trim_start_matches('/')
        .parse()
        .map_err(io::Error::other)
}

/// An event as it is sent.
pub(crate) fn chunk(event: &Stamped) -> String {
    let data = format!("data: {}\n\n", event.data());
    format!("{:x}\r\n{data}\r\n", data.len())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it is held")
}
