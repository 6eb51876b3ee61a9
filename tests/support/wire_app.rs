//! An app whose responses ask for everything that decides how a response stands on the wire.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRAILER, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http_body::Frame;
use http_body_util::{BodyExt, Limited, StreamBody};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;

pub(crate) fn app() -> Router {
    Router::new()
        .route("/whole", any(|| async { "whole" }))
        .route("/three", any(|| async { events(three()) }))
        .route("/none", any(|| async { events(pieces([])) }))
        .route("/endless", any(|| async { events(endless()) }))
        .route("/slow", any(|| async { events(slow()) }))
        .route("/at-once", any(|| async { events(Body::from("three")) }))
        .route("/no-body", any(|| async { events(Body::empty()) }))
        .route("/fails", any(|| async { events(failing()) }))
        .route("/fails-later", any(|| async { events(failing_later()) }))
        .route(
            "/after-trailers",
            any(|| async { events(after_trailers()) }),
        )
        .route("/version/{version}", any(version))
        .route("/plain-version/{version}", any(plain_version))
        .route("/status/{status}", any(status))
        .route("/type/{name}", any(content_type))
        .route("/with/{name}", any(with_header))
        .route("/trailers/{kind}", any(trailers))
        .route("/echo", any(echo))
        .route("/unread", any(unread))
        .route("/upgrade", any(upgrade))
        .merge(layered())
}

/// Streams with something around their bodies.
fn layered() -> Router {
    let upper = map_response(|response: Response| async {
        response.map(|body| {
            let upper = body.into_data_stream();
            Body::from_stream(upper.map(|piece| piece.map(|piece| piece.to_ascii_uppercase())))
        })
    });
    let limited = map_response(|response: Response| async {
        response.map(|body| Body::new(Limited::new(body, 5)))
    });
    let collected = map_response(|response: Response| async {
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.expect("it does not fail").to_bytes();
        Response::from_parts(head, Body::from(bytes))
    });
    let older = map_response(|mut response: Response| async {
        *response.version_mut() = Version::HTTP_10;
        response
    });
    let closing = map_response(|mut response: Response| async {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
        response
    });
    let three = || any(|| async { events(three()) });
    Router::new()
        .route("/layer/upper", three().layer(upper))
        .route("/layer/limited", three().layer(limited))
        .route("/layer/collected", three().layer(collected))
        .route("/layer/older", three().layer(older))
        .route("/layer/closing", three().layer(closing))
        .route(
            "/layer/compressed",
            three().layer(CompressionLayer::new().compress_when(SizeAbove::new(0))),
        )
}

