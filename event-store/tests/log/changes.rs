//! Marks of what changed: whoever keeps a copy of a stream by its mark never takes an old one for good.

use std::collections::BTreeMap;

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use rollcall_event_store::{
    Log,
    append::{Appended, Expected},
    tail::changes::{Changes, Mark},
};
use tokio::time::{Duration, Instant, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::support::{PATIENCE, Test, stream, wish};

fn follow(log: &Log) -> Changes {
    Changes::follow(log, &TaskTracker::new(), &CancellationToken::new())
}

/// The mark, as soon as enough is known of the log.
async fn mark(changes: &Changes, id: &str) -> Mark {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(mark) = changes.mark(stream(id).hash()) {
            return mark;
        }
        assert!(Instant::now() < deadline, "nothing is known of the log");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Returns when all up to there is in the marks.
async fn seen(changes: &Changes, appended: Appended) {
    let deadline = Instant::now() + PATIENCE;
    while changes.seen(appended.partition) < appended.position {
        assert!(Instant::now() < deadline, "the change is not seen");
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn the_tail_is_followed_also_while_the_threads_of_requests_have_no_time() {
    let test = Test::new().await;
    let changes = follow(&test.log);
    mark(&changes, "a").await;
    // The test's only thread.
    std::thread::sleep(Duration::from_millis(600));
    assert!(changes.mark(stream("a").hash()).is_some(), "what is known has grown old");
}

#[tokio::test]
async fn a_mark_stays_where_nothing_happens_and_rises_with_each_event() {
    let test = Test::new().await;
    let other = test.another_log().await;
    let changes = follow(&test.log);
    let first = mark(&changes, "a").await;
    assert_eq!(mark(&changes, "a").await, first);
    let created = wish(stream("a"), Expected::Version(0), 2).append(&test.log).await.unwrap();
    seen(&changes, created).await;
    let second = mark(&changes, "a").await;
    assert!(second != first && second.position() == created.position);
    // What another process appends is no less seen.
    let changed = wish(stream("a"), Expected::Version(2), 1).append(&other).await.unwrap();
    seen(&changes, changed).await;
    let third = mark(&changes, "a").await;
    assert_eq!(third.position(), changed.position);
    assert_eq!(mark(&changes, "a").await, third);
}

#[tokio::test]
async fn nothing_is_said_of_a_log_that_was_not_heard_of_for_long() {
    let test = Test::new().await;
    let changes = follow(&test.log);
    mark(&changes, "a").await;
    // Nobody looks at its heads from now on.
    test.log.close().await;
    let deadline = Instant::now() + PATIENCE;
    while changes.mark(stream("a").hash()).is_some() {
        assert!(Instant::now() < deadline, "marks are given for ever");
        sleep(Duration::from_millis(5)).await;
    }
    sleep(Duration::from_millis(200)).await;
    assert_eq!(changes.mark(stream("a").hash()), None);
}

#[tokio::test]
async fn who_is_far_behind_takes_everything_for_changed() {
    let test = Test::new().await;
    let changes = follow(&test.log);
    let appended = wish(stream("a"), Expected::Version(0), 1).append(&test.log).await.unwrap();
    seen(&changes, appended).await;
    let before = mark(&changes, "a").await;
    // More than anybody looks through, in the partition of the stream.
    let partition = appended.partition;
    test.execute(&format!(
        "INSERT INTO log.events (position, sequence, recorded_at, event_id, partition, tenant_id, aggregate_type, aggregate_id,
                                 event_type, event_version, payload, metadata)
         SELECT {position} + n, 1, e.recorded_at + n * interval '1 microsecond', gen_random_uuid(), {partition}, 'acme', 'user',
                'other-' || n, 'Happened', '1', '{{}}', '{{}}'
         FROM log.events e, generate_series(1, 70000) AS n WHERE e.partition = {partition} AND e.position = {position}",
        position = appended.position,
    ))
    .await;
    seen(&changes, Appended { position: appended.position + 70_000, ..appended }).await;
    assert!(mark(&changes, "a").await.position() > before.position());
}

/// Copies by mark are always those of the newest event that was seen.
#[test]
fn a_copy_whose_mark_holds_is_of_the_newest_event() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { cases: 8, failure_persistence: None, max_shrink_iters: 20, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner
        .run(&vec((0..6_u8, any::<bool>(), any::<bool>()), 1..60), |deeds| {
            runtime.block_on(async {
                let test = Test::new().await;
                let logs = [test.log.clone(), test.another_log().await];
                let changes = follow(&test.log);
                let mut versions: BTreeMap<u8, u64> = BTreeMap::new();
                // By stream: the mark before the version was looked at, and the version.
                let mut copies: BTreeMap<u8, (Mark, u64)> = BTreeMap::new();
                for (number, by_other, looks) in deeds {
                    let id = number.to_string();
                    if looks {
                        let mark = mark(&changes, &id).await;
                        let version = versions.get(&number).copied().unwrap_or_default();
                        match copies.get(&number) {
                            Some((known, copy)) if *known == mark => assert_eq!(*copy, version),
                            _ => drop(copies.insert(number, (mark, version))),
                        }
                    } else {
                        let version = versions.entry(number).or_default();
                        let wish = wish(stream(&id), Expected::Version(*version), 1);
                        let appended = wish.append(&logs[usize::from(by_other)]).await.unwrap();
                        *version += 1;
                        // As who has a token does.
                        seen(&changes, appended).await;
                    }
                }
                logs[1].close().await;
                test.log.close().await;
            });
            Ok(())
        })
        .unwrap();
}
