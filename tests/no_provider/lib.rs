//! Nothing: it is about what comes in with the dependencies.
