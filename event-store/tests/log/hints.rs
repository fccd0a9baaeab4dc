//! Words between processes.

use std::time::{Duration, Instant};

use rollcall_event_store::{Log, append::Expected, hints::Topic};
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::{sync::watch, time::timeout};

use crate::support::{PATIENCE, Test, stream, wish};

/// Appends until it is heard.
async fn heard(log: &Log, heard: &mut watch::Receiver<()>, name: &str) {
    let hear = async {
        for n in 0.. {
            wish(stream(&format!("{name} {n}")), Expected::Fresh, 1).append(log).await.unwrap();
            if timeout(Duration::from_millis(100), heard.changed()).await.is_ok() {
                return;
            }
        }
    };
    timeout(PATIENCE, hear).await.expect("it is heard of");
}

#[tokio::test]
async fn other_processes_hear_of_an_append_and_the_one_that_appended_does_not() {
    let test = Test::new().await;
    let other = test.another_log().await;
    let own = test.log.hints().heard(Topic::Heads);
    let checkpoints = other.hints().heard(Topic::Checkpoints);
    heard(&test.log, &mut other.hints().heard(Topic::Heads), "one").await;
    assert!(!own.has_changed().unwrap(), "it heard itself");
    assert!(!checkpoints.has_changed().unwrap(), "of checkpoints there was no news");
    heard(&other, &mut test.log.hints().heard(Topic::Heads), "two").await;
}

#[tokio::test]
async fn who_listens_hears_again_after_a_restart_of_the_connections() {
    let test = Test::new().await;
    let other = test.another_log().await;
    let mut heads = other.hints().heard(Topic::Heads);
    heard(&test.log, &mut heads, "before").await;
    test.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name LIKE 'rollcall-listen %'",
    )
    .await;
    heads.mark_unchanged();
    heard(&test.log, &mut heads, "after").await;
}

#[tokio::test]
async fn hints_are_few_however_much_is_appended_and_none_where_nobody_listens() {
    let test = Test::new().await;
    // A session of no process's name: it is no audience.
    let pool = PgPoolOptions::new().connect_with(test.provisioned.service.clone()).await.unwrap();
    let mut overheard = PgListener::connect_with(&pool).await.unwrap();
    overheard.listen("rollcall").await.unwrap();
    for n in 0..20 {
        wish(stream(&format!("alone {n}")), Expected::Fresh, 1).append(&test.log).await.unwrap();
    }
    assert!(timeout(Duration::from_millis(50), overheard.recv()).await.is_err(), "nobody listens");

    let other = test.another_log().await;
    heard(&test.log, &mut other.hints().heard(Topic::Heads), "first").await;
    let begun = Instant::now();
    for n in 0..300 {
        wish(stream(&format!("many {n}")), Expected::Fresh, 1).append(&test.log).await.unwrap();
    }
    let bound = begun.elapsed().as_millis() / 5 + 3;
    let mut hints = 0_u128;
    while timeout(Duration::from_millis(100), overheard.recv()).await.is_ok() {
        hints += 1;
    }
    assert!((1..=bound).contains(&hints), "{hints} hints, at most {bound} were to be sent");
}
