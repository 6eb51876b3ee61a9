//! The example `agent_hub` as a process of its own.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::example;
use super::hub::{Hub, within};

/// The program, as a process.
pub(crate) struct Process {
    child: Child,
    pub(crate) stdout: Lines<BufReader<ChildStdout>>,
    pub(crate) hub: Hub,
}

impl Process {
    pub(crate) async fn start(args: &[&str]) -> Self {
        let mut child = program()
            .args(["--addr", "127.0.0.1:0"])
            .args(args)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let line = within("the address", stdout.next_line()).await;
        let line = line.expect("UTF-8").expect("a line");
        let base = line.strip_prefix("agent_hub listens on ");
        let hub = Hub::at(base.unwrap_or_else(|| panic!("no address in {line:?}")));
        Self { child, stdout, hub }
    }

    pub(crate) async fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let kill = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(kill.await.expect("kill runs").success());
    }

    /// Waits for the exit. The limit is below the one at which the program gives up on streams that do not end.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        tokio::time::timeout(Duration::from_secs(4), self.child.wait())
            .await
            .expect("it exits within 4 seconds")
            .expect("it can be waited for")
    }
}

/// The example's program.
pub(crate) fn program() -> Command {
    example::example("agent_hub").into()
}
