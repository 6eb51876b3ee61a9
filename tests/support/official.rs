//! The official clients, which are in JavaScript and Python: where they are, and the scripts that use them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where `scripts/clients` has put them.
pub(crate) fn installed() -> PathBuf {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients");
    assert!(
        place.join("pinned").exists(),
        "the official clients are not installed: run scripts/clients"
    );
    place
}

/// Puts a script of `tests/clients` beside what is installed, because that is where node looks for it. The name tells
/// apart those of several tests.
pub(crate) fn place(script: &str, name: &str) -> PathBuf {
    let place = installed().join(format!("{name}-{script}"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    fs::copy(source.join(script), &place).expect("a script that can be copied");
    place
}

/// What runs it.
pub(crate) fn interpreter(script: &str) -> PathBuf {
    if script.ends_with(".py") {
        installed().join("venv/bin/python")
    } else {
        "node".into()
    }
}

/// For a program that cannot be started.
pub(crate) const INSTALL: &str = "the client starts; if it is missing: scripts/test installs it";

/// Has a script of `tests/clients` read these lines, and returns what it writes. The name is for the files that it takes,
/// of each test its own.
pub(crate) fn run(name: &str, script: &str, lines: &[String]) -> String {
    let corpus = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{script}.jsonl"));
    fs::write(&corpus, lines.join("\n")).expect("a file can be written");

    let mut command = Command::new(interpreter(script));
    let output = command.arg(place(script, name)).arg(corpus);
    let output = output.output().expect(INSTALL);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} failed: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Whether both are the same JSON: it does not tell 1 from 1.0, which Python writes.
pub(crate) fn same(a: &serde_json::Value, b: &serde_json::Value) -> bool {
    use serde_json::Value;
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let in_b = |(name, a)| b.get(name).is_some_and(|b| same(a, b));
            a.len() == b.len() && a.iter().all(in_b)
        }
        (a, b) => a == b,
    }
}
