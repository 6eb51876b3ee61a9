//! The examples, as they are.

#[cfg(all(feature = "serve", unix))]
mod drain;
#[cfg(feature = "serve")]
mod recipes;
#[cfg(feature = "serve")]
mod services;

#[cfg(feature = "serve")]
#[allow(dead_code, reason = "benchmarks use all of it")]
#[path = "../../benches/support"]
mod load {
    #[cfg(unix)]
    pub(crate) mod farewell;
    #[cfg(unix)]
    pub(crate) mod http1;
}

#[cfg(feature = "serve")]
#[path = "../support"]
mod support {
    pub(crate) mod decoder;
    pub(crate) mod example;
    pub(crate) mod recipe;
}

#[cfg(feature = "http2")]
#[allow(dead_code, reason = "its main is the example's")]
#[path = "../../examples/tls_h2/src/main.rs"]
mod tls_h2;
