#![doc = include_str!("../../docs/http.md")]
