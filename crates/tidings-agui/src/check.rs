//! What an event may not hold although its type could: the official clients end a run at it.

use std::error::Error;
use std::fmt;

use serde_json::{Number, Value};

use crate::record::{Extra, Metadata};

/// The largest integer that JavaScript counts to without leaving any out: 2^53 - 1.
const MAX_SAFE_INTEGER: i64 = (1 << 53) - 1;

/// An event that the official clients would end the run at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidEvent {
    /// Where, from the inside out.
    path: Vec<String>,
    problem: Problem,
}

/// What is wrong with a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// An integer beyond 2^53 - 1, which JavaScript does not hold exactly.
    NotSafe,
    /// A time with a fraction, which AG-UI had before 1.0.
    Fraction,
    /// `null`, where a field that has no value must be absent.
    Null,
    /// A list without an element, where at least one is required.
    Empty,
    /// No JSON pointer: neither empty nor beginning with `/`, or a `~` that is not followed by 0 or 1.
    NotAPointer,
    /// An extra field of the name of another one, so that the name would be there twice.
    Twice,
    /// A type that is empty or holds CR, LF or NUL, and could not be the name of an SSE event.
    NotAName,
}

impl InvalidEvent {
    pub(crate) fn new(problem: Problem) -> Self {
        Self {
            path: Vec::new(),
            problem,
        }
    }

    /// The field, from the outside in, with dots between: `RUN_FINISHED.usage.0.inputTokens`.
    #[must_use]
    pub fn field(&self) -> String {
        let parts: Vec<&str> = self.path.iter().rev().map(String::as_str).collect();
        parts.join(".")
    }

    /// What is wrong with it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        self.problem
    }
}

impl fmt::Display for InvalidEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.problem {
            Problem::NotSafe => "is beyond the integers that JavaScript holds exactly",
            Problem::Fraction => "has a fraction, and must be an integer",
            Problem::Null => "is null, and must be absent if it has no value",
            Problem::Empty => "is empty, and must have an element",
            Problem::NotAPointer => "is no JSON pointer",
            Problem::Twice => "is there twice",
            Problem::NotAName => "is no name for an event",
        };
        write!(f, "{} {what}", self.field())
    }
}

impl Error for InvalidEvent {}

/// What is checked, all the way down.
pub(crate) trait Check {
    fn check(&self) -> Result<(), InvalidEvent>;

    /// The check of an optional field that is there.
    fn check_present(&self) -> Result<(), InvalidEvent> {
        self.check()
    }
}

/// Says in which field, by its name in Rust, or at which index it was.
pub(crate) fn at(field: impl fmt::Display) -> impl FnOnce(InvalidEvent) -> InvalidEvent {
    move |mut error| {
        error.path.push(camel(&field.to_string()));
        error
    }
}

/// Refuses extra fields that have the name of one of these, given by its name in Rust.
pub(crate) fn not_shadowed(extra: &Extra, fields: &[&str]) -> Result<(), InvalidEvent> {
    if extra.is_empty() {
        return Ok(());
    }
    match fields
        .iter()
        .find(|field| extra.contains_key(&camel(field)))
    {
        Some(field) => Err(at(field)(InvalidEvent::new(Problem::Twice))),
        None => Ok(()),
    }
}

/// Refuses an integer that JavaScript does not hold exactly.
pub(crate) fn safe(integer: i64) -> Result<(), InvalidEvent> {
    if (-MAX_SAFE_INTEGER..=MAX_SAFE_INTEGER).contains(&integer) {
        Ok(())
    } else {
        Err(InvalidEvent::new(Problem::NotSafe))
    }
}

/// Refuses what JavaScript does not take for an integer. A number such as 1.0 is one.
pub(crate) fn whole(number: &Number) -> Result<(), InvalidEvent> {
    match (number.as_i64(), number.as_f64()) {
        (Some(integer), _) => safe(integer),
        (None, Some(float)) if float.abs() <= MAX_SAFE_INTEGER as f64 => match float.fract() {
            0.0 => Ok(()),
            _ => Err(InvalidEvent::new(Problem::Fraction)),
        },
        _ => Err(InvalidEvent::new(Problem::NotSafe)),
    }
}

/// The name of a field as it is in JSON. Names in capitals, those of event types, stay as they are.
fn camel(field: &str) -> String {
    if field.starts_with(char::is_uppercase) {
        return field.to_owned();
    }
    let mut name = String::with_capacity(field.len());
    let mut parts = field.split('_');
    name.extend(parts.next());
    for part in parts {
        let mut letters = part.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name
}

macro_rules! anything_goes {
    ($($type:ty),*) => {$(
        impl Check for $type {
            fn check(&self) -> Result<(), InvalidEvent> {
                Ok(())
            }
        }
    )*};
}

// An empty id is an id: clients compare them and nothing more.
anything_goes!(String, bool, Metadata);

impl Check for Value {
    fn check(&self) -> Result<(), InvalidEvent> {
        Ok(())
    }

    fn check_present(&self) -> Result<(), InvalidEvent> {
        if self.is_null() {
            return Err(InvalidEvent::new(Problem::Null));
        }
        Ok(())
    }
}

impl Check for u64 {
    fn check(&self) -> Result<(), InvalidEvent> {
        safe(i64::try_from(*self).unwrap_or(i64::MAX))
    }
}

impl<T: Check> Check for Vec<T> {
    fn check(&self) -> Result<(), InvalidEvent> {
        let mut items = self.iter().enumerate();
        items.try_for_each(|(index, item)| item.check().map_err(at(index)))
    }
}

impl<T: Check> Check for Box<T> {
    fn check(&self) -> Result<(), InvalidEvent> {
        (**self).check()
    }
}
