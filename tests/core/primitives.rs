//! What threads meet at comes from `src/sync/`, where the models have loom's in its place. The exceptions are listed here, each with
//! the reason why no model needs to see it, or cannot.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Where the primitives of others are.
const SOURCES: &[&str] = &["std::sync", "tokio::sync", "arc_swap", "parking_lot"];

/// Names of these modules that nobody meets at.
const HARMLESS: &[&str] = &[
    "Arc",
    "Weak",
    "Ordering",
    "PoisonError",
    "MutexGuard",
    "atomic",
    "MAX_PERMITS",
];

/// A file or a folder, what it may take, and why.
const EXCEPTIONS: &[(&str, &[&str], &str)] = &[
    (
        "channel/connection.rs",
        &["AtomicU64", "OnceLock"],
        "counters, and a deadline that is set once",
    ),
    (
        "channel/ring.rs",
        &["AtomicBool"],
        "stored under tokio's locks, where a model must not switch threads; the relaxed orders are argued at the fields",
    ),
    (
        "channel/roster.rs",
        &["AtomicU64"],
        "counters that decide nothing exact; the one that does is of sync/",
    ),
    (
        "registry/membership.rs",
        &["AtomicU64"],
        "the spread of reconnects, which is only said to clients",
    ),
    (
        "subscription/handle.rs",
        &["Mutex"],
        "what a body and its attendant say to each other; each call does all it does under the lock",
    ),
    ("metrics/", &["AtomicU64", "AtomicUsize"], "statistics"),
    (
        "id.rs",
        &["AtomicU64", "LazyLock"],
        "a number that only has to be another one",
    ),
    ("router/", &["LazyLock"], "a value that is made once"),
    (
        "broadcaster/mod.rs",
        &["broadcast"],
        "the name of a type in the interface",
    ),
    (
        "broadcaster/",
        &["mpsc", "oneshot", "Semaphore"],
        "queues between tasks, whose own order is tokio's",
    ),
    (
        "backplane/",
        &[
            "AtomicU64",
            "AtomicUsize",
            "Mutex",
            "Notify",
            "mpsc",
            "oneshot",
            "watch",
        ],
        "tasks over tokio's channels, which no model compiles",
    ),
    (
        "serve/",
        &["AtomicBool", "AtomicU64", "AtomicUsize", "Mutex", "watch"],
        "the server over sockets, which no model compiles",
    ),
];

/// The names that a piece of code takes from the modules of others.
fn taken(text: &str) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or("");
    let lines = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or(""));
    let code: String = lines.collect::<Vec<_>>().join("\n");
    let mut names = BTreeSet::new();
    for source in SOURCES {
        for (at, _) in code.match_indices(source) {
            let rest = &code[at + source.len()..];
            let Some(path) = rest.strip_prefix("::") else {
                // The module itself, perhaps under another name.
                names.insert((*source).to_owned());
                continue;
            };
            let path = path.strip_prefix("atomic::").unwrap_or(path);
            let end = match path.starts_with('{') {
                true => path.find(';').unwrap_or(path.len()),
                false => path
                    .find(|c: char| !c.is_alphanumeric() && c != '_')
                    .unwrap_or(path.len()),
            };
            let mut words = path[..end]
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .filter(|word| !word.is_empty());
            while let Some(word) = words.next() {
                match word {
                    // Whatever it is called here.
                    "as" => drop(words.next()),
                    _ => drop(names.insert(word.to_owned())),
                }
            }
        }
    }
    names.retain(|name| !HARMLESS.contains(&name.as_str()));
    names
}

/// What a file takes without an exception. Notes the exceptions that it used.
fn violations(path: &str, text: &str, used: &mut BTreeSet<(usize, &'static str)>) -> Vec<String> {
    let mut found = Vec::new();
    for name in taken(text) {
        let mut is_allowed = false;
        for (number, (place, names, _)) in EXCEPTIONS.iter().enumerate() {
            let is_here = match place.ends_with('/') {
                true => path.starts_with(place),
                false => path == *place,
            };
            if let Some(name) = names.iter().find(|it| is_here && **it == name) {
                used.insert((number, *name));
                is_allowed = true;
            }
        }
        if !is_allowed {
            found.push(format!("{path} takes {name}, which is none of sync/"));
        }
    }
    found
}

fn files(folder: &Path, prefix: &str, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            files(&entry.path(), &format!("{path}/"), found);
        } else if path.ends_with(".rs") && !path.ends_with("/tests.rs") {
            let text = fs::read_to_string(entry.path()).expect("text");
            found.push((path, text));
        }
    }
}

#[test]
fn what_threads_meet_at_comes_from_sync() {
    let mut all = Vec::new();
    files(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        "",
        &mut all,
    );
    assert!(all.iter().any(|(path, _)| path == "channel/roster.rs"));
    let mut used = BTreeSet::new();
    let above = all.iter().filter(|(path, _)| !path.starts_with("sync/"));
    let found: Vec<String> = above
        .flat_map(|(path, text)| violations(path, text, &mut used))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
    for (number, (place, names, reason)) in EXCEPTIONS.iter().enumerate() {
        assert!(!reason.is_empty());
        for name in *names {
            assert!(
                used.contains(&(number, *name)),
                "{place} takes no {name} any more"
            );
        }
    }
}

#[test]
fn a_planted_primitive_is_found() {
    let planted = |path, text| violations(path, text, &mut BTreeSet::new()).len();
    for text in [
        "use std::sync::Mutex;",
        "use std::sync::{Arc, Mutex};",
        "use std::sync::{\n    Arc,\n    atomic::{AtomicUsize, Ordering},\n};",
        "fn f(_: &std::sync::atomic::AtomicBool) {}",
        "use std::sync as s;",
        "use arc_swap::ArcSwap;",
        "use tokio::sync::Notify;",
        "use tokio::sync::{Mutex as AsyncMutex};",
    ] {
        assert_eq!(planted("channel/shared.rs", text), 1, "{text}");
    }
    assert_eq!(planted("channel/roster.rs", "use std::sync::Mutex;"), 1);
    for text in [
        "use std::sync::Arc;\nuse std::sync::atomic::Ordering;",
        "// std::sync::Mutex\nuse crate::sync::Mutex;",
        "#[cfg(test)]\nmod tests {\n    use std::sync::Mutex;\n}",
    ] {
        assert_eq!(planted("channel/shared.rs", text), 0, "{text}");
    }
}
