//! The limit of a task for each connection: tokio's channel, tokio's socket, and no HTTP in between.
//!
//! Like the bare loop it is no server: it reads a request as if every client sent a proper one, and does not notice when
//! clients leave. What it costs more than that loop is what waking a task and receiving in it cost.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Sender};

use crate::RING;
use crate::bare::{HEAD, chunk};
use crate::publish::Progress;
use crate::stamped::Stamped;
use crate::support::process::answer;

type Users = Arc<Vec<Sender<Bytes>>>;

pub(crate) async fn be_server(users: usize) -> io::Result<()> {
    let users: Users = Arc::new((0..users).map(|_| broadcast::channel(RING).0).collect());
    let http = TcpSocket::new_v4()?;
    http.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let http = http.listen(crate::BACKLOG)?;
    let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (control_addr, addr) = (control.local_addr()?, http.local_addr()?);
    answer(&format!("{control_addr} http://{addr}"), |_| 0.to_string());
    tokio::spawn(publish(control, Arc::clone(&users)));
    loop {
        let (tcp, _) = http.accept().await?;
        tokio::spawn(stream(tcp, Arc::clone(&users)));
    }
}

async fn stream(mut tcp: TcpStream, users: Users) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut events = {
        let mut request = [0; 1024];
        let mut len = 0;
        while !request[..len].ends_with(b"\r\n\r\n") {
            match tcp.read(&mut request[len..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => len += read,
            }
        }
        users[crate::bare::user(&request[..len])?].subscribe()
    };
    drop(users);
    tcp.write_all(HEAD).await?;
    loop {
        match events.recv().await {
            Ok(chunk) => tcp.write_all(&chunk).await?,
            // What it cannot tell anybody.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return Ok(()),
        }
    }
}

async fn publish(control: TcpListener, users: Users) -> io::Result<()> {
    let (control, _) = control.accept().await?;
    let mut lines = BufReader::new(control).lines();
    let mut stamped = Stamped::default();
    while let Some(line) = lines.next_line().await? {
        let mut progress = Progress::of(&line)?;
        while !progress.is_done() {
            while let Some(number) = progress.next() {
                let event = stamped.at(number, progress.run.size);
                // Nobody there is no failure.
                let _ = users[number as usize % users.len()].send(chunk(event).into());
            }
            match lines.next_line().await? {
                Some(line) => progress.acknowledge(&line)?,
                None => return Ok(()),
            }
        }
    }
    Ok(())
}
