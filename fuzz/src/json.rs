//! Any JSON.

use arbitrary::{Arbitrary, Result, Unstructured};
use serde_json::{Map, Number, Value};

const DEEPEST: usize = 6;

/// A JSON value, whose objects often have these names.
pub fn value(u: &mut Unstructured<'_>, names: &[&str]) -> Result<Value> {
    nested(u, names, DEEPEST)
}

/// An object.
pub fn object(u: &mut Unstructured<'_>, names: &[&str]) -> Result<Map<String, Value>> {
    members(u, names, DEEPEST)
}

/// Any JSON value.
#[derive(Debug, Clone)]
pub struct Any(pub Value);

impl<'a> Arbitrary<'a> for Any {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        value(u, &[]).map(Self)
    }
}

/// JSON as it stands in a frame: one line, without what some take for the end of a line.
pub fn line(value: &Value) -> String {
    escaped(&value.to_string())
}

/// What some take for the end of a line.
pub const SEPARATORS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

/// JSON that is one line already, without those. They can only stand in strings.
pub fn escaped(json: &str) -> String {
    SEPARATORS.iter().fold(json.to_owned(), |json, separator| {
        json.replace(*separator, &format!("\\u{:04x}", u32::from(*separator)))
    })
}

fn nested(u: &mut Unstructured<'_>, names: &[&str], depth: usize) -> Result<Value> {
    let kinds = if depth == 0 || u.is_empty() { 5 } else { 7 };
    Ok(match u.int_in_range(0..=kinds)? {
        0 => Value::Null,
        1 => u.arbitrary::<bool>()?.into(),
        2 => u.arbitrary::<u64>()?.into(),
        3 => u.arbitrary::<i64>()?.into(),
        // There is no JSON for what is not finite.
        4 => Number::from_f64(u.arbitrary()?).map_or(Value::Null, Value::Number),
        5 => text(u, names)?.into(),
        6 => {
            let mut list = Vec::new();
            while list.len() < 8 && u.arbitrary()? {
                list.push(nested(u, names, depth - 1)?);
            }
            list.into()
        }
        _ => members(u, names, depth - 1)?.into(),
    })
}

fn members(u: &mut Unstructured<'_>, names: &[&str], depth: usize) -> Result<Map<String, Value>> {
    let mut members = Map::new();
    while members.len() < 12 && u.arbitrary()? {
        members.insert(text(u, names)?, nested(u, names, depth)?);
    }
    Ok(members)
}

/// One of the names, or anything.
fn text(u: &mut Unstructured<'_>, names: &[&str]) -> Result<String> {
    if !names.is_empty() && u.ratio(3, 4)? {
        return u.choose(names).map(|name| (*name).to_owned());
    }
    u.arbitrary()
}
