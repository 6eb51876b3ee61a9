//! The shape that the events defined by this crate have, as a table.

/// Defines an enum of events from a table of their types, `"type" => Variant,`, each a record of the variant's name with an
/// optional `timestamp`: with serde in both directions, `From` each record, which sets the time if it is absent, and `ToSse`.
/// `heartbeat`, which has no fields, is added.
macro_rules! events {
    (
        $(#[$meta:meta])*
        enum $name:ident { $($(#[$doc:meta])* $tag:literal => $variant:ident,)* }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        #[serde(tag = "type")]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $tag)] $variant($variant),)*
            /// The stream is alive: `heartbeat`. It has no fields.
            #[serde(rename = "heartbeat")]
            Heartbeat,
        }

        impl $name {
            /// The type's name.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $tag,)*
                    Self::Heartbeat => "heartbeat",
                }
            }
        }

        tidings_agui::read_by_tag! {
            $name by "type" {
                $($tag => $variant($variant),)*
                ;
                "heartbeat" => Heartbeat,
            }
        }

        $(impl From<$variant> for $name {
            fn from(mut event: $variant) -> Self {
                event.timestamp.get_or_insert_with(tidings_agui::clock::now);
                Self::$variant(event)
            }
        })*

        impl $crate::event::ToSse for $name {
            fn event(&self) -> Option<&str> {
                Some(self.name())
            }

            fn data(
                &self,
                data: &mut $crate::event::Data<'_>,
            ) -> Result<(), $crate::error::EncodeError> {
                data.json(self)
            }
        }
    };
}

pub(super) use events;
