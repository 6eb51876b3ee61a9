//! `loom_tests/README.md` has each pair of operations that may meet, and what it says of each is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const OPERATIONS: [&str; 19] = [
    "register",
    "resume",
    "broadcast",
    "append",
    "reset",
    "drain",
    "forget",
    "disconnect",
    "unregister",
    "finish",
    "cut",
    "drop",
    "sweep",
    "shutdown",
    "complete",
    "hold",
    "attend",
    "watch",
    "ephemeral",
];

/// How many pairs have neither a model nor a reason. It is raised only for a model that turns out not to let the two operations
/// cross.
const OPEN: usize = 0;

#[test]
fn each_pair_of_operations_has_a_model_or_a_reason() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("loom_tests");
    let page = fs::read_to_string(folder.join("README.md")).expect("the page");
    let mut pairs = BTreeMap::new();
    for row in page.lines() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, one, other, how, _] = cells[..] else {
            continue;
        };
        if OPERATIONS.contains(&one) {
            let there = pairs.insert((one, other), how);
            assert!(there.is_none(), "{row} stands there twice");
        }
    }
    let mut open = 0;
    let mut wanted = BTreeSet::new();
    for (number, one) in OPERATIONS.iter().enumerate() {
        for other in &OPERATIONS[number..] {
            wanted.insert((*one, *other));
            let how = pairs.get(&(*one, *other));
            let how = *how.unwrap_or_else(|| panic!("no row for {one} and {other}"));
            let how = match how.strip_prefix("as ") {
                Some(pair) => {
                    let pair = pair.split_once(" × ").expect("two operations");
                    let how = *pairs
                        .get(&pair)
                        .unwrap_or_else(|| panic!("no row for {pair:?}"));
                    assert!(
                        how.starts_with('`'),
                        "{one} and {other}: {pair:?} has no model"
                    );
                    how
                }
                None => how,
            };
            if let Some(reason) = how.strip_prefix("none: ") {
                assert!(reason.len() > 20, "{one} and {other}: {reason}");
            } else if how == "open" {
                open += 1;
            } else {
                let name = how.trim_matches('`');
                let (file, model) = name.split_once("::").expect("a file and a model");
                let text = fs::read_to_string(folder.join(format!("{file}.rs"))).expect(file);
                let model = format!("fn {model}()");
                assert!(text.contains(&model), "{one} and {other}: no {name}");
            }
        }
    }
    let there: BTreeSet<_> = pairs.into_keys().collect();
    assert_eq!(there, wanted);
    assert_eq!(open, OPEN, "pairs without a model or a reason");
}
