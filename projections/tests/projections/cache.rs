//! Answers kept in memory: never older than their reader's token, and never kept where they may be old.

use rollcall_event_store::Log;
use rollcall_projections::{
    profiles::{self, Queries, Shown},
    progress::Serving,
};
use tokio::time::{Duration, Instant, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    laws::PROFILES,
    parking::{cure, parked, poison, retry},
    runtime,
    support::{PATIENCE, Process, Test},
    users::{Known, TENANT, Users, seats},
};

fn queries(test: &Test, log: &Log) -> Queries {
    let options = profiles::Options { connections: 1, cache_bytes: 1 << 20 };
    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
    Queries::start(log.clone(), &test.provisioned.service, &options, &tasks, &shutdown)
}

fn serving(process: &Process) -> Serving {
    Serving { version: PROFILES, progress: process.progress.clone() }
}

/// What is in memory of a user and shows all of its events.
fn in_memory(queries: &Queries, serving: &Serving, user: &Known) -> Option<Shown> {
    queries.shown(serving, user.stream.hash(), user.position)
}

async fn read(queries: &Queries, serving: &Serving, user: &Known) -> Shown {
    queries.show(serving, TENANT, &user.stream.aggregate_id).await.unwrap().unwrap()
}

/// Reads a user until it is in memory.
async fn until_kept(queries: &Queries, serving: &Serving, user: &Known) -> Shown {
    let deadline = Instant::now() + PATIENCE;
    loop {
        read(queries, serving, user).await;
        if let Some(shown) = in_memory(queries, serving, user) {
            return shown;
        }
        assert!(Instant::now() < deadline, "it is never kept");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_user_is_in_memory_until_an_event_changes_it() {
    let test = Test::new().await;
    let other = test.another_log().await;
    let (mut users, process) = (Users::default(), runtime::profiles(&test, &test.log).await);
    let (queries, serving) = (queries(&test, &test.log), serving(&process));
    for round in 0..20 {
        // By this process and by another one in turns.
        let by = if round % 2 == 0 { &test.log } else { &other };
        users.wish(by, 0, seats(round)).await;
        assert_eq!(in_memory(&queries, &serving, &users.0[&0]).map(|shown| shown.version), None);
        test.log.refresh_heads().await.unwrap();
        test.wait(&process.progress).await;
        let shown = until_kept(&queries, &serving, &users.0[&0]).await;
        assert_eq!((shown.version, shown.position), (users.0[&0].version, users.0[&0].position));
        let text = format!("\"seats\":{round}");
        assert!(std::str::from_utf8(&shown.body).unwrap().contains(&text), "{shown:?}");
    }
    // Of another version of the read model nothing is known.
    let version = rollcall_projections::schema::Version { number: 2, ..PROFILES };
    assert!(in_memory(&queries, &Serving { version, ..serving.clone() }, &users.0[&0]).is_none());
    assert!(in_memory(&queries, &serving, &users.0[&0]).is_some());
}

#[tokio::test]
async fn what_does_not_show_all_that_the_log_has_is_not_kept() {
    let test = Test::new().await;
    let (mut users, process) = (Users::default(), runtime::profiles(&test, &test.log).await);
    let (queries, serving) = (queries(&test, &test.log), serving(&process));
    users.wish(&test.log, 0, seats(1)).await;
    test.wait(&process.progress).await;
    until_kept(&queries, &serving, &users.0[&0]).await;
    process.stop().await;
    let before = users.0[&0].clone();
    users.wish(&test.log, 0, seats(2)).await;
    let deadline = Instant::now() + PATIENCE;
    while in_memory(&queries, &serving, &before).is_some() {
        assert!(Instant::now() < deadline, "it is given for ever");
        sleep(Duration::from_millis(5)).await;
    }
    // Nobody projects: what is read is old, and stays so.
    for _ in 0..20 {
        assert_eq!(read(&queries, &serving, &before).await.version, before.version);
        assert!(in_memory(&queries, &serving, &before).is_none());
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_parked_user_is_not_kept_and_is_new_once_it_goes_on() {
    let test = Test::new().await;
    let mut users = Users::default();
    users.wish(&test.log, 0, seats(1)).await;
    users.wish(&test.log, 0, seats(2)).await;
    poison(&test, &users, 0, 3).await;
    // Another process, which has no memory of what was there before.
    let log = test.another_log().await;
    let process = runtime::profiles(&test, &log).await;
    let (queries, serving) = (queries(&test, &log), serving(&process));
    test.wait(&process.progress).await;
    assert_eq!(parked(&test).await.len(), 1);
    for _ in 0..20 {
        assert_eq!(read(&queries, &serving, &users.0[&0]).await.version, 2);
        assert!(in_memory(&queries, &serving, &users.0[&0]).is_none());
        sleep(Duration::from_millis(10)).await;
    }
    cure(&test).await;
    retry(&test).await;
    let shown = until_kept(&queries, &serving, &users.0[&0]).await;
    assert_eq!(shown.version, 3);
}
