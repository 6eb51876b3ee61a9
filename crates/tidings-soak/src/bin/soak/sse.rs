//! A reader of event streams that takes nothing but what the server may write, to the letter.

use std::mem;

use serde::Deserialize;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Event {
        id: Option<String>,
        data: String,
    },
    Gap {
        id: Option<String>,
        gap: Gap,
    },
    /// An id without an event, to resume from.
    Id(String),
    Heartbeat,
    Retry,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gap {
    pub(crate) reason: String,
    pub(crate) missed: Option<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// What has come of a line.
    line: Vec<u8>,
    id: Option<String>,
    is_gap: bool,
    data: Option<String>,
}

impl Reader {
    pub(crate) fn push(
        &mut self,
        bytes: &[u8],
        mut item: impl FnMut(Item) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut lines = bytes.split(|&byte| byte == b'\n');
        let last = lines.next_back().unwrap_or_default();
        for end in lines {
            let mut line = mem::take(&mut self.line);
            line.extend_from_slice(end);
            let line = String::from_utf8(line).map_err(|error| format!("no text: {error}"))?;
            if let Some(whole) = self.line(&line)? {
                item(whole)?;
            }
        }
        self.line.extend_from_slice(last);
        Ok(())
    }

    /// Whether what has come is whole.
    pub(crate) fn is_between(&self) -> bool {
        self.line.is_empty() && self.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.id.is_none() && !self.is_gap && self.data.is_none()
    }

    fn line(&mut self, line: &str) -> Result<Option<Item>, String> {
        if line.contains(['\r', '\0']) {
            return Err(format!("a line with CR or NUL: {line:?}"));
        }
        if line.is_empty() {
            return self.block().map(Some);
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
        match name {
            "" if value.is_empty() && self.is_empty() => return Ok(Some(Item::Heartbeat)),
            "retry" if is_number && self.is_empty() => return Ok(Some(Item::Retry)),
            "id" if self.is_empty() && !value.is_empty() => self.id = Some(value.to_owned()),
            "event" if value == "gap" && !self.is_gap && self.data.is_none() => self.is_gap = true,
            "data" => match &mut self.data {
                None => self.data = Some(value.to_owned()),
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
            },
            _ => return Err(format!("the line {line:?} does not belong here")),
        }
        Ok(None)
    }

    fn block(&mut self) -> Result<Item, String> {
        let id = self.id.take();
        match (self.data.take(), mem::take(&mut self.is_gap), id) {
            (Some(data), false, id) => Ok(Item::Event { id, data }),
            (Some(data), true, id) => match serde_json::from_str(&data) {
                Ok(gap) => Ok(Item::Gap { id, gap }),
                Err(error) => Err(format!("a gap of {data:?}: {error}")),
            },
            (None, false, Some(id)) => Ok(Item::Id(id)),
            (None, _, _) => Err("a block without data".to_owned()),
        }
    }
}
