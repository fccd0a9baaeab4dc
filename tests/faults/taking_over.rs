//! Several projector processes share the work; one is killed, one freezes, and nobody waits for long.

use std::time::Duration;

use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    log::Log,
    processes, published,
    rollcall::{Client, Rollcall, Setup},
};

/// A whole service on servers of its own, and a process beside it that projects as well.
async fn two_projectors() -> (Rollcall, Rollcall, Rollcall) {
    tokio::task::spawn_blocking(|| {
        let up = Rollcall::start(Setup::default());
        let role = |name: &str| {
            let variables = vec![
                ("DATABASE_URL".to_owned(), up.ready.postgres.clone()),
                ("NATS_URL".to_owned(), up.ready.nats.clone()),
                (
                    "ROLLCALL_MASTER_KEY_FILE".to_owned(),
                    up.directory().join("data/master.key").display().to_string(),
                ),
                ("ROLLCALL_SHUTDOWN_NOTICE_S".to_owned(), "0".to_owned()),
            ];
            let directory = tempfile::tempdir_in(up.directory()).unwrap().keep();
            let role = vec![name.to_owned()];
            Rollcall::start(Setup { role, variables, directory: Some(directory), ..Setup::default() })
        };
        let (first, second) = (role("projector"), role("projector"));
        (up, first, second)
    })
    .await
    .unwrap()
}

fn pid(process: &Rollcall) -> Pid {
    Pid::from_raw(process.pid().cast_signed())
}

/// Creates users until all partitions have been written to, reads each back with its token, and says how long the slowest
/// took to become readable.
async fn slowest(client: &Client, name: &str) -> Duration {
    let mut slowest = Duration::ZERO;
    for number in 0..60 {
        let created = client.create(&format!("{name}-{number}@example.com")).await.expect(201);
        let path = format!("/api/v1/users/{}", created.id());
        let begun = Instant::now();
        loop {
            let read = client.get_after(&path, created.token()).await;
            if read.status == 200 {
                break;
            }
            assert_eq!(read.status, 503, "{}", read.text);
            assert!(begun.elapsed() < Duration::from_secs(30), "nobody projects: {}", read.text);
        }
        slowest = slowest.max(begun.elapsed());
    }
    slowest
}

async fn everything_is_published_and_read(up: &Rollcall, client: &Client) {
    let events = Log::open(&up.ready.postgres).await.assert_sound().await;
    published::assert_all(&up.ready.nats, &events).await;
    let created = client.create("last@example.com").await.expect(201);
    let path = format!("/api/v1/users/{}", created.id());
    let changed = client.patch(&path, json!({"given_name": "Grace"})).await.expect(200);
    assert_eq!(client.get_after(&path, changed.token()).await.expect(200).json()["given_name"], "Grace");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projector_that_is_killed_is_replaced_within_five_seconds_and_one_that_stops_at_once() {
    let (up, mut first, second) = two_projectors().await;
    let client = up.client("acme");
    slowest(&client, "before").await;
    processes::send(pid(&second), Signal::SIGKILL);
    let took = slowest(&client, "killed").await;
    assert!(took < Duration::from_secs(5), "taking over took {took:?}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let stopped = tokio::task::spawn_blocking(move || {
        let (status, _) = first.stop();
        assert!(status.success(), "{}", first.logged());
    });
    let took = slowest(&client, "stopped").await;
    stopped.await.unwrap();
    assert!(took < Duration::from_secs(2), "handing over took {took:?}");
    everything_is_published_and_read(&up, &client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_projector_that_freezes_is_replaced_within_fifteen_seconds_and_writes_nothing_when_it_wakes_up() {
    let (up, first, second) = two_projectors().await;
    let client = up.client("acme");
    slowest(&client, "before").await;
    for round in 0..2 {
        // Under load, so that it freezes in the middle of something.
        let load = tokio::spawn({
            let client = up.client("acme");
            async move {
                for number in 0..200 {
                    client.create(&format!("load-{round}-{number}@example.com")).await.expect(201);
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(150)).await;
        let frozen = if round == 0 { &first } else { &second };
        processes::send(pid(frozen), Signal::SIGSTOP);
        let took = slowest(&client, &format!("frozen-{round}")).await;
        load.await.unwrap();
        processes::send(pid(frozen), Signal::SIGCONT);
        assert!(took < Duration::from_secs(15), "taking over took {took:?}");
        slowest(&client, &format!("thawed-{round}")).await;
    }
    everything_is_published_and_read(&up, &client).await;
    for process in [&first, &second] {
        let said = process.logged();
        assert!(!said.contains("cannot be projected any further"), "{said}");
    }
}
