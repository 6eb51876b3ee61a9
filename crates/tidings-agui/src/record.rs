//! The shape that everything in the protocols has, as a table: an object of required and optional fields.
//!
//! Public, and hidden, for the crate `tidings`, whose own events have the same shape. Nothing here is a promise to anybody else.

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::{Error, Map, Number, Value};

/// Fields that a type does not know. They are carried through.
pub type Extra = Map<String, Value>;

/// Information of the application's own: any JSON under any key. In AG-UI the key `ag-ui` is the protocol's.
pub type Metadata = Map<String, Value>;

/// What is read from a JSON value.
///
/// serde reads flattened structs and tagged enums through a buffer that cannot hold every number: with
/// `serde_json/arbitrary_precision`, which any crate of a program may enable, fractions and large integers fail there. So
/// the types here are read from a [`Value`] by this trait, never through that buffer.
pub trait FromJson: Sized {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// What of the value is not as the type has it.
    fn from_json(value: Value) -> Result<Self, Error>;
}

/// Types that serde reads without its buffer.
#[doc(hidden)]
#[macro_export]
macro_rules! from_json_by_serde {
    ($($type:ty),* $(,)?) => {$(
        impl $crate::record::FromJson for $type {
            fn from_json(value: serde_json::Value) -> Result<Self, serde_json::Error> {
                serde_json::from_value(value)
            }
        }
    )*};
}

from_json_by_serde!(String, bool, i64, u64);

impl FromJson for Value {
    fn from_json(value: Value) -> Result<Self, Error> {
        Ok(value)
    }
}

impl FromJson for Map<String, Value> {
    fn from_json(value: Value) -> Result<Self, Error> {
        match value {
            Value::Object(fields) => Ok(fields),
            other => Self::deserialize(other),
        }
    }
}

impl FromJson for Number {
    fn from_json(value: Value) -> Result<Self, Error> {
        match value {
            Value::Number(number) => Ok(number),
            other => Self::deserialize(other),
        }
    }
}

impl FromJson for f64 {
    fn from_json(value: Value) -> Result<Self, Error> {
        // With arbitrary precision, serde takes what is too large for infinite, which JSON has no word for.
        let number = Number::from_json(value)?.as_f64();
        let number = number.filter(|number| number.is_finite());
        number.ok_or_else(|| Error::custom("number out of range"))
    }
}

impl<T: FromJson> FromJson for Vec<T> {
    fn from_json(value: Value) -> Result<Self, Error> {
        let items = match value {
            Value::Array(items) => items,
            other => Vec::<Value>::deserialize(other)?,
        };
        items.into_iter().map(T::from_json).collect()
    }
}

impl<T: FromJson> FromJson for Box<T> {
    fn from_json(value: Value) -> Result<Self, Error> {
        T::from_json(value).map(Self::new)
    }
}

/// Takes a field that must be there.
pub fn required<T: FromJson>(fields: &mut Extra, name: &'static str) -> Result<T, Error> {
    optional(fields, name)?.ok_or_else(|| Error::missing_field(name))
}

/// Takes a field that may be absent. `null` is for the type to accept or refuse: taken for absence, it would not come back,
/// and clients refuse it almost everywhere.
pub fn optional<T: FromJson>(fields: &mut Extra, name: &'static str) -> Result<Option<T>, Error> {
    let value = fields.remove(name).map(T::from_json);
    let named = |error| Error::custom(format_args!("{name}: {error}"));
    value.transpose().map_err(named)
}

/// Takes the field that says which of several types an object is.
pub fn tag(fields: &mut Extra, name: &'static str) -> Result<String, Error> {
    match fields.remove(name) {
        Some(Value::String(tag)) => Ok(tag),
        Some(_) => Err(Error::custom(format_args!("the {name} is not a string"))),
        None => Err(Error::missing_field(name)),
    }
}

/// The name in JSON of a field `a_field`: `aField`.
pub const fn camel<const N: usize>(field: &str) -> [u8; N] {
    let field = field.as_bytes();
    let mut name = [0; N];
    let (mut from, mut to) = (0, 0);
    while from < field.len() {
        name[to] = if field[from] == b'_' {
            from += 1;
            field[from].to_ascii_uppercase()
        } else {
            field[from]
        };
        from += 1;
        to += 1;
    }
    name
}

