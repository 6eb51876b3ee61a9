//! The two shapes that everything in the protocol has, as tables: objects of required and optional fields, and unions
//! that a tag tells apart.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// Fields that a type does not know. They are carried through.
pub type Extra = Map<String, Value>;

/// Information of the application's own: any JSON under any key. The key `ag-ui` is the protocol's.
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

/// Defines structs from tables of their fields, `{ required } optional { fields }`: with serde in both directions, a constructor
/// that takes what is required, a method for each optional field, and the check.
macro_rules! wire {
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
                    deserialize_with = "crate::protocol::agui::wire::present"
                )]
                pub $opt: Option<$opt_type>,
            )*
            /// Fields that this type does not know.
            #[serde(flatten)]
            pub extra: $crate::protocol::agui::Extra,
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

        impl $crate::protocol::agui::check::Check for $name {
            fn check(&self) -> Result<(), $crate::protocol::agui::InvalidEvent> {
                #[allow(unused_imports)] // Not used by a type without fields.
                use $crate::protocol::agui::check::{Check, at};
                $(self.$field.check().map_err(at(stringify!($field)))?;)*
                $(if let Some(value) = &self.$opt {
                    value.check_present().map_err(at(stringify!($opt)))?;
                })*
                $crate::protocol::agui::check::not_shadowed(
                    &self.extra,
                    &[$(stringify!($field),)* $(stringify!($opt),)*],
                )
            }
        }
    )*};
}

/// Defines a union from a table of its members: `enum Name by "tag" { "value" => Variant(Struct), }`.
macro_rules! tagged {
    (
        $(#[$meta:meta])*
        enum $name:ident by $tag:literal {
            $($(#[$doc:meta])* $value:literal => $variant:ident($type:ty),)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = $tag)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $value)] $variant($type),)*
        }

        $(impl From<$type> for $name {
            fn from(value: $type) -> Self {
                Self::$variant(value)
            }
        })*

        impl $crate::protocol::agui::check::Check for $name {
            fn check(&self) -> Result<(), $crate::protocol::agui::InvalidEvent> {
                use $crate::protocol::agui::check::not_shadowed;
                match self {
                    $(Self::$variant(value) => {
                        not_shadowed(&value.extra, &[$tag])?;
                        value.check()
                    })*
                }
            }
        }
    };
}

/// Defines a set of words: `enum Name { "word" => Variant, }`.
macro_rules! words {
    (
        $(#[$meta:meta])*
        enum $name:ident { $($(#[$doc:meta])* $word:literal => $variant:ident,)* }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)*
        }

        impl $crate::protocol::agui::check::Check for $name {
            fn check(&self) -> Result<(), $crate::protocol::agui::InvalidEvent> {
                Ok(())
            }
        }
    };
}

pub(super) use {tagged, wire, words};
