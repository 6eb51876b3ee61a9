#![doc = include_str!("../../docs/assurance.md")]
