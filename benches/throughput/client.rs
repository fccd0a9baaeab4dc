//! A small HTTP/1.1 client with keep-alive: the load must cost the machine as little as it can.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// One connection, one request at a time.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What the load looks at.
pub struct Answer {
    pub status: u16,
    pub token: Option<String>,
    pub location: Option<String>,
}

impl Connection {
    /// To a base such as `http://127.0.0.1:8080`.
    pub async fn open(base: &str) -> Self {
        let stream =
            TcpStream::connect(base.trim_start_matches("http://")).await.expect("the service listens");
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream, buffer: Vec::with_capacity(4096) }
    }

    pub async fn request(&mut self, request: &[u8]) -> Answer {
        self.stream.write_all(request).await.expect("the service reads");
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await.expect("the service answers");
            assert!(read > 0, "the service closed a connection");
            let Some(head) = find(&self.buffer, b"\r\n\r\n") else { continue };
            let text = std::str::from_utf8(&self.buffer[..head]).expect("a head is ASCII");
            let header = |name: &str| {
                text.lines().find_map(|line| {
                    let (found, value) = line.split_once(':')?;
                    found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
                })
            };
            let length: usize =
                header("content-length").and_then(|text| text.parse().ok()).unwrap_or_default();
            if self.buffer.len() < head + 4 + length {
                continue;
            }
            let status = text[9..12].parse().expect("a status line");
            return Answer { status, token: header("consistency-token"), location: header("location") };
        }
    }
}

fn find(bytes: &[u8], sought: &[u8]) -> Option<usize> {
    bytes.windows(sought.len()).position(|window| window == sought)
}

/// The request that creates a user of its own: the body of the documentation's example.
pub fn create(number: u64) -> Vec<u8> {
    create_as("", number)
}

/// The same with a header line that says who calls.
pub fn create_as(who: &str, number: u64) -> Vec<u8> {
    let body = format!(
        "{{\"email\":\"user.{number}@example.com\",\"given_name\":\"Ada\",\"family_name\":\"Lovelace\",\
         \"phone\":\"+4930123456\",\"locale\":\"en-GB\",\"time_zone\":\"Europe/London\",\"kind\":\"customer\",\
         \"traits\":{{\"department\":\"R&D\",\"seats\":3}},\
         \"associations\":[{{\"kind\":\"membership\",\"key\":\"gold\"}}],\
         \"preferences\":{{\"email\":{{\"newsletter\":true}}}}}}"
    );
    // Every second one with a key, as careful clients send it.
    let key =
        if number.is_multiple_of(2) { format!("Idempotency-Key: bench-{number}\r\n") } else { String::new() };
    format!(
        "POST /api/v1/users HTTP/1.1\r\nHost: localhost\r\n{who}Content-Type: application/json\r\n{key}Content-Length: \
         {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

pub fn get(path: &str, token: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConsistency-Token: {token}\r\n\r\n").into_bytes()
}

/// A read of a user without a token, with a header line that says who calls.
pub fn get_as(who: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{who}\r\n").into_bytes()
}
