//! The shapes that everything in the protocol has, as tables: objects of required and optional fields, unions that a tag
//! tells apart, sets of words. Each with its check.

/// Defines structs as `record!` does, with the check.
macro_rules! wire {
    ($(
        $(#[$meta:meta])*
        struct $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)* }
        optional { $($(#[$opt_doc:meta])* $opt:ident: $opt_type:ty,)* }
    )*) => {$(
        $crate::record! {
            $(#[$meta])*
            struct $name { $($(#[$doc])* $field: $type,)* }
            optional { $($(#[$opt_doc])* $opt: $opt_type,)* }
        }

        impl $crate::check::Check for $name {
            fn check(&self) -> Result<(), $crate::InvalidEvent> {
                #[allow(unused_imports)] // Not used by a type without fields.
                use $crate::check::{Check, at};
                $(self.$field.check().map_err(at(stringify!($field)))?;)*
                $(if let Some(value) = &self.$opt {
                    value.check_present().map_err(at(stringify!($opt)))?;
                })*
                $crate::check::not_shadowed(
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
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        #[serde(tag = $tag)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $value)] $variant($type),)*
        }

        $crate::read_by_tag! {
            $name by $tag {
                $($value => $variant($type),)*
            }
        }

        $(impl From<$type> for $name {
            fn from(value: $type) -> Self {
                Self::$variant(value)
            }
        })*

        impl $crate::check::Check for $name {
            fn check(&self) -> Result<(), $crate::InvalidEvent> {
                use $crate::check::not_shadowed;
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

        $crate::from_json_by_serde!($name);

        impl $crate::check::Check for $name {
            fn check(&self) -> Result<(), $crate::InvalidEvent> {
                Ok(())
            }
        }
    };
}

pub(crate) use {tagged, wire, words};
