//! Reads with a token that wait for their projection: thousands of them cost the database no more than one.

use std::time::Duration;

use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use sqlx::{Connection, PgConnection};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    rollcall::{Client, Rollcall},
    site::Site,
};

const WAITING: usize = 5_000;

/// Transactions that the database has seen, of whomever.
async fn transactions(connection: &mut PgConnection) -> i64 {
    // What sessions count reaches the statistics when they are idle, at the latest a second later.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let sql = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}

/// A connection that has sent its request, and its answer's status.
async fn ask(address: String, request: String) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "no answer");
    }
    std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap()
}

fn signal(process: &Rollcall, signal: Signal) {
    kill(Pid::from_raw(process.pid().cast_signed()), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_reads_wait_at_the_cost_of_one_and_are_all_answered_when_the_projector_wakes_up() {
    // Connections are files, and a shell often allows a thousand.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let site = Site::migrated().await;
    let (commands, queries) = (site.start(&["command-api"], &[]), site.start(&["query-api"], &[]));
    let projector = site.start(&["projector"], &[]);
    let (write, read) = (Client::new(&commands.ready.http, "acme"), Client::new(&queries.ready.http, "acme"));
    let warm = write.create("warm@example.com").await.expect(201);
    read.get_after(&format!("/api/v1/users/{}", warm.id()), warm.token()).await.expect(200);
    let mut database = PgConnection::connect(site.owner_url()).await.unwrap();

    signal(&projector, Signal::SIGSTOP);
    let created = write.create("ada@example.com").await.expect(201);
    let before = transactions(&mut database).await;
    let address = queries.ready.http.trim_start_matches("http://").to_owned();
    let request = format!(
        "GET /api/v1/users/{} HTTP/1.1\r\nHost: localhost\r\nTenant: acme\r\nConsistency-Token: {}\r\n\r\n",
        created.id(),
        created.token()
    );
    let mut waiting = JoinSet::new();
    for _ in 0..WAITING {
        waiting.spawn(ask(address.clone(), request.clone()));
    }
    let mut behind = 0;
    while let Some(status) = waiting.join_next().await {
        assert_eq!(status.unwrap(), 503);
        behind += 1;
    }
    assert_eq!(behind, WAITING);
    let seen = transactions(&mut database).await - before;
    assert!(seen < 1_500, "{seen} transactions while {WAITING} requests waited for two seconds");

    for _ in 0..WAITING {
        waiting.spawn(ask(address.clone(), request.clone()));
    }
    signal(&projector, Signal::SIGCONT);
    while let Some(status) = waiting.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    site.stop().await;
}
