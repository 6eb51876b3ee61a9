//! The state that client and agent share, the conversation, and activities.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::check::{Check, InvalidEvent, Problem};
use crate::from_json_by_serde;
use crate::message::Message;
use crate::record::Extra;
use crate::wire::{tagged, wire};

wire! {
    /// The whole state.
    struct StateSnapshot {
        /// Any JSON; `null` is a state as well.
        snapshot: Value,
    } optional {}

    /// Changes to the state.
    struct StateDelta {
        /// The changes, in the order they are applied.
        delta: Vec<PatchOperation>,
    } optional {}

    /// The whole conversation.
    struct MessagesSnapshot {
        /// Its messages.
        messages: Vec<Message>,
    } optional {}

    /// What is going on, as a message that the application knows how to show.
    struct ActivitySnapshot {
        /// The message.
        message_id: String,
        /// The form that the application knows.
        activity_type: String,
        /// What to show.
        content: Extra,
    } optional {
        /// Whether it takes the place of a message of this id; it does if absent.
        replace: bool,
    }

    /// Changes to an activity.
    struct ActivityDelta {
        /// The message.
        message_id: String,
        /// The form that the application knows.
        activity_type: String,
        /// The changes, in the order they are applied.
        patch: Vec<PatchOperation>,
    } optional {}
}

tagged! {
    /// One change, of [RFC 6902](https://www.rfc-editor.org/rfc/rfc6902).
    enum PatchOperation by "op" {
        /// Puts a value somewhere.
        "add" => Add(AddOperation),
        /// Takes a value away.
        "remove" => Remove(RemoveOperation),
        /// Puts a value in the place of another.
        "replace" => Replace(ReplaceOperation),
        /// Takes a value from one place to another.
        "move" => Move(MoveOperation),
        /// Copies a value from one place to another.
        "copy" => Copy(CopyOperation),
        /// Demands that a value is there.
        "test" => Test(TestOperation),
    }
}

wire! {
    /// Puts a value somewhere.
    struct AddOperation {
        /// Where.
        path: JsonPointer,
        /// The value, which may be `null`.
        value: Value,
    } optional {}

    /// Takes a value away.
    struct RemoveOperation {
        /// From where.
        path: JsonPointer,
    } optional {}

    /// Puts a value in the place of another.
    struct ReplaceOperation {
        /// Where.
        path: JsonPointer,
        /// The value, which may be `null`.
        value: Value,
    } optional {}

    /// Takes a value from one place to another.
    struct MoveOperation {
        /// From where.
        from: JsonPointer,
        /// To where.
        path: JsonPointer,
    } optional {}

    /// Copies a value from one place to another.
    struct CopyOperation {
        /// From where.
        from: JsonPointer,
        /// To where.
        path: JsonPointer,
    } optional {}

    /// Demands that a value is there.
    struct TestOperation {
        /// Where.
        path: JsonPointer,
        /// The value, which may be `null`.
        value: Value,
    } optional {}
}

/// A place in a JSON document, of [RFC 6901](https://www.rfc-editor.org/rfc/rfc6901): `/tasks/0/done`, or the empty
/// string for the whole. Whether it is one is seen by [`Event::check`](crate::Event::check).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JsonPointer(pub String);

from_json_by_serde!(JsonPointer);

impl<T: Into<String>> From<T> for JsonPointer {
    fn from(pointer: T) -> Self {
        Self(pointer.into())
    }
}

impl Check for JsonPointer {
    fn check(&self) -> Result<(), InvalidEvent> {
        let mut after_tilde = self.0.split('~').skip(1);
        let escapes = after_tilde.all(|rest| rest.starts_with(['0', '1']));
        if escapes && (self.0.is_empty() || self.0.starts_with('/')) {
            Ok(())
        } else {
            Err(InvalidEvent::new(Problem::NotAPointer))
        }
    }
}
