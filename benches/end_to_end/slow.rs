//! One in ten stops reading: what do these cost, and do the others notice?

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};

use socket2::{Domain, Socket, Type};

use crate::design::{Design, Server};
use crate::generator::{Generator, OPENING};
use crate::support::{Mode, kernel};

#[derive(Debug, Clone, Copy)]
pub(crate) struct Slow {
    /// Of one user.
    pub(crate) readers: usize,
    pub(crate) stalled: usize,
    pub(crate) size: usize,
    /// Events a second.
    pub(crate) rate: u64,
    pub(crate) events: u64,
}

impl Slow {
    pub(crate) fn of(mode: Mode) -> Self {
        Self {
            readers: mode.pick(180, 9),
            stalled: mode.pick(20, 1),
            size: 4000,
            rate: 400,
            events: mode.pick(4000, 80),
        }
    }

    pub(crate) fn measure(&self, design: Design) -> io::Result<Cost> {
        let server = Server::start(design, 1, 1)?;
        let stalled: Result<Vec<_>, _> = (0..self.stalled).map(|_| stall(server.addr())).collect();
        let (mut clients, _) = Generator::open(&server, 1, self.readers, OPENING)?;
        let (memory, sockets) = (kernel::rss_kb(server.pid()), kernel::tcp_kb());
        let outcome = clients.run(self.events, self.size, u64::MAX, self.rate)?;
        let memory = kernel::rss_kb(server.pid()) - memory;
        let sockets = kernel::tcp_kb() - sockets;
        drop(stalled?);
        Ok(Cost {
            memory: memory / 1024.0,
            sockets: sockets / 1024.0,
            p99: outcome.latency.value_at_quantile(0.99) as f64 / 1e3,
        })
    }
}

/// A client that asks, with little room for an answer, and never reads it.
fn stall(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_recv_buffer_size(4096)?;
    socket.connect(&addr.into())?;
    let mut tcp = TcpStream::from(socket);
    write!(
        tcp,
        "GET /0 HTTP/1.1\r\nhost: test\r\naccept: text/event-stream\r\n\r\n"
    )?;
    Ok(tcp)
}

/// One round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    /// What the server's memory grew by, in MB.
    pub(crate) memory: f64,
    /// And that of all TCP sockets of the machine.
    pub(crate) sockets: f64,
    /// Of those that read, in microseconds.
    pub(crate) p99: f64,
}
