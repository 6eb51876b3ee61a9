//! nginx with nchan, the usual choice where the application is not to hold the connections.
//!
//! It has no publisher inside: a thread beside the clients posts each event, on one connection that stays open, and waits
//! for the answer.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::design::on_cores;
use crate::publish::blocking;
use crate::stamped::Stamped;

/// Where Debian has it.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";

pub(crate) struct Nchan {
    child: Child,
    directory: PathBuf,
    pub(crate) addr: SocketAddr,
    pub(crate) control: SocketAddr,
}

impl Nchan {
    pub(crate) fn is_installed() -> bool {
        Path::new(MODULE).exists()
    }

    pub(crate) fn start(users: usize) -> io::Result<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = free.local_addr()?;
        drop(free);
        let directory = std::env::temp_dir().join(format!("end_to_end-{}", addr.port()));
        fs::create_dir_all(&directory)?;
        let file = directory.join("nginx.conf");
        fs::write(&file, settings(&directory, addr))?;
        let child = on_cores("0", "nginx")
            .arg("-c")
            .arg(file)
            .stderr(Stdio::null())
            .spawn()?;
        let control = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let this = Self {
            child,
            directory,
            addr,
            control: control.local_addr()?,
        };
        let start = Instant::now();
        let publisher = loop {
            match TcpStream::connect(addr) {
                Ok(tcp) => break tcp,
                Err(error) if start.elapsed() > Duration::from_secs(5) => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        };
        publisher.set_nodelay(true)?;
        thread::spawn(move || {
            let (control, _) = control.accept()?;
            let mut publisher = BufReader::new(publisher);
            let mut stamped = Stamped::default();
            blocking(control, |number, size| {
                let user = number as usize % users;
                post(&mut publisher, user, stamped.at(number, size).data())
            })
        });
        Ok(this)
    }

    /// The process that has the connections.
    pub(crate) fn worker(&self) -> u32 {
        let master = self.child.id();
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children"));
        let first = children.unwrap_or_default();
        let first = first.split_whitespace().next().and_then(|n| n.parse().ok());
        first.unwrap_or(master)
    }
}

impl Drop for Nchan {
    fn drop(&mut self) {
        // A worker would outlive a master that is killed.
        let _ = Command::new("kill")
            .args(["-s", "TERM", &self.child.id().to_string()])
            .status();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn settings(directory: &Path, addr: SocketAddr) -> String {
    let directory = directory.display();
    format!(
        "load_module {MODULE};
user root;
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    nchan_shared_memory_size 512m;
    server {{
        listen {addr} backlog={backlog};
        location ~ ^/publish/(\\w+)$ {{
            nchan_publisher;
            nchan_channel_id $1;
            nchan_message_buffer_length 128;
            nchan_message_timeout 60s;
        }}
        location ~ ^/(\\w+)$ {{
            nchan_subscriber eventsource;
            nchan_channel_id $1;
            nchan_subscriber_first_message newest;
        }}
    }}
}}
",
        backlog = crate::BACKLOG,
    )
}

fn post(publisher: &mut BufReader<TcpStream>, user: usize, data: &str) -> io::Result<()> {
    let length = data.len();
    let request = format!(
        "POST /publish/{user} HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n{data}"
    );
    publisher.get_mut().write_all(request.as_bytes())?;
    let (mut line, mut length) = (String::new(), 0);
    loop {
        line.clear();
        if publisher.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end().to_ascii_lowercase().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().map_err(io::Error::other)?,
            None if line == "\r\n" => break,
            _ => {}
        }
    }
    publisher.read_exact(&mut vec![0; length])
}
