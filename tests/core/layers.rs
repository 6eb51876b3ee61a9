//! The house rules that the compiler does not know: a module uses only those above it, channels know no bytes, only
//! `sync/` knows loom, front pages hold no logic, files stay short.
//!
//! Comments and strings do not count: a link in the documentation may point anywhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// From the top. A module uses itself and what stands before it.
const ORDER: &[&str] = &[
    "sync",
    "error",
    "time",
    "end",
    "metrics",
    "position",
    "id",
    "gap",
    "trace",
    "event",
    "frame",
    "channel",
    "registry",
    "subscription",
    "backplane",
    "broadcaster",
    "sse",
    "serve",
    "protocol",
    "router",
    "guide",
    "fuzzing",
];

/// What these may not name, although some of it stands above them: the models run them with small integers.
const UNKNOWN_TO: &[(&str, &[&str], &[&str])] = &[
    ("channel", &["frame"], BYTES),
    ("registry", &["frame"], BYTES),
    ("subscription", &[], BYTES),
];

const BYTES: &[&str] = &[
    "event",
    "bytes",
    "http",
    "http_body",
    "serde",
    "serde_json",
    "axum",
];

const LONGEST: usize = 500;

/// A file of `src/`, its path relative to there, with `/`.
pub(super) struct File {
    path: String,
    pub(super) text: String,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// The module of the crate that the file belongs to.
    fn module(&self) -> &str {
        let first = self
            .path
            .split('/')
            .next()
            .expect("a path has a first part");
        first.trim_end_matches(".rs")
    }

    fn is_front_page(&self) -> bool {
        self.path == "lib.rs" || self.path.ends_with("/lib.rs") || self.path.ends_with("/mod.rs")
    }
}

/// The code without comments, and with empty strings.
fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(len) = string_len(rest, code.chars().last()) {
            code.push_str("\"\"");
            len
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            code.push_str("' '");
            rest[1..].find('\'').expect("a character literal ends") + 2
        } else {
            code.push(c);
            c.len_utf8()
        };
        rest = &rest[len..];
    }
    code
}

/// How long the string literal is that stands here, if one does.
fn string_len(rest: &str, before: Option<char>) -> Option<usize> {
    let raw = rest.strip_prefix('r').unwrap_or_default();
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    let in_word = before.is_some_and(|c| c.is_alphanumeric() && c != 'b' || c == '_');
    if raw[hashes..].starts_with('"') && !in_word {
        let open = 1 + hashes + 1;
        let close = format!("\"{}", "#".repeat(hashes));
        let end = rest[open..].find(&close).expect("a raw string ends");
        return Some(open + end + close.len());
    }
    let body = rest.strip_prefix('"')?;
    let mut escaped = false;
    let end = body.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    Some(end.expect("a string ends") + 2)
}

/// The words of a piece of code, and the signs between them, one by one.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(c) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let len = match c {
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            _ => c.len_utf8(),
        };
        tokens.push(&rest[..len]);
        rest = rest[len..].trim_start();
    }
    tokens
}

