//! The examples as programs.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

/// The program of an example, as its sources are now.
///
/// Examples are packages of their own, whose programs `cargo test` and `cargo bench` do not build. So this asks cargo for it, once
/// for each test program: a program that an earlier build has left is never taken.
pub(crate) fn example(name: &str) -> Command {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let path = built
        .entry(name.to_owned())
        .or_insert_with(|| build(name))
        .clone();
    Command::new(path)
}

/// Builds it with all its features in the profile of this program and below the same target folder, and returns where it is.
fn build(name: &str) -> PathBuf {
    let program = env::current_exe().expect("a program has a path");
    // A test or benchmark is in <profile>/deps, any other program one up.
    let profile = program
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .expect("<profile>/deps/<test>, or <profile>/<program>");
    let target = profile.parent().expect("<target>/<profile>");
    let profile = profile.file_name().and_then(|name| name.to_str());
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.arg("build");
    match profile.expect("the profile's name") {
        // With the features that `scripts/test` compiles everything with, so that all it depends on is there already. A test is
        // among what is built since cargo adds the features of dev-dependencies only then.
        "debug" => cargo.args(["--workspace", "--bin", name, "--test", "churn"]),
        // As users build it.
        other => cargo.args(["--package", name, "--profile", other]),
    };
    cargo
        .args(["--quiet", "--all-features"])
        .args(["--message-format", "json-render-diagnostics"])
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .stderr(Stdio::inherit());
    if env::var_os("CARGO_TARGET_DIR").is_none() {
        cargo.arg("--target-dir").arg(target);
    }
    let built = cargo.output().expect("cargo runs");
    assert!(built.status.success(), "{cargo:?}: {}", built.status);
    // One message a line. That of a program says where it is.
    let messages = String::from_utf8(built.stdout).expect("JSON");
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| Some(PathBuf::from(message["executable"].as_str()?)))
        .unwrap_or_else(|| panic!("{cargo:?} built no program {name}"))
}
