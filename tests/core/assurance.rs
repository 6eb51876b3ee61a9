//! What `docs/assurance.md` says is there is there: each promise has its row, and each name in it is one of a file.

use std::fs;
use std::path::{Path, PathBuf};

/// Where the names of a column are looked for, and what they may end in. A test is a program, or a module of one.
const COLUMNS: [(&str, &[&str]); 4] = [
    ("src", &["", ".rs"]),
    ("tests", &[".rs", "/mod.rs"]),
    ("loom_tests", &[".rs"]),
    ("fuzz/fuzz_targets", &[".rs"]),
];

/// The folder, and for tests those of the programs.
fn folders(root: &Path, folder: &str) -> Vec<PathBuf> {
    let mut folders = vec![root.join(folder)];
    if folder == "tests" {
        let entries = fs::read_dir(&folders[0]).expect("a folder");
        let programs = entries.map(|entry| entry.expect("an entry").path());
        folders.extend(programs.filter(|path| path.join("main.rs").exists()));
    }
    folders
}

#[test]
fn each_promise_has_an_owner_a_test_and_whatever_else_its_row_names() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/assurance.md")).expect("the page");
    let mut number = 0;
    for row in page.lines() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, promise, _, owner, tests, models, targets, soak, _] = cells[..] else {
            continue;
        };
        if promise.parse() != Ok(number + 1) {
            continue;
        }
        number += 1;
        for ((folder, ends), names) in COLUMNS.into_iter().zip([owner, tests, models, targets]) {
            // Between backticks.
            let names: Vec<&str> = names.split('`').skip(1).step_by(2).collect();
            let may_be_none = ["loom_tests", "fuzz/fuzz_targets"].contains(&folder);
            assert!(!names.is_empty() || may_be_none, "{row}");
            let folders = folders(root, folder);
            for name in names {
                let is_in = |folder: &PathBuf| {
                    let exists = |end: &&str| folder.join(format!("{name}{end}")).exists();
                    ends.iter().any(exists)
                };
                assert!(folders.iter().any(is_in), "no {name} in {folder}: {row}");
            }
        }
        assert!(!soak.is_empty(), "{row}");
    }
    assert_eq!(number, 12);
}
