//! Several nodes: what carries events from one process to the streams of another.

mod contract;

pub use contract::{
    Backplane, BackplaneError, Event, Fetched, Head, Level, Message, Missing, Place, Position,
    Received,
};
