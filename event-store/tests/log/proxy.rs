//! A proxy that takes a server's answers away: it forwards what a writer sends, waits for the answer, and cuts the
//! connection instead of handing it on.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use sqlx::postgres::PgConnectOptions;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What stands in a writer's first message.
const WRITER: &[u8] = b"rollcall-append";

/// Cheap to clone; ends with the test's runtime.
#[derive(Clone)]
pub struct Proxy {
    pub port: u16,
    cuts: Arc<AtomicU64>,
}

impl Proxy {
    pub async fn start(server: &PgConnectOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self { port: listener.local_addr().unwrap().port(), cuts: Arc::default() };
        let (host, port) = (server.get_host().to_owned(), server.get_port());
        let accepting = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect((host.as_str(), port)).await.unwrap();
                tokio::spawn(accepting.clone().forward(client, server));
            }
        });
        proxy
    }

    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }

    /// Ends with either side; both connections are dropped then.
    async fn forward(self, mut client: TcpStream, mut server: TcpStream) {
        let (mut wish, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let mut of_writer = false;
        let mut answers = 0;
        loop {
            tokio::select! {
                read = client.read(&mut wish) => {
                    let Ok(length @ 1..) = read else { return };
                    of_writer |= wish[..length].windows(WRITER.len()).any(|part| part == WRITER);
                    if server.write_all(&wish[..length]).await.is_err() {
                        return;
                    }
                }
                read = server.read(&mut answer) => {
                    let Ok(length @ 1..) = read else { return };
                    answers += 1;
                    // Later in every connection than in the one before, and then earlier again: a cut meets each phase,
                    // and none is met again and again.
                    let last = 7 + self.cuts() * 31 % 37;
                    if of_writer && answers > last {
                        self.cuts.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                    if client.write_all(&answer[..length]).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}