fn events(body: Body) -> Response {
    ([(CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// A body of these pieces, of unknown length.
fn pieces<const N: usize>(pieces: [&'static str; N]) -> Body {
    Body::from_stream(stream::iter(pieces.map(Ok::<_, Infallible>)))
}

fn three() -> Body {
    pieces(["one", "", "two", "three"])
}

fn endless() -> Body {
    let one = stream::iter([Ok::<_, Infallible>("one")]);
    Body::from_stream(one.chain(stream::pending()))
}

/// Each piece after other tasks had their turn.
fn slow() -> Body {
    let pieces = stream::iter(["one", "two", "three"]);
    Body::from_stream(pieces.then(|piece| async move {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(piece)
    }))
}

fn failing() -> Body {
    Body::from_stream(stream::iter([Ok("one"), Err("it broke")]))
}

/// Fails when what came before has been sent.
fn failing_later() -> Body {
    let pieces = stream::iter([Ok("one"), Err("it broke")]);
    Body::from_stream(pieces.then(|piece| async move {
        tokio::task::yield_now().await;
        piece
    }))
}

fn with_trailers() -> impl stream::Stream<Item = Result<Frame<Bytes>, Infallible>> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    trailers.insert("x-other", HeaderValue::from_static("43"));
    let frames = [
        Frame::data("one".into()),
        Frame::data("two".into()),
        Frame::trailers(trailers),
    ];
    stream::iter(frames.map(Ok))
}

/// Trailers are the end, whatever the body says.
fn after_trailers() -> Body {
    Body::new(StreamBody::new(with_trailers().chain(stream::pending())))
}

/// `none` announces no trailer, `one` the one, `both` both, in two lines.
async fn trailers(Path(kind): Path<String>) -> Response {
    let mut response = events(Body::new(StreamBody::new(with_trailers())));
    let announced: &[&str] = match kind.as_str() {
        "none" => &[],
        "one" => &["x-sum"],
        _ => &["x-sum", "x-other"],
    };
    for name in announced {
        let name = HeaderValue::from_static(name);
        response.headers_mut().append(TRAILER, name);
    }
    response
}

fn named_version(name: &str) -> Version {
    match name {
        "0.9" => Version::HTTP_09,
        "1.0" => Version::HTTP_10,
        "1.1" => Version::HTTP_11,
        "2" => Version::HTTP_2,
        _ => Version::HTTP_3,
    }
}

async fn version(Path(name): Path<String>) -> Response {
    let mut response = events(three());
    *response.version_mut() = named_version(&name);
    response
}

async fn plain_version(Path(name): Path<String>) -> Response {
    let mut response = three().into_response();
    *response.version_mut() = named_version(&name);
    response
}

async fn status(Path(code): Path<u16>) -> Response {
    let mut response = events(three());
    *response.status_mut() = StatusCode::from_u16(code).expect("a status");
    response
}

async fn content_type(Path(name): Path<String>) -> Response {
    let value = match name.as_str() {
        "charset" => "text/event-stream; charset=utf-8",
        "upper" => "TEXT/EVENT-STREAM",
        "longer" => "text/event-streams",
        _ => "application/octet-stream",
    };
    ([(CONTENT_TYPE, value)], three()).into_response()
}

async fn with_header(Path(name): Path<String>) -> Response {
    let (header, value): (HeaderName, &[u8]) = match name.as_str() {
        "length" => (CONTENT_LENGTH, b"11"),
        "shorter-length" => (CONTENT_LENGTH, b"5"),
        "longer-length" => (CONTENT_LENGTH, b"99"),
        "chunked" => (TRANSFER_ENCODING, b"chunked"),
        "gzip" => (TRANSFER_ENCODING, b"gzip"),
        "identity" => (TRANSFER_ENCODING, b"identity"),
        "close" => (CONNECTION, b"close"),
        "upper-close" => (CONNECTION, b"x-hop,  CLOSE"),
        "odd-close" => (CONNECTION, b"close, \xff"),
        "keep-alive" => (CONNECTION, b"keep-alive"),
        "upgrade" => (CONNECTION, b"upgrade"),
        other => panic!("no header for {other:?}"),
    };
    let value = HeaderValue::from_bytes(value).expect("a value");
    ([(header, value)], events(three())).into_response()
}

/// The body of the request, in a stream.
async fn echo(request: Request) -> Response {
    match request.into_body().collect().await {
        Ok(body) => {
            let piece = stream::iter([Ok::<_, Infallible>(body.to_bytes())]);
            events(Body::from_stream(piece))
        }
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// The body of the request is held for as long as the stream lives, and not read.
async fn unread(request: Request) -> Response {
    let pieces = stream::iter(["one", "two"]).map(move |piece| {
        let _ = &request;
        Ok::<_, Infallible>(piece)
    });
    events(Body::from_stream(pieces))
}

/// Another protocol, which sends five bytes back.
async fn upgrade(request: Request) -> Response {
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else {
            return;
        };
        let mut io = TokioIo::new(upgraded);
        let mut line = [0; 5];
        if io.read_exact(&mut line).await.is_ok() {
            let _ = io.write_all(&line).await;
        }
    });
    let headers = [("connection", "upgrade"), ("upgrade", "echo")];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}
