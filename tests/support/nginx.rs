//! nginx as a proxy, with the settings of the guide, in a process of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What the guide shows.
const GUIDE: &str = include_str!("../../docs/nginx.conf");

pub(crate) struct Nginx {
    child: Child,
    directory: PathBuf,
    pub(crate) addr: SocketAddr,
}

impl Nginx {
    /// In front of what listens there, with what a test changes of the guide's settings.
    pub(crate) fn start(upstream: SocketAddr, change: impl Fn(String) -> String) -> Self {
        let settings = replace(
            GUIDE,
            "server 127.0.0.1:3000;",
            &format!("server {upstream};"),
        );
        let settings = change(settings);
        // It cannot be told to take a free port. One that is free now may be taken when it comes to it.
        let started = (0..10).find_map(|_| Self::try_start(&settings));
        started.expect("nginx finds a free port")
    }

    fn try_start(settings: &str) -> Option<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = free.local_addr().expect("an address");
        drop(free);
        let directory = std::env::temp_dir().join(format!(
            "tidings-nginx-{}-{}",
            std::process::id(),
            addr.port()
        ));
        fs::create_dir_all(&directory).expect("a directory");
        let settings = replace(settings, "listen 8080 ", &format!("listen {addr} "));
        let file = directory.join("nginx.conf");
        fs::write(&file, whole(&directory, &settings)).expect("it can be written");
        let child = Command::new(program())
            .arg("-e")
            .arg(directory.join("error.log"))
            .arg("-c")
            .arg(file)
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts; if it is missing: apt-get install nginx");
        let mut nginx = Self {
            child,
            directory,
            addr,
        };
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(20) {
            let ended = nginx.child.try_wait().expect("it can be asked");
            if ended.is_some() {
                let errors = nginx.errors();
                assert!(errors.contains("Address already in use"), "{errors}");
                return None;
            }
            if TcpStream::connect(addr).is_ok() {
                return Some(nginx);
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("nginx does not listen: {}", nginx.errors());
    }

    pub(crate) fn errors(&self) -> String {
        fs::read_to_string(self.directory.join("error.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // A worker would outlive a master that is killed.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-s", "TERM", &pid]).status();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Where Debian has it, which is not in everybody's path.
fn program() -> &'static str {
    let debian = "/usr/sbin/nginx";
    if Path::new(debian).exists() {
        debian
    } else {
        "nginx"
    }
}

/// Replaces what must be there once.
pub(crate) fn replace(settings: &str, from: &str, to: &str) -> String {
    assert_eq!(settings.matches(from).count(), 1, "{from:?} in {settings}");
    settings.replace(from, to)
}

/// What Debian has in /etc/nginx/nginx.conf, around the settings.
fn whole(directory: &Path, settings: &str) -> String {
    let directory = directory.display();
    format!(
        "user root;
daemon off;
error_log {directory}/error.log warn;
worker_processes 1;
pid {directory}/nginx.pid;
events {{ worker_connections 768; }}
http {{
    access_log off;
    gzip on;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {settings}
}}
"
    )
}
