//! The sender of a request, for the log.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::header::HOST;
use axum::http::request::Parts;

use super::served::Shared;

/// Where a request comes from, as far as it is known.
pub(super) struct Caller {
    peer: Option<String>,
    host: Option<String>,
    operator: Option<String>,
}

impl Caller {
    pub(super) fn peer(&self) -> Option<&str> {
        self.peer.as_deref()
    }

    pub(super) fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    pub(super) fn operator(&self) -> Option<&str> {
        self.operator.as_deref()
    }
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.or(parts.uri.authority().map(|authority| authority.as_str()));
        Ok(Self {
            peer: peer.map(|ConnectInfo(peer)| peer.to_string()),
            host: host.map(str::to_owned),
            operator: shared.operator.as_ref().and_then(|name| name(parts)),
        })
    }
}
