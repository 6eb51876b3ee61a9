//! What clients get over HTTP, and what they cannot do to the server.

#[cfg(feature = "serve")]
mod abuse;
#[cfg(feature = "serve")]
mod attendants;
#[cfg(feature = "serve")]
mod attendants_panics;
mod console;
#[cfg(feature = "serve")]
mod differential;
#[cfg(all(feature = "serve", feature = "agents"))]
mod first_byte;
#[cfg(feature = "serve")]
mod gone;
#[cfg(feature = "serve")]
mod heads;
#[cfg(feature = "axum")]
mod http;
#[cfg(feature = "serve")]
mod merged;
#[cfg(feature = "axum")]
mod responses;
#[cfg(feature = "axum")]
mod runs;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "http2")]
mod serve_cut;
#[cfg(feature = "http2")]
mod serve_h2;
#[cfg(feature = "http2")]
mod serve_h2_limits;
#[cfg(feature = "serve")]
mod serve_http1;
#[cfg(feature = "serve")]
mod stalled;
#[cfg(feature = "serve")]
mod starved;
#[cfg(feature = "serve")]
mod testkit;

#[cfg(feature = "serve")]
#[allow(dead_code, reason = "benchmarks use all of it")]
#[path = "../../benches/support"]
mod load {
    pub(crate) mod http1;
    #[cfg(feature = "http2")]
    pub(crate) mod http2;
    pub(crate) mod numbered;
}

#[path = "../support"]
mod support {
    #[cfg(feature = "axum")]
    pub(crate) mod decoder;
    #[cfg(feature = "http2")]
    pub(crate) mod http2_by_hand;
    #[cfg(feature = "serve")]
    pub(crate) mod raw_http;
    #[cfg(feature = "serve")]
    pub(crate) mod site;
    #[cfg(feature = "serve")]
    pub(crate) mod wire_app;
}

#[cfg(feature = "http2")]
#[allow(dead_code, reason = "its main is the example's")]
#[path = "../../examples/tls_h2/src/main.rs"]
mod tls_h2;
