//! What the fuzz targets have in common; see README.md.

pub mod decoders;
pub mod json;
pub mod model;
pub mod protocol;
pub mod rig;
pub mod script;
mod words;
