//! Laws of a projection: however the events are cut into batches, and however often they are replayed, the rows are
//! those of a pure fold.

use std::collections::BTreeMap;

use proptest::{
    collection::vec,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use rollcall_event_store::{Log, tail::Span};
use rollcall_projections::{
    Profile,
    audit::Audit,
    checkpoint::{Moves, overtaken},
    profiles::{self, Profiles},
    projector::{self, Projection},
    schema::Version,
};
use sqlx::Connection;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    leases::until,
    support::Test,
    users::{TENANT, Users, seats, wishes},
};

/// The version that a new database has.
pub const PROFILES: Version = Version { projection: "profiles", number: 1 };

/// A row: by id; the opened profile and where it stands, and what stands plainly beside it.
type Rows = BTreeMap<String, (Profile, u64, u64, (String, String, Vec<i32>))>;

pub async fn rows(test: &Test, users: &Users) -> Rows {
    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let options = profiles::Options { connections: 1, cache_bytes: 1 << 20 };
    let queries =
        profiles::Queries::start(test.log.clone(), &test.provisioned.service, &options, &tasks, &shutdown);
    let ids: Vec<String> = users.0.values().map(|user| user.stream.aggregate_id.to_string()).collect();
    let found = queries.get_many(PROFILES, TENANT, &ids).await.unwrap();
    shutdown.cancel();
    let mut rows = Rows::new();
    for row in found {
        let plain = sqlx::query_as(
            "SELECT status, traits::text, name_digests FROM profiles_1.users WHERE tenant_id = $1 AND user_id = $2",
        )
        .bind(TENANT)
        .bind(&row.id)
        .fetch_one(&mut test.superuser().await)
        .await
        .unwrap();
        rows.insert(row.id, (row.profile, row.version, row.position, plain));
    }
    rows
}

/// What is to be there: the fold that the test made on the way, without anybody's help.
pub fn assert_folded(rows: &Rows, users: &Users) {
    assert_eq!(rows.len(), users.0.len());
    for user in users.0.values() {
        let (profile, version, position, (status, traits, _)) = &rows[&*user.stream.aggregate_id];
        assert_eq!(profile, &user.profile);
        assert_eq!((*version, *position), (user.version, user.position));
        assert_eq!(status, user.profile.user.status().unwrap().as_str());
        let plain: serde_json::Value = serde_json::from_str(traits).unwrap();
        assert_eq!(plain, serde_json::from_str::<serde_json::Value>(&user.profile.traits_json()).unwrap());
    }
}

async fn apply(test: &Test, spans: &[Span]) -> Result<(), projector::Error> {
    apply_from(&test.log, test, spans).await
}

async fn apply_from(log: &Log, test: &Test, spans: &[Span]) -> Result<(), projector::Error> {
    let mut connection = test.superuser().await;
    Profiles::of(log, PROFILES).apply(&mut connection, Moves::none(PROFILES), spans).await
}

/// Cuts the log into batches: each takes from some partitions as many events as it likes.
fn cut(test: &Test, takes: &[(u16, u64)]) -> Vec<Vec<Span>> {
    let mut open: BTreeMap<u16, Span> =
        test.everything().into_iter().map(|span| (span.partition, span)).collect();
    let mut batches = Vec::new();
    let mut takes = takes.iter().cycle();
    while !open.is_empty() {
        let mut batch = Vec::new();
        let &(chosen, events) = takes.next().unwrap();
        for (&partition, span) in &mut open {
            // Bits of the number say which partitions take part; somebody must.
            if chosen >> partition & 1 == 1 || chosen & 0xf == 0 {
                let until = span.until.min(span.after + events);
                batch.push(Span { until, ..*span });
                span.after = until;
            }
        }
        open.retain(|_, span| span.events() > 0);
        batches.extend((!batch.is_empty()).then_some(batch));
        // A partition that is never chosen is done at last.
        if batches.len() > 2_000 {
            batches.push(open.values().copied().collect());
            open.clear();
        }
    }
    batches
}

