//! A publisher that freezes in the middle of a batch, and another one that goes on meanwhile.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::{
    nats::{Publishing, Server, until_published, until_there_are},
    support::{PARTITIONS, Test},
    users::{Users, seats},
};

/// What a message of ours begins with on the wire.
const MESSAGE: &[u8] = b"HPUB rollcall.";

/// A way to the server that lets a number of messages through and holds back all that comes after them.
struct Gate {
    url: String,
    let_through: watch::Sender<usize>,
}

impl Gate {
    async fn start(server: &Server, messages: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (credentials, place) = server.nats.url().rsplit_once('@').unwrap();
        let url = format!("{credentials}@{}", listener.local_addr().unwrap());
        let place = place.to_owned();
        let (let_through, limit) = watch::channel(messages);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&place).await.unwrap();
                tokio::spawn(forward(client, server, limit.clone()));
            }
        });
        Self { url, let_through }
    }

    fn open(&self) {
        self.let_through.send_replace(usize::MAX);
    }
}

async fn forward(mut client: TcpStream, mut server: TcpStream, mut limit: watch::Receiver<usize>) {
    let (mut wish, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let (mut held, mut passed) = (Vec::new(), 0);
    loop {
        tokio::select! {
            read = client.read(&mut wish) => {
                let Ok(length @ 1..) = read else { return };
                held.extend_from_slice(&wish[..length]);
            }
            read = server.read(&mut answer) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&answer[..length]).await.is_err() {
                    return;
                }
                continue;
            }
            changed = limit.changed() => if changed.is_err() { return },
        }
        // A message may come in pieces; its end says that nothing of the next one's beginning is missing.
        if !held.ends_with(b"\r\n") {
            continue;
        }
        let begins = |place: &usize| held[*place..].starts_with(MESSAGE);
        let beginnings: Vec<usize> = (0..held.len()).filter(begins).collect();
        let may_pass = *limit.borrow() - passed;
        let end = beginnings.get(may_pass).copied().unwrap_or(held.len());
        passed += beginnings.len().min(may_pass);
        if server.write_all(&held[..end]).await.is_err() {
            return;
        }
        held.drain(..end);
    }
}

/// A user of each of two partitions, with three events each.
async fn two_users(test: &Test, users: &mut Users) -> (u8, u8) {
    let partition_of = |user: u8| {
        let id = format!("user-{user}");
        rollcall_event_store::StreamId::new(crate::users::TENANT, "user", id).partition(PARTITIONS)
    };
    let of = |partition| (0..u8::MAX).find(|&user| partition_of(user) == partition).unwrap();
    let (first, second) = (of(0), of(1));
    for user in [first, second] {
        users.wish(&test.log, user, seats(1)).await;
        users.wish(&test.log, user, seats(2)).await;
    }
    (first, second)
}

#[tokio::test]
async fn a_publisher_that_was_frozen_in_the_middle_of_a_batch_overtakes_nothing() {
    let (test, server) = (Test::new().await, Server::start().await);
    let mut users = Users::default();
    let (first, _) = two_users(&test, &mut users).await;

    // Six messages, of which one arrives.
    let frozen_gate = Gate::start(&server, 1).await;
    let mut frozen = Publishing::through(Server::client_at(&frozen_gate.url).await, &test, &test.log).await;
    until_published(&server, 1).await;
    frozen.process.forget_leases();
    // Meanwhile another publisher, which knows of one event more in the first partition, gets to the end of that one.
    users.wish(&test.log, first, seats(3)).await;
    let other_log = test.another_log().await;
    let other_gate = Gate::start(&server, 3).await;
    let other = Publishing::through(Server::client_at(&other_gate.url).await, &test, &other_log).await;
    until_published(&server, 4).await;
    // What is left of the first batch expects lengths of the stream that it has by now, or has next.
    frozen_gate.open();
    frozen.refused().await;
    other_gate.open();
    until_there_are(&test, &server).await;
    test.wait(frozen.progress()).await;
    server.assert_published(&test).await;
    frozen.stop().await;
    other.stop().await;
    server.stop().await;
}