/// How long that is.
pub const fn camel_len(field: &str) -> usize {
    let field = field.as_bytes();
    let (mut at, mut len) = (0, 0);
    while at < field.len() {
        if field[at] != b'_' {
            len += 1;
        }
        at += 1;
    }
    len
}

/// The name of a field in JSON, as a constant.
#[doc(hidden)]
#[macro_export]
macro_rules! json_name {
    ($field:ident) => {{
        use $crate::record::{camel, camel_len};
        const FIELD: &str = stringify!($field);
        const NAME: [u8; camel_len(FIELD)] = camel(FIELD);
        const {
            match std::str::from_utf8(&NAME) {
                Ok(name) => name,
                Err(_) => panic!("a field's name is ASCII"),
            }
        }
    }};
}

/// Reads a type as serde asks for it: as the JSON value that it would be read from here.
#[doc(hidden)]
#[macro_export]
macro_rules! deserialize_from_json {
    ($name:ident from $json:ty) => {
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = <$json>::deserialize(deserializer)?;
                let read = $crate::record::FromJson::from_json(value.into());
                read.map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Reads an enum of records, which a tag tells apart, and of variants without fields.
#[doc(hidden)]
#[macro_export]
macro_rules! read_by_tag {
    (
        $name:ident by $tag:literal {
            $($value:literal => $variant:ident($type:ty),)*
            $(; $($unit_value:literal => $unit:ident,)*)?
        }
    ) => {
        impl $crate::record::FromJson for $name {
            fn from_json(value: serde_json::Value) -> Result<Self, serde_json::Error> {
                use $crate::record::{Extra, tag};
                let mut fields = Extra::from_json(value)?;
                let tag = tag(&mut fields, $tag)?;
                Ok(match &*tag {
                    $($value => Self::$variant(<$type>::from_json(fields.into())?),)*
                    $($($unit_value => Self::$unit,)*)?
                    other => {
                        const TAGS: &[&str] = &[$($value,)* $($($unit_value,)*)?];
                        return Err(serde::de::Error::unknown_variant(other, TAGS));
                    }
                })
            }
        }

        $crate::deserialize_from_json!($name from $crate::record::Extra);
    };
}

/// Defines structs from tables of their fields, `{ required } optional { fields }`: with serde in both directions, a
/// constructor that takes what is required, and a method for each optional field.
#[doc(hidden)]
#[macro_export]
macro_rules! record {
    ($(
        $(#[$meta:meta])*
        struct $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* }
        optional { $($(#[$opt_doc:meta])* $opt:ident: $opt_type:ty,)* }
    )*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        #[serde(rename_all = "camelCase")]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$doc])* pub $field: $type,)*
            $(
                $(#[$opt_doc])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $opt: Option<$opt_type>,
            )*
            /// Fields that this type does not know.
            #[serde(flatten)]
            pub extra: $crate::record::Extra,
        }

        impl $crate::record::FromJson for $name {
            fn from_json(value: serde_json::Value) -> Result<Self, serde_json::Error> {
                #[allow(unused_imports)] // Some have no field of a kind.
                use $crate::record::{Extra, optional, required};
                #[allow(unused_mut)] // Some have no field at all.
                let mut fields = Extra::from_json(value)?;
                Ok(Self {
                    $($field: required(&mut fields, $crate::json_name!($field))?,)*
                    $($opt: optional(&mut fields, $crate::json_name!($opt))?,)*
                    extra: fields,
                })
            }
        }

        $crate::deserialize_from_json!($name from $crate::record::Extra);

        impl $name {
            /// Builds one from what is required.
            #[must_use]
            pub fn new($($field: impl Into<$type>),*) -> Self {
                Self {
                    $($field: $field.into(),)*
                    $($opt: None,)*
                    extra: Default::default(),
                }
            }

            $(
                #[doc = concat!(
                    "Sets [`", stringify!($opt), "`](Self#structfield.", stringify!($opt), ")."
                )]
                #[must_use]
                pub fn $opt(mut self, value: impl Into<$opt_type>) -> Self {
                    self.$opt = Some(value.into());
                    self
                }
            )*
        }
    )*};
}
