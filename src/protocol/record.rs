//! The shape that everything in the protocols has, as a table: an object of required and optional fields.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// Fields that a type does not know. They are carried through.
pub type Extra = Map<String, Value>;

/// Information of the application's own: any JSON under any key. In AG-UI the key `ag-ui` is the protocol's.
pub type Metadata = Map<String, Value>;

/// An optional field that is there. `null` is for the type to accept or refuse: taken for absence, it would not come
/// back, and clients refuse it almost everywhere.
pub(super) fn present<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// Defines structs from tables of their fields, `{ required } optional { fields }`: with serde in both directions, a
/// constructor that takes what is required, and a method for each optional field.
macro_rules! record {
    ($(
        $(#[$meta:meta])*
        struct $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* }
        optional { $($(#[$opt_doc:meta])* $opt:ident: $opt_type:ty,)* }
    )*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$doc])* pub $field: $type,)*
            $(
                $(#[$opt_doc])*
                #[serde(
                    default,
                    skip_serializing_if = "Option::is_none",
                    deserialize_with = "crate::protocol::record::present"
                )]
                pub $opt: Option<$opt_type>,
            )*
            /// Fields that this type does not know.
            #[serde(flatten)]
            pub extra: $crate::protocol::record::Extra,
        }

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

/// Makes an event of each of its bodies: of one that says no time, an event that happens now.
#[cfg(feature = "agents")]
macro_rules! timed {
    ($event:ident: $($body:ident),*) => {$(
        impl From<$body> for $event {
            fn from(mut body: $body) -> Self {
                body.timestamp
                    .get_or_insert_with($crate::protocol::clock::now);
                Self::$body(body)
            }
        }
    )*};
}

pub(super) use record;
#[cfg(feature = "agents")]
pub(super) use timed;
