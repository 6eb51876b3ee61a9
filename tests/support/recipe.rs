//! An example as a process of its own.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::example;

/// The program of an example, which says where it listens in its first line.
pub(crate) struct Program {
    child: Child,
    base: String,
    /// Kept open: whoever writes to a closed pipe is ended by it.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Program {
    /// Starts the example on a port of its own.
    pub(crate) async fn start(name: &str) -> Self {
        Self::with_args(name, &["127.0.0.1:0"]).await
    }

    pub(crate) async fn with_args(name: &str, args: &[&str]) -> Self {
        let mut child = Command::from(example::example(name))
            .args(args)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let line = tokio::time::timeout(Duration::from_secs(30), stdout.next_line()).await;
        let line = line.expect("in time").expect("UTF-8").expect("a line");
        let base = line.strip_prefix(&format!("{name} listens on "));
        Self {
            child,
            base: base.unwrap_or_else(|| panic!("{line:?}")).to_owned(),
            _stdout: stdout,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        let address = self.base.strip_prefix("http://").expect("a URL");
        address.parse().expect("an address")
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub(crate) async fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let kill = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(kill.await.expect("kill runs").success());
    }

    pub(crate) async fn exit(&mut self) -> ExitStatus {
        self.child.wait().await.expect("it can be waited for")
    }
}
