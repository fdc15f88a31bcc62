//! Tests of the server's limits, with plain sockets.
//!
//! Absent: routes of the operator.

use std::net::SocketAddr;
use std::time::Instant;

use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::*;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", get(|| std::future::ready("ok\n")));
    tokio::spawn(serve(listener, None, router));
    address
}

/// Everything that the server sends until it closes the connection.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let read = timeout(MOST_AGE, stream.read_to_end(&mut text)).await;
    // A connection that is closed with data unread is reset.
    _ = read.expect("the server closes the connection");
    String::from_utf8_lossy(&text).into_owned()
}

async fn response_to(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    let mut text = [0; 256];
    let read = stream.read(&mut text).await.unwrap();
    String::from_utf8_lossy(&text[..read]).into_owned()
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_and_closed() {
    let mut stream = TcpStream::connect(start().await).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(400_000));
    _ = stream.write_all(head.as_bytes()).await;
    let response = until_closed(&mut stream).await;
    let is_refused = response.is_empty() || response.starts_with("HTTP/1.1 431");
    assert!(is_refused, "{response}");
}

#[tokio::test]
async fn an_unfinished_head_and_an_idle_connection_are_closed_in_time() {
    let address = start().await;
    let started = Instant::now();
    let mut unfinished = TcpStream::connect(address).await.unwrap();
    unfinished.write_all(b"GET / HTTP/1.1\r\nX:").await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(REQUEST).await.unwrap();
    let closed = tokio::join!(until_closed(&mut unfinished), until_closed(&mut idle));
    assert!(closed.1.starts_with("HTTP/1.1 200"), "{closed:?}");
    assert!(started.elapsed() < HEAD_TIMEOUT * 2);
}

#[tokio::test]
async fn a_connection_ends_after_its_last_request() {
    let mut stream = TcpStream::connect(start().await).await.unwrap();
    let requests = REQUEST.repeat(MOST_REQUESTS + 5);
    stream.write_all(&requests).await.unwrap();
    let responses = until_closed(&mut stream).await;
    assert_eq!(responses.matches("HTTP/1.1 200").count(), MOST_REQUESTS);
    assert_eq!(responses.matches("connection: close").count(), 1);
}

#[tokio::test]
async fn a_peer_with_too_many_connections_closes_its_own_and_delays_nobody() {
    let address = start().await;
    let other = TcpSocket::new_v4().unwrap();
    other.bind("127.0.0.9:0".parse().unwrap()).unwrap();
    let mut other = other.connect(address).await.unwrap();
    let mut hostile = Vec::new();
    for _ in 0..2 * MOST_CONNECTIONS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        _ = stream.write_all(b"GET / HTTP/1.1\r\nX:").await;
        hostile.push(stream);
    }
    let started = Instant::now();
    assert!(response_to(address).await.starts_with("HTTP/1.1 200"));
    assert!(started.elapsed() < Duration::from_secs(1));
    until_closed(&mut hostile[0]).await;
    assert!(started.elapsed() < HEAD_TIMEOUT, "the oldest made room");
    other.write_all(REQUEST).await.unwrap();
    let response = until_closed(&mut other).await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
}
