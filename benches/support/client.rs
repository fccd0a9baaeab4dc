//! A small HTTP/1.1 client with keep-alive: the load must cost the machine as little as it can.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// More than an answer about one user, so that one read takes it whole.
const BUFFER_BYTES: usize = 4096;
const CONTENT_LENGTH: &[u8] = b"content-length:";

/// One connection, one request at a time.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Borrowed from the connection's buffer.
pub struct Answer<'a> {
    pub status: u16,
    head: &'a [u8],
    pub body: &'a [u8],
}

impl Connection {
    /// To a base such as `http://127.0.0.1:8080`.
    pub async fn open(base: &str) -> Self {
        let stream =
            TcpStream::connect(base.trim_start_matches("http://")).await.expect("the service listens");
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream, buffer: Vec::with_capacity(BUFFER_BYTES) }
    }

    pub async fn request(&mut self, request: &[u8]) -> Answer<'_> {
        self.stream.write_all(request).await.expect("the service reads");
        self.buffer.clear();
        let (head, body) = loop {
            self.read().await;
            if let Some(found) = scan(&self.buffer) {
                break found;
            }
        };
        let end = head + body;
        self.buffer.reserve(end.saturating_sub(self.buffer.len()));
        while self.buffer.len() < end {
            self.read().await;
        }
        assert_eq!(self.buffer.len(), end, "an answer is followed by something");
        let (head, body) = self.buffer.split_at(head);
        Answer { status: status(head), head, body }
    }

    async fn read(&mut self) {
        let read = self.stream.read_buf(&mut self.buffer).await.expect("the service answers");
        assert!(read > 0, "the service closed a connection");
    }
}

impl<'a> Answer<'a> {
    /// # Panics
    /// Where the status is another one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(self.body));
        self
    }

    pub fn header(&self, name: &str) -> Option<&'a str> {
        let text = std::str::from_utf8(self.head).expect("a head is ASCII");
        text.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Bytes of the head and of the body; none where the head is not whole yet.
fn scan(bytes: &[u8]) -> Option<(usize, usize)> {
    let (mut from, mut length) = (0, 0);
    loop {
        let end = from + bytes[from..].iter().position(|byte| *byte == b'\n')?;
        let line = &bytes[from..end];
        if line.len() <= 1 {
            return Some((end + 1, length));
        }
        if let Some((name, value)) = line.split_at_checked(CONTENT_LENGTH.len())
            && name.eq_ignore_ascii_case(CONTENT_LENGTH)
        {
            length = decimal(value.trim_ascii());
        }
        from = end + 1;
    }
}

/// `HTTP/1.1 201 Created`
fn status(head: &[u8]) -> u16 {
    u16::try_from(decimal(&head[9..12])).expect("three digits")
}

fn decimal(digits: &[u8]) -> usize {
    digits.iter().fold(0, |number, digit| {
        assert!(digit.is_ascii_digit(), "not a number: {}", String::from_utf8_lossy(digits));
        number * 10 + usize::from(digit - b'0')
    })
}
