//! What is hardly HTTP.

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{memory, still_serves};
use crate::rollcall::{PATIENCE, Rollcall};

/// Sends bytes as they are and half-closes; what came back until the server closed or went quiet.
async fn exchange(bytes: &[u8]) -> String {
    let address = Rollcall::shared().ready.http.strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let send = async {
        // The server may have seen enough before all is sent.
        if write.write_all(bytes).await.is_ok() {
            let _ = write.shutdown().await;
        }
    };
    let receive = async {
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        loop {
            match timeout(PATIENCE, read.read(&mut part)).await.expect("an answer or an end") {
                Ok(0) | Err(_) => return String::from_utf8_lossy(&answer).into_owned(),
                Ok(count) => answer.extend_from_slice(&part[..count]),
            }
        }
    };
    tokio::join!(send, receive).1
}

fn head(rest: &str) -> Vec<u8> {
    format!("POST /api/v1/users HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{rest}")
        .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_without_end_is_refused() {
    let before = memory();
    let mut bytes = head("Transfer-Encoding: chunked\r\n\r\n");
    let chunk = [&b"10000\r\n"[..], &[b' '; 0x10000], b"\r\n"].concat();
    for _ in 0..320 {
        bytes.extend_from_slice(&chunk);
    }
    let answer = exchange(&bytes).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer:.300}");
    assert!(
        answer.contains("application/problem+json") && answer.contains("body-too-large"),
        "{answer:.300}"
    );
    still_serves(&Rollcall::shared().new_tenant(), before).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_refused() {
    for rest in [
        "Content-Length: 100\r\n\r\n{\"email\": \"a@example.com\",",
        "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"em",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}",
    ] {
        let answer = exchange(&head(rest)).await;
        // Who breaks off may not be answered at all; an answer is a refusal.
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
}

#[tokio::test]
async fn what_is_not_http_does_no_harm() {
    let client = Rollcall::shared().new_tenant();
    let before = memory();
    let mut random = StdRng::seed_from_u64(9);
    for _ in 0..50 {
        let mut bytes = vec![0; random.random_range(1..2_000)];
        random.fill(&mut bytes[..]);
        exchange(&bytes).await;
    }
    for bytes in [
        "GET /api/v1/users HTTP/1.1\r\n\r\n".to_owned(),
        "GET /api/v1/users HTTP/1.1\r\nHost: a\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET http://example.com/api/v1/users HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(1 << 20)),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "a".repeat(1 << 20)),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: a\r\n".repeat(10_000)),
        "POST /api/v1/users HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n".to_owned(),
        "POST /api/v1/users HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n"
            .to_owned(),
    ] {
        let answer = exchange(bytes.as_bytes()).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{bytes:.80}: {answer:.300}");
    }
    still_serves(&client, before).await;
}

#[tokio::test]
async fn idle_connections_do_not_keep_others_out() {
    let client = Rollcall::shared().new_tenant();
    let address = Rollcall::shared().ready.http.strip_prefix("http://").unwrap();
    let mut idle = Vec::new();
    for index in 0..300 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        if index % 2 == 0 {
            stream.write_all(&head("Content-Length: 10\r\n\r\n{")).await.unwrap();
        }
        idle.push(stream);
    }
    let served = timeout(Duration::from_secs(10), client.create("a@example.com")).await.unwrap();
    served.expect(201);
}
