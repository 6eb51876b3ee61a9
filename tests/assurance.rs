//! What `docs/assurance.md` says is there is there: each promise has its row, and each name in it is one of a file.

use std::fs;
use std::path::Path;

/// Where the names of a column are looked for, and what they may end in.
const COLUMNS: [(&str, &[&str]); 4] = [
    ("src", &["", ".rs"]),
    ("tests", &[".rs", "/main.rs"]),
    ("loom_tests", &[".rs"]),
    ("fuzz/fuzz_targets", &[".rs"]),
];

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
            assert!(!names.is_empty() || folder == "loom_tests", "{row}");
            for name in names {
                let exists = |end: &&str| root.join(folder).join(format!("{name}{end}")).exists();
                assert!(ends.iter().any(exists), "no {name} in {folder}: {row}");
            }
        }
        assert!(!soak.is_empty(), "{row}");
    }
    assert_eq!(number, 10);
}
