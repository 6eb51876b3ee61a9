//! tidings-nats leaves the choice of a crypto provider to the application, and says so where there is none.

use std::error::Error;
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::rustls::ClientConfig;
use async_nats::rustls::crypto::CryptoProvider;
use tidings_nats::{ConnectError, Nats, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

#[test]
fn no_provider_comes_in_with_the_crate() {
    // With one among rustls's features this would be that one; with two, a panic in every application.
    let builder = std::panic::catch_unwind(ClientConfig::builder);
    assert!(builder.is_err(), "{:?}", CryptoProvider::get_default());
}

#[tokio::test]
async fn tls_without_a_provider_is_an_error_that_says_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a client");
        let info = r#"INFO {"server_id":"s","version":"2.10.0","max_payload":1048576,"proto":1,"headers":true,"tls_required":true}"#;
        socket
            .write_all(format!("{info}\r\n").as_bytes())
            .await
            .expect("it listens");
        // Until it has gone.
        let _ = socket.read_to_end(&mut Vec::new()).await;
    });
    let url = format!("nats://{addr}");
    let connecting = Nats::connect(&url, ConnectOptions::new(), Settings::new("test"));
    let result = timeout(Duration::from_secs(30), connecting).await;
    let error = result
        .expect("it does not wait")
        .err()
        .expect("no connection");
    assert!(matches!(error, ConnectError::NoCryptoProvider), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("`ring` or `aws-lc-rs`"), "{text}");
    assert!(error.source().is_none());
    server.await.expect("the client has gone");
}
