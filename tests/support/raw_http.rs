//! Bytes on a connection, as a client writes and sees them.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A server that is right has not to be waited for; this is for one that is not.
const BOUND: Duration = Duration::from_secs(10);

/// What stands behind the bytes of a server that does not close.
pub(crate) const OPEN: &str = "(and does not close)";

/// What a client does on a connection. After the last step it reads until the server closes.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Write(Vec<u8>),
    /// Reads up to this and with it.
    ReadTo(&'static str),
    /// Says that it will write nothing more.
    HalfClose,
}

/// Everything that the server writes to a client that does this.
pub(crate) async fn exchange(addr: SocketAddr, steps: &[Step]) -> String {
    let tcp = TcpStream::connect(addr).await.expect("the server listens");
    let (mut read, mut write) = tcp.into_split();
    let mut bytes = Vec::new();
    let all_steps = async {
        for step in steps {
            match step {
                // A server that refuses a request does not read the rest of it.
                Step::Write(request) => drop(write.write_all(request).await),
                Step::HalfClose => drop(write.shutdown().await),
                Step::ReadTo(end) => {
                    let start = bytes.len();
                    while !String::from_utf8_lossy(&bytes[start..]).contains(end) {
                        if read.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                }
            }
        }
        loop {
            match read.read_buf(&mut bytes).await {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
                Err(error) => panic!("{error}"),
            }
        }
    };
    let is_closed = timeout(BOUND, all_steps).await.is_ok();
    let mut answer = without_dates(&String::from_utf8_lossy(&bytes));
    if !is_closed {
        answer += OPEN;
    }
    answer
}

/// The same with each date replaced: the servers do not answer in the same second.
fn without_dates(bytes: &str) -> String {
    const DATE: &str = "\r\ndate: ";
    const LEN: usize = "Sun, 06 Nov 1994 08:49:37 GMT".len();
    let mut pieces = bytes.split(DATE);
    let mut same = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        same += DATE;
        same += "(a date)";
        same += piece.get(LEN..).expect("a date has its length");
    }
    same
}
