//! The clients of one server, some of which stop reading.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Numbers, http1, kernel};

/// Some clients read, the others stop after the head of the response.
pub(crate) struct Crowd {
    /// Bytes of an event's data.
    size: usize,
    readers: Vec<Arc<Mutex<Numbers>>>,
    /// Those that stall, and with them goes whatever keeps their connection open.
    _stalled: Vec<Box<dyn Send>>,
    /// The sockets that must go.
    pub(crate) stuck: HashSet<SocketAddr>,
}

impl Crowd {
    fn reader(&mut self) -> Arc<Mutex<Numbers>> {
        let numbers = Arc::new(Mutex::new(Numbers::of_size(self.size)));
        self.readers.push(Arc::clone(&numbers));
        numbers
    }

    fn of_size(size: usize) -> Self {
        Self {
            size,
            readers: Vec::new(),
            _stalled: Vec::new(),
            stuck: HashSet::new(),
        }
    }

    /// Each on a connection of its own.
    pub(crate) async fn open(
        addr: SocketAddr,
        size: usize,
        reading: usize,
        stalled: usize,
    ) -> io::Result<Self> {
        let mut crowd = Self::of_size(size);
        for _ in 0..stalled {
            let stream = http1::Stream::open(addr, "/").await?;
            crowd.stuck.insert(stream.tcp.local_addr()?);
            crowd._stalled.push(Box::new(stream));
        }
        for _ in 0..reading {
            let mut stream = http1::Stream::open(addr, "/").await?;
            let numbers = crowd.reader();
            tokio::spawn(async move {
                let mut buf = vec![0; 256 * 1024];
                let mut push = |bytes: &[u8]| lock(&numbers).push(bytes);
                while let Ok(true) = stream.read(&mut buf, &mut push).await {}
                ended(&numbers);
            });
        }
        Ok(crowd)
    }

    /// Ten streams that are read on each connection, and of those that stall two fifths beside them, two fifths on connections
    /// of their own, and the others on connections that are not read.
    pub(crate) async fn open_http2(
        addr: SocketAddr,
        size: usize,
        reading: usize,
        stalled: usize,
    ) -> io::Result<Self> {
        use super::http2::{connect, open, read};

        /// Streams on each connection that are read.
        const EACH: usize = 10;
        let shared = stalled * 2 / 5;
        let alone = shared;
        let mut crowd = Self::of_size(size);
        for n in 0..reading.div_ceil(EACH) {
            let (mut requests, connection) = connect(addr, 1 << 18).await?;
            tokio::spawn(connection);
            if n < shared {
                crowd
                    ._stalled
                    .push(Box::new(open(&mut requests, "/").await?));
            }
            for _ in 0..EACH.min(reading - n * EACH) {
                let mut body = open(&mut requests, "/").await?;
                let numbers = crowd.reader();
                tokio::spawn(async move {
                    while let Some(Ok(bytes)) = read(&mut body).await {
                        lock(&numbers).push(&bytes);
                    }
                    ended(&numbers);
                });
            }
        }
        for _ in 0..alone {
            let (mut requests, connection) = connect(addr, 1 << 16).await?;
            tokio::spawn(connection);
            let body = open(&mut requests, "/").await?;
            crowd._stalled.push(Box::new((requests, body)));
        }
        for _ in shared + alone..stalled {
            let before = kernel::clients_of(std::process::id(), addr);
            let (mut requests, mut connection) = connect(addr, 1 << 30).await?;
            let body = tokio::select! {
                body = open(&mut requests, "/") => body?,
                _ = &mut connection => return Err(io::ErrorKind::UnexpectedEof.into()),
            };
            let now = kernel::clients_of(std::process::id(), addr);
            let new = now.into_iter().filter(|client| !before.contains(client));
            crowd.stuck.extend(new);
            // Its windows are wide open, and nobody polls it from here on.
            crowd._stalled.push(Box::new((requests, connection, body)));
        }
        Ok(crowd)
    }

    /// What keeps each of those that read from having exactly so many events, in order.
    pub(crate) fn faults(&self, sent: u64) -> Vec<String> {
        let fault_of = |(n, reader): (usize, &Arc<Mutex<Numbers>>)| {
            let numbers = lock(reader);
            let have = numbers.count;
            match &numbers.fault {
                Some(fault) => Some(format!("client {n}: after {have} events, {fault}")),
                None if have != sent => Some(format!("client {n}: {have} of {sent} events")),
                None => None,
            }
        };
        self.readers
            .iter()
            .enumerate()
            .filter_map(fault_of)
            .collect()
    }
}

fn lock(numbers: &Mutex<Numbers>) -> MutexGuard<'_, Numbers> {
    numbers.lock().expect("nothing panics while it is held")
}

fn ended(numbers: &Mutex<Numbers>) {
    let mut numbers = lock(numbers);
    numbers.fault.get_or_insert("the stream ended".to_owned());
}
