#![doc = include_str!("../../docs/capacity.md")]
