//! What is logged. Alone, because a subscriber is one for the whole process.

mod log_lines;
mod trace;
