//! Servers and clients in processes of their own: a second run of the benchmark, told by its arguments what to be.
//!
//! The memory of such a process is that of its part alone, and its parent asks it questions, a line each, on its standard
//! input. It ends with its parent.

use std::env;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The part that this process was started for, and what it has to know for it.
pub(crate) fn part() -> Option<Vec<String>> {
    let mut args = env::args().skip(1);
    (args.next().as_deref() == Some(PART)).then(|| args.collect())
}

const PART: &str = "part";

/// This program again, for a part.
pub(crate) fn part_command<S: AsRef<OsStr>>(part: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env::current_exe().expect("a program has a path"));
    command.arg(PART).args(part);
    command
}

/// In the process of a part: says something first, then answers questions until the parent has gone.
pub(crate) fn answer(first: &str, mut answer: impl FnMut(&str) -> String + Send + 'static) {
    say(first);
    thread::spawn(move || {
        for question in io::stdin().lines().map_while(Result::ok) {
            say(&answer(&question));
        }
        std::process::exit(0);
    });
}

fn say(line: &str) {
    // Not `println`, which panics when nobody listens any more.
    let mut stdout = io::stdout();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

fn signal(name: &str, pid: u32) {
    let kill = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status();
    assert!(kill.expect("kill runs").success());
}

/// Ends a process without a word, for those who cannot have its handle.
pub(crate) fn kill(pid: u32) {
    signal("KILL", pid);
}

/// A process that was started, and ends with its handle.
pub(crate) struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// The first line that it printed.
    pub(crate) first: String,
}

impl Process {
    /// Starts it, and waits for its first line.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let stdin = child.stdin.take().expect("a pipe");
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut this = Self {
            child,
            stdin,
            stdout,
            first: String::new(),
        };
        this.first = this.line();
        this
    }

    /// Where a server listens, by the URL at the end of its first line.
    pub(crate) fn addr(&self) -> SocketAddr {
        let (_, addr) = self.first.split_once("http://").unwrap_or_default();
        addr.parse()
            .unwrap_or_else(|_| panic!("no address in {:?}", self.first))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn ask(&mut self, question: &str) -> String {
        writeln!(self.stdin, "{question}").expect("the process runs");
        self.line()
    }

    pub(crate) fn ask_number(&mut self, question: &str) -> usize {
        let answer = self.ask(question);
        answer
            .parse()
            .unwrap_or_else(|_| panic!("{question}: {answer}"))
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.stdout.read_line(&mut line).expect("UTF-8");
        assert_ne!(read, 0, "the process ended");
        line.truncate(line.trim_end().len());
        line
    }

    /// The rest of what it prints, and its standard error if that is a pipe, once it has exited.
    pub(crate) fn rest(&mut self) -> String {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("UTF-8");
        if let Some(stderr) = &mut self.child.stderr {
            stderr.read_to_string(&mut rest).expect("UTF-8");
        }
        rest
    }

    /// Asks it to stop, as a process manager does.
    pub(crate) fn terminate(&self) {
        signal("TERM", self.pid());
    }

    /// Ends it without a word.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    /// Waits for its exit, and says when that was; `None` if it takes longer than that.
    pub(crate) fn exit(&mut self, limit: Duration) -> Option<(ExitStatus, Instant)> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return Some((status, Instant::now()));
            }
            thread::sleep(Duration::from_millis(2));
        }
        None
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
