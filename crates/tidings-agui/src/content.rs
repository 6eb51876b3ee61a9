//! What messages and results consist of: text, or parts.

use serde::Serialize;
use serde::de::Error as _;
use serde_json::{Error, Value};

use super::check::{Check, InvalidEvent};
use super::wire::{tagged, wire};
use crate::deserialize_from_json;
use crate::record::FromJson;

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
impl FromJson for Content {
    fn from_json(value: Value) -> Result<Self, Error> {
        match value {
            Value::String(text) => Ok(Self::Text(text)),
            Value::Array(_) => Vec::from_json(value).map(Self::Parts),
            _ => Err(Error::custom(
                "the content is not a string or an array of content parts",
            )),
        }
    }
}

deserialize_from_json!(Content from Value);

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
