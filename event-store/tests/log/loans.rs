//! Connections that die without a word: who borrows from the pool does not meet them, and the pool does not wait for them.

use std::{process::Command, time::Duration};

use rollcall_event_store::{Borrowed, Options};
use tokio::time::{Instant, sleep};

use crate::support::Test;

/// A backend that has stopped to answer, as if the way to it were cut; it goes on when this is dropped.
struct Silent(i32);

impl Silent {
    fn make(pid: i32) -> Self {
        signal("-STOP", pid);
        Self(pid)
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        signal("-CONT", self.0);
    }
}

fn signal(signal: &str, pid: i32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

async fn one_reader() -> Test {
    Test::with(Options { pool_connections_max: 1, ..Options::default() }).await
}

async fn lent(test: &Test) -> (Borrowed, i32) {
    let mut connection = Borrowed::from(test.log.readers()).await.unwrap();
    let pid = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *connection).await.unwrap();
    (connection, pid)
}

/// The pool's only place is free within the time that a test may take, and then some.
async fn assert_another_is_lent(test: &Test, silent: &Silent) {
    let begun = Instant::now();
    let (connection, pid) = lent(test).await;
    assert_ne!(pid, silent.0);
    assert!(begun.elapsed() < Duration::from_secs(3), "it took {:?}", begun.elapsed());
    connection.done();
}

#[tokio::test]
async fn a_connection_that_died_while_nobody_had_it_is_not_lent() {
    let test = one_reader().await;
    let (connection, pid) = lent(&test).await;
    connection.done();
    sleep(Duration::from_millis(500)).await;
    let silent = Silent::make(pid);
    assert_another_is_lent(&test, &silent).await;
}

#[tokio::test]
async fn a_connection_that_dies_when_it_is_given_back_is_not_waited_for() {
    let test = one_reader().await;
    let (connection, pid) = lent(&test).await;
    let silent = Silent::make(pid);
    connection.done();
    assert_another_is_lent(&test, &silent).await;
}

#[tokio::test]
async fn a_connection_that_is_in_use_all_the_time_stays() {
    let test = one_reader().await;
    let (connection, first) = lent(&test).await;
    connection.done();
    for _ in 0..50 {
        let (connection, pid) = lent(&test).await;
        assert_eq!(pid, first);
        connection.done();
    }
}
