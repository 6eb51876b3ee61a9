//! Events of the application itself: which contexts a user has, and that the stream is alive.
//!
//! A context is whatever the application groups things by: a conversation, a project, a document. The JSON of each event,
//! with every field; those after `timestamp` are optional, as is `timestamp` itself, in milliseconds since 1970:
//!
//! ```
//! # use serde_json::{Value, json};
//! # use tidings::protocol::system::SystemEvent;
//! # let events = vec![
//! json!({"type": "connected", "timestamp": 1763812800000i64, "connectionId": "tab-1"}),
//! json!({"type": "contextCreated", "context": {
//!     "id": "c1", "name": "Trip", "createdAt": 1763812800000i64, "updatedAt": 1763812800000i64, "metadata": {"color": "red"}
//! }, "timestamp": 1763812800000i64}),
//! json!({"type": "contextUpdated", "context": {"id": "c1", "name": "Journey"}, "timestamp": 1763812800000i64}),
//! json!({"type": "contextDeleted", "contextId": "c1", "timestamp": 1763812800000i64}),
//! json!({"type": "contextsSnapshot", "contexts": [{"id": "c2"}, {"id": "c3"}], "timestamp": 1763812800000i64}),
//! json!({"type": "heartbeat"}),
//! # ];
//! # for event in events {
//! #     let parsed: SystemEvent = serde_json::from_value(event.clone()).unwrap();
//! #     assert_eq!(serde_json::to_value(&parsed).unwrap(), event);
//! # }
//! ```

use tidings_agui::{Metadata, record};

use super::events::events;

events! {
    /// An event of the application itself. The name of its server-sent event is the type.
    ///
    /// ```
    /// use tidings::protocol::system::{Context, SystemEvent};
    ///
    /// let event = SystemEvent::context_created(Context::new("c1").name("Trip"));
    /// assert_eq!(event.name(), "contextCreated");
    /// ```
    enum SystemEvent {
        /// The stream is open: `connected`.
        "connected" => Connected,
        /// A context was created: `contextCreated`.
        "contextCreated" => ContextCreated,
        /// A context has changed: `contextUpdated`.
        "contextUpdated" => ContextUpdated,
        /// A context was deleted: `contextDeleted`.
        "contextDeleted" => ContextDeleted,
        /// These are all contexts: `contextsSnapshot`.
        "contextsSnapshot" => ContextsSnapshot,
    }
}

record! {
    /// The stream is open.
    #[derive(Default)]
    struct Connected {} optional {
        /// When.
        timestamp: i64,
        /// The connection's id.
        connection_id: String,
    }

    /// There is a new context.
    struct ContextCreated {
        /// The context.
        context: Context,
    } optional {
        /// When.
        timestamp: i64,
    }

    /// A context is not as it was.
    struct ContextUpdated {
        /// The context as it is now.
        context: Context,
    } optional {
        /// When.
        timestamp: i64,
    }

    /// A context is no more.
    struct ContextDeleted {
        /// The context's id.
        context_id: String,
    } optional {
        /// When.
        timestamp: i64,
    }

    /// These are all contexts.
    struct ContextsSnapshot {
        /// The contexts.
        contexts: Vec<Context>,
    } optional {
        /// When.
        timestamp: i64,
    }

    /// A context: whatever the application groups things by.
    struct Context {
        /// Its id.
        id: String,
    } optional {
        /// Its name, for people.
        name: String,
        /// When this context was created, in milliseconds since 1970.
        created_at: i64,
        /// When it last changed, in milliseconds since 1970.
        updated_at: i64,
        /// Information of the application's own.
        metadata: Metadata,
    }
}

impl SystemEvent {
    /// The stream is open from now on.
    #[must_use]
    pub fn connected() -> Self {
        Connected::new().into()
    }

    /// A context was created just now.
    #[must_use]
    pub fn context_created(context: Context) -> Self {
        ContextCreated::new(context).into()
    }

    /// A context has this form from now on.
    #[must_use]
    pub fn context_updated(context: Context) -> Self {
        ContextUpdated::new(context).into()
    }

    /// A context was deleted just now.
    pub fn context_deleted(id: impl Into<String>) -> Self {
        ContextDeleted::new(id).into()
    }

    /// These are all contexts, now.
    pub fn contexts_snapshot(contexts: impl Into<Vec<Context>>) -> Self {
        ContextsSnapshot::new(contexts).into()
    }
}
