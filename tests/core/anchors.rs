//! rustdoc checks the links of a page, but not what follows their `#`.

use std::collections::BTreeSet;
use std::path::Path;

use super::layers::read;

#[test]
fn each_link_to_a_heading_finds_one_of_that_name() {
    let mut files = Vec::new();
    for folder in ["src", "crates"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        read(&folder, "", &mut files);
    }
    let comments = || {
        let lines = files.iter().flat_map(|file| file.text.lines());
        lines.filter_map(|line| line.trim_start().strip_prefix("//"))
    };
    let headings: BTreeSet<String> = comments()
        .filter_map(|line| line.split_once("# "))
        .map(|(_, heading)| heading.to_lowercase().replace(' ', "-"))
        .collect();
    let links = comments().flat_map(|line| line.split("](").skip(1));
    let dead: Vec<&str> = links
        .filter_map(|link| link.split(')').next())
        .filter(|link| !link.contains("://"))
        .filter_map(|link| link.split_once('#'))
        // One with a dot is of an item.
        .filter(|(_, anchor)| !anchor.contains('.') && !headings.contains(*anchor))
        .map(|(_, anchor)| anchor)
        .collect();
    assert!(dead.is_empty(), "{dead:?}");
}
