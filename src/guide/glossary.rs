#![doc = include_str!("links.md")]
#![doc = include_str!("../../docs/glossary.md")]
