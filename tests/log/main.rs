//! What is logged. Alone, because a subscriber is one for the whole process.

mod log_lines;
mod trace;

#[path = "../support"]
mod support {
    pub(crate) mod wrapped;
}