/// The first parts of the paths that follow `start`: one name, or those of a group in braces.
fn names_after<'a>(tokens: &[&'a str], start: &[&'a str]) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for at in 0..tokens.len() {
        let Some(rest) = tokens[at..].strip_prefix(start) else {
            continue;
        };
        match rest {
            ["{", group @ ..] => {
                let (mut depth, mut first) = (1, true);
                for &token in group {
                    match token {
                        "{" => depth += 1,
                        "}" => depth -= 1,
                        "," if depth == 1 => first = true,
                        name if first => {
                            names.insert(name);
                            first = false;
                        }
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            [name, ..] => {
                names.insert(name);
            }
            [] => {}
        }
    }
    names
}

/// Everything in one file that is against the rules.
fn violations(file: &File) -> Vec<String> {
    let code = code_of(&file.text);
    let tokens = tokens(&code);
    let mut found = Vec::new();

    let module = file.module();
    if module != "lib" {
        let place = |name: &str| ORDER.iter().position(|module| *module == name);
        let Some(own) = place(module) else {
            return vec![format!("the module {module} has no place in the order")];
        };
        let mut used = names_after(&tokens, &["crate", "::"]);
        // So many times up is the crate.
        let ups = file.path.matches('/').count() + 1 - usize::from(file.is_front_page());
        let outside = ["super", "::"].repeat(ups);
        used.extend(names_after(&tokens, &outside));
        for name in used {
            match place(name) {
                Some(place) if place <= own => {}
                Some(_) => found.push(format!("{module} uses {name}, which stands below it")),
                None => found.push(format!("{module} uses crate::{name}, which is no module")),
            }
        }
    }
    for (_, more, bytes) in UNKNOWN_TO.iter().filter(|(name, ..)| *name == module) {
        let said = |word: &&&str| {
            let name = [**word, "::"];
            tokens.windows(2).any(|two| two == name)
                || names_after(&tokens, &["crate", "::"]).contains(*word)
        };
        for word in more.iter().chain(*bytes).filter(said) {
            found.push(format!("{module} knows {word}"));
        }
    }
    if module == "subscription" {
        let frames = count(&tokens, &["Frame"]);
        let allowed = count(&tokens, &["=", "Arc", "<", "Frame", ">"])
            + count(
                &tokens,
                &["use", "crate", "::", "frame", "::", "Frame", ";"],
            );
        if frames != allowed {
            found.push("subscription uses Frame for more than a default".to_owned());
        }
    }

    let cfgs = match &*file.path {
        "lib.rs" => {
            count(&tokens, &["loom", ")"])
                + count(&tokens, &["mod", "loom_tests"])
                + count(&tokens, &["use", "loom_tests"])
        }
        "sse/mod.rs" => count(&tokens, &["not", "(", "loom", ")"]),
        _ => 0,
    };
    let said = tokens.iter().filter(|token| token.contains("loom")).count();
    if module != "sync" && said != cfgs {
        found.push("loom is for sync/".to_owned());
    }

    found.extend(shape(file, &tokens));
    found
        .into_iter()
        .map(|what| format!("{}: {what}", file.path))
        .collect()
}

/// What holds for every crate: front pages are no more than that, and files are short.
fn shape(file: &File, tokens: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    if file.is_front_page() {
        found.extend(not_a_front_page(tokens));
    }
    let lines = file.text.lines().count();
    if lines > LONGEST {
        found.push(format!("{lines} lines, more than {LONGEST}"));
    }
    found
}

fn count(tokens: &[&str], sequence: &[&str]) -> usize {
    let windows = tokens.windows(sequence.len());
    windows.filter(|window| *window == sequence).count()
}

/// The first item that is no `mod`, `use` or `type`.
fn not_a_front_page(tokens: &[&str]) -> Option<String> {
    let mut rest = tokens;
    while !rest.is_empty() {
        // Attributes, and who may see it.
        for (open, close, start) in [
            ("[", "]", &["#", "!", "["][..]),
            ("[", "]", &["#", "["]),
            ("(", ")", &["pub", "("]),
        ] {
            while rest.starts_with(start) {
                let mut depth = 0;
                let end = rest.iter().position(|token| {
                    depth += i32::from(*token == open) - i32::from(*token == close);
                    *token == close && depth == 0
                });
                rest = &rest[end.expect("brackets are closed") + 1..];
            }
        }
        rest = rest.strip_prefix(&["pub"]).unwrap_or(rest);
        let end = match rest {
            ["use" | "type", ..] => rest.iter().position(|token| *token == ";"),
            ["mod", _, ";", ..] => Some(2),
            [] => break,
            _ => None,
        };
        let Some(end) = end else {
            let item = rest[..rest.len().min(4)].join(" ");
            return Some(format!("more than a front page: {item}"));
        };
        rest = &rest[end + 1..];
    }
    None
}

pub(super) fn read(folder: &Path, prefix: &str, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).expect("a folder that can be read") {
        let entry = entry.expect("an entry that can be read");
        let name = entry.file_name().into_string().expect("a name in UTF-8");
        let path = format!("{prefix}{name}");
        if entry.path().is_dir() {
            read(&entry.path(), &format!("{path}/"), files);
        } else if path.ends_with(".rs") {
            let text = fs::read_to_string(entry.path()).expect("a file of text");
            files.push(File { path, text });
        }
    }
}

#[test]
fn src_keeps_the_rules() {
    let mut files = Vec::new();
    read(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        "",
        &mut files,
    );
    let modules: BTreeSet<&str> = files.iter().map(File::module).collect();
    for expected in ["sync", "frame", "channel", "registry", "sse"] {
        assert!(modules.contains(expected), "{expected} was not read");
    }
    let found: Vec<String> = files.iter().flat_map(violations).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_other_crates_have_short_files_and_front_pages() {
    let mut files = Vec::new();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates");
    for entry in fs::read_dir(crates).expect("a folder that can be read") {
        let folder = entry.expect("an entry that can be read").path();
        let prefix = format!("{}/", folder.display());
        read(&folder.join("src"), &prefix, &mut files);
    }
    assert!(files.iter().any(|file| file.path.ends_with("/lib.rs")));
    for file in files {
        let code = code_of(&file.text);
        let found = shape(&file, &tokens(&code));
        assert!(found.is_empty(), "{}: {found:#?}", file.path);
    }
}

#[track_caller]
fn assert_allowed(path: &str, text: &str) {
    assert_eq!(
        violations(&File::new(path, text)),
        [] as [String; 0],
        "{text}"
    );
}

#[track_caller]
fn assert_violation(path: &str, text: &str, what: &str) {
    let found = violations(&File::new(path, text));
    assert!(
        found.len() == 1 && found[0].contains(what),
        "{text}: {found:?}"
    );
}

#[test]
fn a_planted_use_of_a_lower_module_is_found() {
    assert_allowed("registry/users.rs", "use crate::channel::Channel;");
    assert_allowed(
        "registry/users.rs",
        "use super::Admission; use crate::registry::Admission;",
    );
    assert_allowed(
        "registry/users.rs",
        "/// [`x`](crate::sse)\n// crate::sse::x\nconst A: &str = \"crate::sse\";",
    );
    let below = "sse, which stands below";
    assert_violation("registry/users.rs", "use crate::sse::SseBody;", below);
    assert_violation(
        "registry/users.rs",
        "use crate::{channel::{Channel, Roster}, sse::SseBody};",
        below,
    );
    assert_violation(
        "registry/users.rs",
        "use crate::{\n    sse,\n    channel,\n};",
        below,
    );
    assert_violation("registry/users.rs", "fn f() { crate :: sse::f() }", below);
    assert_violation("registry/users.rs", "use super::super::sse;", below);
    assert_violation("registry/mod.rs", "use super::sse;", below);
    assert_violation("frame.rs", "use super::sse;", below);
    assert_violation(
        "frame.rs",
        "const Q: char = '\"'; use crate::sse; const R: char = '\"';",
        below,
    );
    assert_violation(
        "frame.rs",
        "const Q: &str = r#\"a\" // \"#; use crate::sse;",
        below,
    );
    assert_violation(
        "frame.rs",
        "const Q: &str = \"\\\\\"; use crate::sse; const R: &str = \"\\\"\";",
        below,
    );
    assert_violation(
        "error.rs",
        "use crate::metrics::Counter;",
        "metrics, which stands below",
    );
    assert_violation(
        "metrics.rs",
        "use crate::id::UserId;",
        "id, which stands below",
    );
    assert_violation("error.rs", "use crate::Frame;", "which is no module");
    assert_violation("util.rs", "", "has no place");
    assert_allowed("sse/body/timer.rs", "use super::super::KeepAlive;");
    assert_violation("channel/a/b.rs", "use super::super::super::sse;", below);
}

#[test]
fn a_planted_word_of_bytes_or_http_is_found() {
    assert_violation(
        "channel/fanout.rs",
        "use crate::frame::Frame;",
        "knows frame",
    );
    assert_violation("channel/fanout.rs", "use bytes::Bytes;", "knows bytes");
    assert_violation(
        "registry/users.rs",
        "fn f(_: http::StatusCode) {}",
        "knows http",
    );
    assert_violation(
        "registry/users.rs",
        "use crate::{id, frame};",
        "knows frame",
    );
    let default = "use crate::frame::Frame; struct A<T = Arc<Frame>>(T);";
    assert_allowed("subscription/stream.rs", default);
    assert_violation(
        "subscription/stream.rs",
        &format!("{default} fn f(_: Frame) {{}}"),
        "more than a default",
    );
    assert_violation("subscription/stream.rs", "use bytes::Bytes;", "knows bytes");
}

#[test]
fn a_planted_loom_is_found() {
    assert_allowed("sync/mod.rs", "#[cfg(all(test, loom))] mod model;");
    assert_allowed(
        "sse/mod.rs",
        "#[cfg(all(feature = \"axum\", not(loom)))] mod interop;",
    );
    assert_allowed(
        "lib.rs",
        "#[cfg(all(test, loom))] #[path = \"../loom_tests/mod.rs\"] mod loom_tests;",
    );
    assert_allowed("frame.rs", "// loom cannot see this");
    assert_violation("channel/roster.rs", "use loom::sync::Arc;", "loom");
    assert_violation("channel/roster.rs", "#[cfg(loom)] fn f() {}", "loom");
    assert_violation("sse/mod.rs", "use loom::sync::Arc;", "loom");
    assert_violation("sse/body.rs", "#[cfg(not(loom))] fn f() {}", "loom");
}

#[test]
fn a_planted_item_on_a_front_page_is_found() {
    assert_allowed(
        "sse/mod.rs",
        "//! Docs.\n#![x]\nmod a;\n#[cfg(all(a, b))]\npub(crate) mod b;\npub use a::{B, C};\n/// Docs.\npub type D<T = (u8, u8)> = B<T>;",
    );
    assert_violation(
        "sse/mod.rs",
        "mod a; fn f() {}",
        "more than a front page: fn f",
    );
    assert_violation(
        "sse/mod.rs",
        "mod a { fn f() {} }",
        "more than a front page",
    );
    assert_violation(
        "lib.rs",
        "#[a] pub(crate) struct A; mod b;",
        "more than a front page: struct A",
    );
    assert_violation(
        "sse/mod.rs",
        "pub const A: u8 = 1;",
        "more than a front page",
    );
    assert_allowed("sse/body.rs", "fn f() {}");
}

#[test]
fn a_file_that_is_too_long_is_found() {
    assert_allowed("frame.rs", &"\n".repeat(500));
    assert_violation("frame.rs", &"\n".repeat(501), "501 lines");
}
