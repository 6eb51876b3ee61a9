//! What messages and results consist of: text, or parts.

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::check::{Check, InvalidEvent};
use super::wire::{tagged, wire};

/// Text, or a list of parts.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Content {
    /// Text alone: a string in JSON.
    Text(String),
    /// Parts: an array in JSON. In the results of tools only since AG-UI 1.0.
    Parts(Vec<ContentPart>),
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<Vec<ContentPart>> for Content {
    fn from(parts: Vec<ContentPart>) -> Self {
        Self::Parts(parts)
    }
}

impl Check for Content {
    fn check(&self) -> Result<(), InvalidEvent> {
        match self {
            Self::Text(_) => Ok(()),
            Self::Parts(parts) => parts.check(),
        }
    }
}

// By hand, because serde's own says of a wrong part only that the content is neither of the two.
impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Content;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string or an array of content parts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Content, E> {
                Ok(Content::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, parts: A) -> Result<Content, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(parts)).map(Content::Parts)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

tagged! {
    /// One part of a message.
    enum ContentPart by "type" {
        /// Text.
        "text" => Text(TextPart),
        /// An image.
        "image" => Image(ImagePart),
        /// A sound.
        "audio" => Audio(AudioPart),
        /// A video.
        "video" => Video(VideoPart),
        /// A document.
        "document" => Document(DocumentPart),
    }
}

wire! {
    /// A part of text.
    struct TextPart {
        /// The text.
        text: String,
    } optional {
        /// The part's id.
        id: String,
        /// Whatever the application wants to keep with it. Not null.
        metadata: Value,
    }

    /// An image.
    struct ImagePart {
        /// Where it is.
        source: PartSource,
    } optional {
        /// The part's id.
        id: String,
        /// Whatever the application wants to keep with it. Not null.
        metadata: Value,
    }

    /// A sound.
    struct AudioPart {
        /// Where it is.
        source: PartSource,
    } optional {
        /// The part's id.
        id: String,
        /// Whatever the application wants to keep with it. Not null.
        metadata: Value,
    }

    /// A video.
    struct VideoPart {
        /// Where it is.
        source: PartSource,
    } optional {
        /// The part's id.
        id: String,
        /// Whatever the application wants to keep with it. Not null.
        metadata: Value,
    }

    /// A document.
    struct DocumentPart {
        /// Where it is.
        source: PartSource,
    } optional {
        /// The part's id.
        id: String,
        /// Whatever the application wants to keep with it. Not null.
        metadata: Value,
    }
}

tagged! {
    /// Where the bytes of a part are.
    enum PartSource by "type" {
        /// In the event itself.
        "data" => Data(DataSource),
        /// Behind a URL.
        "url" => Url(UrlSource),
        /// A file that a provider keeps.
        "file" => File(FileSource),
    }
}

wire! {
    /// Bytes in the event itself.
    struct DataSource {
        /// The bytes, in base64.
        value: String,
        /// Their media type.
        mime_type: String,
    } optional {}

    /// Bytes behind a URL.
    struct UrlSource {
        /// The URL.
        value: String,
    } optional {
        /// Their media type.
        mime_type: String,
    }

    /// A file that a provider keeps.
    struct FileSource {
        /// The file's id with the provider.
        value: String,
    } optional {
        /// The provider.
        provider: String,
        /// The file's media type.
        mime_type: String,
    }
}

impl ContentPart {
    /// A part of text.
    pub fn text(text: impl Into<String>) -> Self {
        TextPart::new(text).into()
    }
}
