//! Events that the protocol only carries.

use serde_json::Value;

use crate::wire::wire;

wire! {
    /// An event of somebody else's, passed on.
    struct Raw {
        /// The event: any JSON.
        event: Value,
    } optional {
        /// Where it comes from.
        source: String,
    }

    /// An event of the application's own.
    struct Custom {
        /// Its name.
        name: String,
        /// Its value: any JSON, `null` among it.
        value: Value,
    } optional {}
}
