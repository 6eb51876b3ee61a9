//! The page `/metrics` of the example `agent_hub`, read as Prometheus does.

use std::collections::BTreeMap;

use reqwest::Response;

use super::hub::{Hub, within};

/// A page, taken apart by the grammar of the text format 0.0.4.
pub(crate) struct Page {
    /// By name and labels.
    samples: BTreeMap<String, f64>,
    pub(crate) types: BTreeMap<String, String>,
    pub(crate) text: String,
}

impl Page {
    pub(crate) async fn of(hub: &Hub) -> Self {
        let response = hub.client.get(hub.url(&["metrics"])).send();
        let response: Response = within("a page", response).await.expect("a response");
        assert_eq!(response.status(), 200);
        assert_eq!(
            response.headers()["content-type"],
            "text/plain; version=0.0.4"
        );
        Self::parse(response.text().await.expect("a body"))
    }

    fn parse(text: String) -> Self {
        let mut page = Self {
            samples: BTreeMap::new(),
            types: BTreeMap::new(),
            text,
        };
        assert!(page.text.ends_with('\n'));
        for line in page.text.lines().filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix("# ") {
                let (keyword, rest) = comment.split_once(' ').expect("a keyword");
                let (name, what) = rest.split_once(' ').expect("a name");
                assert_name(name);
                match keyword {
                    "TYPE" => {
                        let kinds = ["counter", "gauge", "histogram"];
                        assert!(kinds.contains(&what), "{line}");
                        let before = page.types.insert(name.into(), what.into());
                        assert_eq!(before, None, "{line}");
                    }
                    "HELP" => assert!(!what.is_empty()),
                    _ => panic!("{line}"),
                }
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            assert_name(name);
            let labels = labels.strip_suffix('}').expect("labels end");
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (name, value) = label.split_once('=').expect("a label has a value");
                assert_name(name);
                let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
                assert!(value.is_some_and(|value| !value.contains('"')), "{line}");
            }
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .unwrap_or(name);
            assert!(page.types.contains_key(family), "{line} has no type");
            let before = page.samples.insert(series.into(), value);
            assert_eq!(before, None, "{line} is there twice");
        }
        page
    }

    #[track_caller]
    pub(crate) fn get(&self, series: &str) -> f64 {
        let sample = self.samples.get(series);
        *sample.unwrap_or_else(|| panic!("no {series} in\n{}", self.text))
    }
}

#[track_caller]
fn assert_name(name: &str) {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_name = name.chars().all(is_part) && name.starts_with(|c: char| c.is_ascii_alphabetic());
    assert!(is_name, "{name:?}");
}