#[test]
fn any_batching_gives_the_rows_of_a_pure_fold() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let life = vec((0..6_u8, wishes()), 1..60);
    let cuts = vec((1..16_u16, 1..6_u64), 4..12);
    let config = Config { cases: 12, failure_persistence: None, max_shrink_iters: 30, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    runner
        .run(&(life, cuts), |(life, cuts)| {
            runtime.block_on(async {
                let test = Test::new().await;
                let mut users = Users::default();
                for (user, wish) in life {
                    users.wish(&test.log, user, wish).await;
                }
                let all = test.everything();
                let one_by_one = all.iter().flat_map(|span| {
                    (span.after..span.until).map(|after| vec![Span { after, until: after + 1, ..*span }])
                });
                let mut seen: Option<Rows> = None;
                let other = test.restarted().await;
                for (log, batches) in [
                    (&test.log, one_by_one.collect()),
                    (&test.log, cut(&test, &cuts)),
                    // Nothing from memory, neither events nor keys.
                    (&other, cut(&test, &cuts)),
                    (&other, vec![all.clone()]),
                ] {
                    test.execute("TRUNCATE profiles_1.users").await;
                    for batch in batches {
                        apply_from(log, &test, &batch).await.unwrap();
                    }
                    let rows = rows(&test, &users).await;
                    assert_folded(&rows, &users);
                    if let Some(seen) = &seen {
                        assert_eq!(&rows, seen, "digests of names and traits, too");
                    }
                    seen = Some(rows);
                }
                test.log.close().await;
                other.close().await;
            });
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn a_row_that_does_not_reach_the_next_event_is_an_error() {
    let test = Test::new().await;
    let mut users = Users::default();
    for n in 0..4 {
        users.wish(&test.log, 1, seats(n)).await;
    }
    let span = test.everything()[0];
    let part = |after, until| [Span { after, until, ..span }];
    let gap = async |after, until| match apply(&test, &part(after, until)).await {
        Err(projector::Error::Gap { found, next, .. }) => Some((found, next)),
        Err(projector::Error::NoRow { next, .. }) => Some((0, next)),
        Err(other) => panic!("{other:?}"),
        Ok(()) => None,
    };
    assert_eq!(gap(1, 3).await, Some((0, 2)), "there is no row");
    assert_eq!(gap(0, 2).await, None);
    assert_eq!(gap(3, 4).await, Some((2, 4)), "an event was left out");
    assert_eq!(gap(1, 4).await, Some((2, 2)), "an event was applied before");
    assert_eq!(gap(2, 5).await, None);
    assert_folded(&rows(&test, &users).await, &users);
}

#[tokio::test]
async fn an_erased_user_has_no_row() {
    let test = Test::new().await;
    let mut users = Users::default();
    users.wish(&test.log, 1, seats(1)).await;
    users.wish(&test.log, 2, seats(1)).await;
    apply(&test, &test.everything()).await.unwrap();
    test.execute("INSERT INTO vault.tombstones VALUES ('user-1', 'acme', 'user', now())").await;
    let before = test.everything();
    users.wish(&test.log, 1, seats(2)).await;
    let news: Vec<Span> = test
        .everything()
        .into_iter()
        .map(|span| {
            let read = before.iter().find(|read| read.partition == span.partition);
            Span { after: read.map_or(0, |read| read.until), ..span }
        })
        .filter(|span| span.events() > 0)
        .collect();
    // A process that has no key of hers in its memory.
    apply_from(&test.restarted().await, &test, &news).await.unwrap();
    assert_eq!(rows(&test, &users).await.into_keys().collect::<Vec<_>>(), ["user-2"]);
}

#[tokio::test]
async fn a_batch_under_an_old_lease_leaves_nothing() {
    const AUDIT: Version = Version { projection: "audit", number: 1 };
    let test = Test::new().await;
    let mut users = Users::default();
    users.wish(&test.log, 1, seats(1)).await;
    let spans = test.everything();
    let leased = |epoch| spans.iter().map(|span| (*span, epoch)).collect::<Vec<_>>();
    let mut connection = test.superuser().await;
    let profiles = Profiles::of(&test.log, PROFILES);
    test.execute("UPDATE projections.checkpoints SET epoch = 7").await;

    let old = profiles.apply(&mut connection, Moves::over(PROFILES, &leased(6)), &spans).await;
    assert!(matches!(&old, Err(projector::Error::Database(error)) if overtaken(error)), "{old:?}");
    assert!(rows(&test, &users).await.is_empty());
    profiles.apply(&mut connection, Moves::over(PROFILES, &leased(7)), &spans).await.unwrap();
    assert_folded(&rows(&test, &users).await, &users);
    let again = profiles.apply(&mut connection, Moves::over(PROFILES, &leased(7)), &spans).await;
    assert!(again.is_err(), "the checkpoint is not where the spans begin");

    let audit = Audit::of(&test.log, AUDIT);
    let old = audit.apply(&mut connection, Moves::over(AUDIT, &leased(6)), &spans).await;
    assert!(matches!(&old, Err(projector::Error::Database(error)) if overtaken(error)), "{old:?}");
    assert_eq!(test.number("SELECT count(*) FROM audit_1.entries").await, 0);
    audit.apply(&mut connection, Moves::over(AUDIT, &leased(7)), &spans).await.unwrap();
    let events: u64 = spans.iter().map(Span::events).sum();
    assert_eq!(test.number("SELECT count(*) FROM audit_1.entries").await.cast_unsigned(), events);
}

#[tokio::test]
async fn a_row_that_another_session_changes_meanwhile_is_not_written_over() {
    let test = Test::new().await;
    let mut users = Users::default();
    users.wish(&test.log, 1, seats(1)).await;
    let first = test.everything()[0];
    apply(&test, &[first]).await.unwrap();
    users.wish(&test.log, 1, seats(2)).await;
    let news = Span { after: first.until, until: first.until + 1, ..first };

    let mut repairing = test.superuser().await;
    let mut repair = repairing.begin().await.unwrap();
    sqlx::query("UPDATE profiles_1.users SET status = 'repaired'").execute(&mut *repair).await.unwrap();
    let waits = apply(&test, std::slice::from_ref(&news));
    let repaired = async {
        // Until the batch has read the row, and waits to write it.
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE '%.apply(%'";
        until(&test, waiting, 1).await;
        repair.commit().await.unwrap();
    };
    let (refused, ()) = tokio::join!(waits, repaired);
    let Err(projector::Error::Database(error)) = &refused else { panic!("{refused:?}") };
    assert_eq!(error.as_database_error().and_then(|error| error.code()).as_deref(), Some("RC002"));
    assert_eq!(test.number("SELECT count(*) FROM profiles_1.users WHERE status = 'repaired'").await, 1);

    apply(&test, &[news]).await.unwrap();
    assert_folded(&rows(&test, &users).await, &users);
}

#[tokio::test]
async fn many_users_come_in_the_order_asked_whichever_part_reads_them() {
    let test = Test::new().await;
    let mut users = Users::default();
    for user in 0..5 {
        users.wish(&test.log, user, seats(1)).await;
    }
    apply(&test, &test.everything()).await.unwrap();
    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let options = profiles::Options { connections: 1, cache_bytes: 1 << 20 };
    let queries =
        profiles::Queries::start(test.log.clone(), &test.provisioned.service, &options, &tasks, &shutdown);
    // Among many that are not there, at both ends and around the middle.
    let mut ids: Vec<String> = (0..1_000).map(|n| format!("nobody-{n}")).collect();
    let places = [(0, 3), (499, 1), (500, 4), (501, 0), (999, 2)];
    for (place, user) in places {
        ids[place] = format!("user-{user}");
    }
    let found = queries.get_many(PROFILES, TENANT, &ids).await.unwrap();
    shutdown.cancel();
    let wanted = places.map(|(_, user)| format!("user-{user}"));
    assert_eq!(found.into_iter().map(|row| row.id).collect::<Vec<_>>(), wanted);
}
