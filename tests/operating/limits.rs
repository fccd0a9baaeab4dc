//! What one process takes on, and what becomes of the rest.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::rollcall::{Client, Rollcall, Setup};

fn limited(variables: &[(&str, &str)]) -> Rollcall {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Rollcall::start(Setup { variables, ..Setup::default() })
}

fn connect(rollcall: &Rollcall) -> TcpStream {
    let stream = TcpStream::connect(rollcall.ready.http.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    stream
}

/// All that comes until the other side closes.
fn answer(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is a close, too.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn ask(rollcall: &Rollcall, request: &str) -> String {
    let mut stream = connect(rollcall);
    stream.write_all(request.as_bytes()).unwrap();
    answer(stream)
}

const HEAD: &str = "POST /api/v1/users HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";

#[tokio::test]
async fn connections_beyond_the_cap_are_told_so_and_others_go_on() {
    let rollcall = limited(&[("ROLLCALL_LIMITS_CONNECTIONS", "4")]);
    let held: Vec<TcpStream> = (0..4).map(|_| connect(&rollcall)).collect();
    // Until the server has taken them all in, the one after them may still find room.
    let deadline = Instant::now() + Duration::from_secs(10);
    let refused = loop {
        let answer = ask(&rollcall, "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        if answer.starts_with("HTTP/1.1 503") || Instant::now() > deadline {
            break answer;
        }
    };
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("Retry-After: 1"), "{refused}");
    assert!(refused.contains("\"code\":\"overloaded\""), "{refused}");
    let mut held = held.into_iter();
    let mut first = held.next().unwrap();
    first.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    assert!(answer(first).starts_with("HTTP/1.1 200"));
    // Its place is free again.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = ask(&rollcall, "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        if answer.starts_with("HTTP/1.1 200") {
            break;
        }
        assert!(Instant::now() < deadline, "{answer}");
    }
}

#[tokio::test]
async fn who_sends_a_head_or_a_body_too_slowly_is_let_go() {
    let rollcall = limited(&[("ROLLCALL_LIMITS_IDLE_TIMEOUT_S", "5")]);
    let mut silent = connect(&rollcall);
    let mut half_a_head = connect(&rollcall);
    half_a_head.write_all(b"GET /livez HTTP/1.1\r\nHost: loc").unwrap();
    let mut half_a_body = connect(&rollcall);
    half_a_body.write_all(format!("{HEAD}Content-Length: 100\r\n\r\n{{\"email\":").as_bytes()).unwrap();
    let begun = Instant::now();
    let mut byte = [0; 1];
    assert_eq!(silent.read(&mut byte).unwrap_or(0), 0);
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    answer(half_a_head);
    assert!(begun.elapsed() < Duration::from_secs(8), "half a head: {:?}", begun.elapsed());
    let late = answer(half_a_body);
    assert!(late.starts_with("HTTP/1.1 408") && late.contains("\"code\":\"request-timeout\""), "{late}");
}

#[tokio::test]
async fn heads_and_urls_have_bounds() {
    let rollcall = Rollcall::shared();
    let url = format!(
        "GET /api/v1/users?name={} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        "a".repeat(9_000)
    );
    let long = ask(rollcall, &url);
    assert!(long.starts_with("HTTP/1.1 414") && long.contains("\"code\":\"uri-too-long\""), "{long}");
    let head = format!("GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", "a".repeat(1_000_000));
    let mut stream = connect(rollcall);
    // The server may close before it has read all of it.
    let _ = stream.write_all(head.as_bytes());
    let long = answer(stream);
    assert!(long.is_empty() || long.starts_with("HTTP/1.1 431"), "{long}");
    Client::new(&rollcall.ready.http, "acme").get("/livez").await.expect(200);
}

#[tokio::test]
async fn requests_beyond_those_at_work_are_refused_at_once_and_health_still_answers() {
    let rollcall = limited(&[("ROLLCALL_LIMITS_REQUESTS", "2")]);
    // Two requests that wait for their bodies are at work.
    let head = format!("{HEAD}Content-Length: 100\r\n\r\n{{");
    let mut held: Vec<TcpStream> = (0..2).map(|_| connect(&rollcall)).collect();
    for stream in &mut held {
        stream.write_all(head.as_bytes()).unwrap();
    }
    let client = rollcall.client("acme");
    let begun = Instant::now();
    let refused = loop {
        let answer = client.get("/api/v1/users").await;
        if answer.status == 503 || begun.elapsed() > Duration::from_secs(8) {
            break answer;
        }
    };
    assert_eq!(refused.code(), "overloaded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    client.get("/livez").await.expect(200);
    client.get("/readyz").await.expect(200);
    drop(held);
    while client.get("/api/v1/users").await.status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}

#[tokio::test]
async fn commands_that_find_the_append_queue_full_are_refused_at_once_and_may_be_repeated() {
    let rollcall = limited(&[("ROLLCALL_LIMITS_APPEND_QUEUE", "1")]);
    let client = rollcall.client("acme");
    let creates: Vec<_> = (0..200)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut refused = 0;
                loop {
                    let answer = client.create(&format!("user-{n}@example.com")).await;
                    match answer.status {
                        201 => return refused,
                        503 => assert_eq!(answer.code(), "overloaded"),
                        other => panic!("{other}: {answer:?}"),
                    }
                    refused += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
        })
        .collect();
    let mut refused = 0;
    for create in creates {
        refused += create.await.unwrap();
    }
    assert!(refused > 0, "a queue of one was never full");
    let created = client.get("/api/v1/audit?page_size=1000&type=UserCreated").await;
    assert!(created.json()["items"].as_array().unwrap().len() <= 200);
}

#[tokio::test]
async fn bodies_in_memory_have_a_common_bound() {
    let rollcall = limited(&[("ROLLCALL_LIMITS_BYTES_IN_FLIGHT", "16777216")]);
    // Each announces 8 MB and holds almost all of it: two fill the room.
    let size = 8_000_000;
    let head = format!(
        "POST /api/v1/commands HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    );
    let mut held: Vec<TcpStream> = (0..2).map(|_| connect(&rollcall)).collect();
    for stream in &mut held {
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&vec![b' '; size - 1]).unwrap();
    }
    let client = rollcall.client("acme");
    let large = json!([{"type": "CreateUser", "data": {"given_name": " ".repeat(2_000_000)}}]);
    let begun = Instant::now();
    let refused = loop {
        let answer = client.post("/api/v1/commands", large.clone()).await;
        if answer.status == 503 || begun.elapsed() > Duration::from_secs(8) {
            break answer;
        }
    };
    assert_eq!(refused.code(), "overloaded");
    client.create("small@example.com").await.expect(201);
    drop(held);
    while client.post("/api/v1/commands", large.clone()).await.status != 200 {
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
